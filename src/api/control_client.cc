// cpp-httplib over AF_UNIX; a CancelWatch beside each call.
#include "api/control_client.h"

#include <sys/socket.h>

#include <chrono>
#include <optional>

#include <cpp-httplib/httplib.h>

#include "api/unix_socket.h"
#include "runtime/cancel_watch.h"

namespace shoal {
namespace {

constexpr int kConnectTimeoutS = 5;
constexpr int kShortTimeoutS = 20;    // status, invite, revoke
constexpr int kLongTimeoutS = 3600;   // leaving moves weights
constexpr int kStreamTimeoutS = 120;  // a silent stream has a comment every 15 s
constexpr std::chrono::milliseconds kCancelPoll{50};
constexpr std::size_t kEventBytesMax = 4U << 20;
constexpr int kAnyPort = 80;  // a socket file has none, but the library wants one
constexpr const char* kJsonType = "application/json";

Error NoNode() { return {ErrorCode::kUnavailable, "no node runs here: start one with `shoal up`"}; }

void SetUp(httplib::Client& client, int timeout_s) {
  client.set_address_family(AF_UNIX);
  client.set_connection_timeout(kConnectTimeoutS);
  client.set_read_timeout(timeout_s);
  client.set_write_timeout(kShortTimeoutS);
}

Error ErrorOf(httplib::Error error, bool cancelled) {
  if (cancelled) return {ErrorCode::kCancelled, "interrupted"};
  if (error == httplib::Error::Connection || error == httplib::Error::ConnectionTimeout) return NoNode();
  return {ErrorCode::kUnavailable, "the node did not answer: " + httplib::to_string(error)};
}

Result<std::string> BodyOf(const httplib::Result& result, bool cancelled) {
  if (!result) return ErrorOf(result.error(), cancelled);
  if (result->status != 200) return ParseControlError(result->status, result->body);
  return result->body;
}

Status Done(const Result<std::string>& body) { return body.ok() ? Status() : Status(body.error()); }

}  // namespace

bool ControlClient::NodeRuns() const { return SomebodyListens(socket_path_); }

Result<std::string> ControlClient::Get(const std::string& path) const {
  SHOAL_RETURN_IF_ERROR(CheckSocketPath(socket_path_));
  httplib::Client client(socket_path_, kAnyPort);
  SetUp(client, kShortTimeoutS);
  const CancelWatch watch(
      cancelled_, [&client] { client.stop(); }, kCancelPoll);
  const auto result = client.Get(path);
  return BodyOf(result, cancelled_());
}

Result<std::string> ControlClient::Post(const std::string& path, const std::string& body, int timeout_s) const {
  SHOAL_RETURN_IF_ERROR(CheckSocketPath(socket_path_));
  httplib::Client client(socket_path_, kAnyPort);
  SetUp(client, timeout_s);
  const CancelWatch watch(
      cancelled_, [&client] { client.stop(); }, kCancelPoll);
  const auto result = client.Post(path, body, kJsonType);
  return BodyOf(result, cancelled_());
}

Result<ClusterStatus> ControlClient::GetStatus() const {
  SHOAL_ASSIGN_OR_RETURN(const std::string body, Get("/control/status"));
  return ParseClusterStatus(body);
}

Result<InviteStatus> ControlClient::Invite() const {
  SHOAL_ASSIGN_OR_RETURN(const std::string body, Post("/control/invite", "{}", kShortTimeoutS));
  return ParseInviteStatus(body);
}

Result<PlacementStatus> ControlClient::Place(
    const PlaceCommand& command, const std::function<void(const std::vector<NodeStatus>&)>& on_nodes) const {
  std::string placed;
  SHOAL_RETURN_IF_ERROR(Stream("/control/place/stream", DumpJson(ToJson(command)), [&](const Json& event) {
    if (const auto placement = event.find("placement"); placement != event.end()) placed = DumpJson(*placement);
    if (on_nodes && placed.empty()) on_nodes(NodesIn(event));
    return true;
  }));
  return ParsePlacementStatus(placed);
}

Status ControlClient::Unplace(const std::string& model) const {
  return Done(Post("/control/unplace", DumpJson({{"model", model}}), kLongTimeoutS));
}

Status ControlClient::Join(const JoinCommand& command) const {
  return Done(Post("/control/join", DumpJson(ToJson(command)), kLongTimeoutS));
}

Status ControlClient::Leave() const { return Done(Post("/control/leave", "{}", kLongTimeoutS)); }

Status ControlClient::Revoke(const std::string& node) const {
  return Done(Post("/control/revoke", DumpJson({{"node", node}}), kShortTimeoutS));
}

Status ControlClient::TellModels() const { return Done(Post("/control/models", "{}", kShortTimeoutS)); }

Status ControlClient::Stream(const std::string& path, const std::string& body,
                             const std::function<bool(const Json&)>& take) const {
  SHOAL_RETURN_IF_ERROR(CheckSocketPath(socket_path_));
  httplib::Client client(socket_path_, kAnyPort);
  SetUp(client, kStreamTimeoutS);
  const CancelWatch watch(
      cancelled_, [&client] { client.stop(); }, kCancelPoll);
  EventReader reader;
  bool stopped = false;  // by `take`
  const auto result = client.Post(path, {}, body, kJsonType, [&](const char* data, std::size_t size) {
    const bool more = reader.Add({data, size}, [&](const Json& event) {
      stopped = stopped || !take(event);
      return !stopped;
    });
    return more;
  });
  if (stopped || reader.done()) return {};
  if (reader.error()) return *reader.error();
  if (!result) return ErrorOf(result.error(), cancelled_());
  if (result->status != 200) return ParseControlError(result->status, reader.rest());
  return Error{ErrorCode::kUnavailable, "the node ended the answer before its end"};
}

bool EventReader::Add(std::string_view bytes, const std::function<bool(const Json&)>& take) {
  if (error_) return false;
  rest_ += bytes;
  std::size_t begin = 0;
  for (std::size_t end = rest_.find("\n\n"); end != std::string::npos; end = rest_.find("\n\n", begin)) {
    const bool more = AddEvent(std::string_view(rest_).substr(begin, end - begin), take);
    begin = end + 2;
    if (!more) return false;
  }
  rest_.erase(0, begin);
  if (rest_.size() > kEventBytesMax) error_ = Error{ErrorCode::kCorrupt, "the node sent an event without an end"};
  return !error_;
}

bool EventReader::AddEvent(std::string_view event, const std::function<bool(const Json&)>& take) {
  constexpr std::string_view kData = "data: ";
  while (!event.empty() && event.front() == ':') {  // comments
    const std::size_t end = event.find('\n');
    event = end == std::string_view::npos ? std::string_view() : event.substr(end + 1);
  }
  if (event.empty()) return true;
  event = event.substr(0, event.find("\nid: "));  // for those who come back, which this program does not
  Json json;
  if (event == "data: [DONE]") {
    done_ = true;
    return true;
  }
  if (event.substr(0, kData.size()) != kData || ParseJson(event.substr(kData.size()), json) || !json.is_object()) {
    error_ = Error{ErrorCode::kCorrupt, "the node sent an event that this program does not understand"};
    return false;
  }
  if (json.contains("error")) {
    error_ = ParseControlError(503, event.substr(kData.size()));
    return false;
  }
  return take(json);
}

}  // namespace shoal
