// Parse, call, format.
#include "api/control_server.h"

#include <chrono>
#include <future>

#include "api/control_json.h"
#include "api/errors.h"

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kProgressEvery{500};

Reply Failure(const Error& error) { return {FromError(error).status, ControlErrorBody(error), 0, nullptr}; }

Reply Success(const Json& json) { return {200, DumpJson(json), 0, nullptr}; }

Reply Done(const Status& status) { return status.ok() ? Success(Json::object()) : Failure(status.error()); }

Result<InviteStatus> Invite(ControlService& service, std::string_view body) {
  SHOAL_RETURN_IF_ERROR(ParseEmptyRequest(body));
  return service.Invite();
}

Result<PlacementStatus> Place(ControlService& service, std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const PlaceCommand options, ParsePlaceRequest(body));
  return service.Place(options);
}

// Tells what nodes are fetching while they are at it, and at the end what Place answers.
void StreamPlace(ControlService& service, const PlaceCommand& command, EventSink& sink) {
  auto placing = std::async(std::launch::async, [&] { return service.Place(command); });
  const auto say = [&](const std::string& json) { (void)sink.Write("data: " + json + "\n\n"); };
  while (placing.wait_for(kProgressEvery) != std::future_status::ready) {
    say(DumpJson({{"nodes", ToJson(service.cluster_status())["nodes"]}}));
  }
  const Result<PlacementStatus> placed = placing.get();
  if (!placed.ok()) return say(ControlErrorBody(placed.error()));
  say(DumpJson({{"placement", ToJson(*placed)}}));
  say("[DONE]");
}

Reply PlaceInEvents(ControlService& service, std::string_view body) {
  Result<PlaceCommand> command = ParsePlaceRequest(body);
  if (!command.ok()) return Failure(command.error());
  return {200, "", 0,
          [&service, command = *std::move(command)](EventSink& sink) { StreamPlace(service, command, sink); }};
}

Status Unplace(ControlService& service, std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const std::string model, ParseOneField(body, "model"));
  return service.Unplace(model);
}

Status Join(ControlService& service, std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const JoinCommand command, ParseJoinRequest(body));
  return service.Join(command);
}

Status Leave(ControlService& service, std::string_view body) {
  SHOAL_RETURN_IF_ERROR(ParseEmptyRequest(body));
  return service.Leave();
}

Status Revoke(ControlService& service, std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const std::string node, ParseOneField(body, "node"));
  return service.Revoke(node);
}

Status TellModels(ControlService& service, std::string_view body) {
  SHOAL_RETURN_IF_ERROR(ParseEmptyRequest(body));
  return service.TellModels();
}

template <typename T>
Reply Answer(const Result<T>& result) {
  return result.ok() ? Success(ToJson(*result)) : Failure(result.error());
}

}  // namespace

Reply AnswerControl(ControlService& service, std::string_view path, std::string_view body) {
  if (path == "/control/status") return Success(ToJson(service.cluster_status()));
  if (path == "/control/invite") return Answer(Invite(service, body));
  if (path == "/control/place") return Answer(Place(service, body));
  if (path == "/control/place/stream") return PlaceInEvents(service, body);
  if (path == "/control/unplace") return Done(Unplace(service, body));
  if (path == "/control/join") return Done(Join(service, body));
  if (path == "/control/leave") return Done(Leave(service, body));
  if (path == "/control/revoke") return Done(Revoke(service, body));
  if (path == "/control/models") return Done(TellModels(service, body));
  return Failure({ErrorCode::kNotFound, "there is nothing at this address"});
}

}  // namespace shoal
