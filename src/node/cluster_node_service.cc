// What the API and people ask of a node of a cluster: on their threads, answered by the loop or from tables.
#include <algorithm>
#include <ctime>

#include "base/log.h"
#include "node/cluster_views.h"
#include "node/generation_stream.h"
#include "node/real_cluster_node.h"
#include "node/stage_metrics.h"

namespace shoal {
namespace {

constexpr std::chrono::hours kPlaceMax{24};  // the cluster gives up long before, unless layers keep coming
constexpr std::chrono::seconds kLeaveMax{150};
constexpr std::chrono::seconds kAcceptMax{30};  // of a head, which waits for its stages less long
constexpr std::chrono::seconds kListMax{2};     // for models whose vocabulary is not here yet

}  // namespace

// ---- Generations ----------------------------------------------------------------------------------------------------

Result<std::unique_ptr<GenerationHandle>> RealClusterNode::StartAt(const PlacementRecord& placement,
                                                                   GenerateOptions options) {
  if (stopping_) return Error{ErrorCode::kOverloaded, "this node is stopping"};
  kernels_.GiveWay();
  const NodeId& head = placement.stages.front().node;
  if (head == home_->id()) return host_.Generate(placement.model, placement.epoch, std::move(options));
  SHOAL_ASSIGN_OR_RETURN(const int fd, peers_->OpenStream(head, kGenerateProtocol, kStreamOpenMs));
  StreamLink link = MakeStreamLink(fd, kFrameBytesMax);
  LimitFirstFrames(*link.receiver, 1, kAcceptMax);
  return OpenRemoteGeneration(std::move(link), placement.epoch, placement.model, std::move(options));
}

std::vector<ModelCard> RealClusterNode::models() {
  std::vector<ModelCard> cards;
  const auto until = std::chrono::steady_clock::now() + kListMax;
  const auto given_up = [&] { return ended_ || stopping_ || std::chrono::steady_clock::now() >= until; };
  for (const PlacementView& placement : placements_.all()) {
    const std::shared_ptr<Backend> backend = FindBackend(placement.record.model, given_up);
    if (backend != nullptr) cards.push_back(backend->model());
  }
  return cards;
}

std::shared_ptr<Backend> RealClusterNode::Find(const std::string& name) {
  return FindBackend(name, [this] { return ended_ || stopping_; });
}

std::shared_ptr<Backend> RealClusterNode::FindBackend(const std::string& name, const std::function<bool()>& given_up) {
  const auto open = [&](const PlacementRecord& record) { return OpenBackendOf(record, given_up); };
  std::shared_ptr<Backend> backend = backends_.Find(name, placements_, open, given_up);
  if (backend == nullptr) return nullptr;
  // Who uses it keeps it, also when another file takes the model's name, and with it the node.
  return {backend.get(), [node = shared_from_this(), kept = backend](Backend*) {}};
}

Result<std::shared_ptr<Backend>> RealClusterNode::OpenBackendOf(const PlacementRecord& record,
                                                                const std::function<bool()>& given_up) {
  SHOAL_ASSIGN_OR_RETURN(const LibraryModel model,
                         weights_->ObtainHeader(record.request.fingerprint, record.model, given_up));
  return OpenClusterBackend(
      library_, model, placements_, record,
      [this](const PlacementRecord& at, GenerateOptions options) { return StartAt(at, std::move(options)); },
      metrics_.GetCounter("shoal_generations_resumed_total", "Generations that went on after a loss."));
}

void RealClusterNode::RefreshMetrics() {
  const ClusterStatus status = cluster_status();
  const auto alive = std::count_if(status.nodes.begin(), status.nodes.end(),
                                   [](const NodeStatus& node) { return node.state == "alive"; });
  const auto set = [this](const char* name, const char* help, auto value) {
    metrics_.GetGauge(name, help).Set(static_cast<double>(value));
  };
  set("shoal_nodes_alive", "Nodes of the cluster that are here.", alive);
  set("shoal_placements", "Models that are placed.", status.placements.size());
  SetNetworkMetrics(metrics_, peers_->network().stats());
  SetSpeedMetrics(metrics_, status.placements);
  SetStageMetrics(metrics_, host_.HeadTotals());
  SetHeadMetrics(metrics_, host_.Counts());
}

// ---- What a person asks ---------------------------------------------------------------------------------------------

void RealClusterNode::SetApiUrl(const std::string& url) {
  OnLoop([this, url] {
    facts_.api = url;
    cluster_->SetSelfFacts(Now(), facts_);
    Obey();
    return 0;
  });
}

ClusterStatus RealClusterNode::cluster_status() {
  std::optional<ClusterStatus> status =
      OnLoop([this] { return StatusOf(*cluster_, home_->membership() ? home_->membership()->cluster() : NodeId{}); });
  if (!status) return {};
  PutObserved(ObservedOf(host_.Works()), *status);
  status->kernels = kernels_.status();
  return *std::move(status);
}

RealClusterNode::Answer RealClusterNode::Wait(std::optional<std::shared_ptr<std::promise<Answer>>> asked,
                                              std::chrono::seconds limit) {
  if (!asked) return Error{ErrorCode::kUnavailable, "this node is stopping"};
  std::future<Answer> answer = (*asked)->get_future();
  if (answer.wait_for(limit) != std::future_status::ready) {
    return Error{ErrorCode::kUnavailable, "the cluster did not agree within " + std::to_string(limit.count()) + " s"};
  }
  return answer.get();
}

RealClusterNode::Answer RealClusterNode::Request(const std::function<Result<std::uint64_t>()>& ask) {
  auto promise = std::make_shared<std::promise<Answer>>();
  return Wait(OnLoop([&] {
                const Error stopping{ErrorCode::kUnavailable, "this node is stopping"};
                const Result<std::uint64_t> id = ended_ || stopping_ ? stopping : ask();
                if (id.ok()) {
                  requests_[*id] = promise;
                  Obey();
                } else {
                  promise->set_value(id.error());
                }
                return promise;
              }),
              kPlaceMax);
}

Result<PlacementStatus> RealClusterNode::Place(const PlaceCommand& asked) {
  PlaceCommand command = asked;
  if (command.model.find('/') != std::string::npos) {  // a file of this node, which joins the library
    SHOAL_ASSIGN_OR_RETURN(const LibraryModel model, library_.Find(command.model));
    command.model = model.name;
  }
  SHOAL_RETURN_IF_ERROR(TellModels());  // also what another process has put into the store just now
  command.model = ModelNameOf(command.model);
  SHOAL_RETURN_IF_ERROR(Request([&]() -> Result<std::uint64_t> {
    SHOAL_ASSIGN_OR_RETURN(const PlaceRequest request, RequestOf(*cluster_, command));
    return cluster_->RequestPlacement(Now(), request);
  }));
  const auto status = OnLoop([this, model = command.model]() -> Result<PlacementStatus> {
    const std::optional<PlacementView> view = cluster_->placement(model);
    if (view) return StatusOf(*cluster_, *view);
    return Error{ErrorCode::kStale, "'" + model + "' was placed, and unplaced by someone else right after"};
  });
  return status ? *status : Error{ErrorCode::kUnavailable, "this node is stopping"};
}

Status RealClusterNode::TellModels() {
  const auto told = OnLoop([this, look = LookAtDisk()]() mutable {
    TakeModels(std::move(look));
    cluster_->SetSelfFacts(Now(), facts_);
    Obey();
    return 0;
  });
  return told ? Status() : Status(Error{ErrorCode::kUnavailable, "this node is stopping"});
}

Status RealClusterNode::Unplace(const std::string& model) {
  SHOAL_RETURN_IF_ERROR(
      Request([&]() -> Result<std::uint64_t> { return cluster_->RequestUnplace(Now(), ModelNameOf(model)); }));
  return {};
}

void RealClusterNode::SetDraining(const std::string& reason) {
  OnLoop([this, reason] {
    cluster_->SetDraining(Now(), reason);
    Obey();
    return 0;
  });
}

void RealClusterNode::Depart(std::chrono::milliseconds limit) {
  auto promise = std::make_shared<std::promise<Answer>>();
  (void)Wait(OnLoop([this, promise, limit] {
               departing_ = true;
               leaving_.push_back(promise);
               cluster_->Leave(Now(), std::chrono::microseconds(limit).count());
               Obey();
               return promise;
             }),
             std::chrono::ceil<std::chrono::seconds>(limit) + std::chrono::seconds(1));
}

Result<JoinRequest> RealClusterNode::BeginJoin(const JoinCommand& command) {
  if (joining_) return Error{ErrorCode::kUnavailable, "this node is joining already: wait for that"};
  SHOAL_RETURN_IF_ERROR(MayJoin(*home_));
  joining_ = true;
  const auto seed = home_->node_key().seed();
  return JoinRequest{home_->id(),
                     {seed.begin(), seed.end()},
                     command.name.empty() ? options_.name : command.name,
                     command.code,
                     command.peers,
                     [this] { return ended_ || stopping_; }};
}

Status RealClusterNode::EndJoin(const ReceivedGrant& received) {
  if (ended_ || departing_ || !leaving_.empty()) return Error{ErrorCode::kUnavailable, "this node is leaving"};
  SHOAL_RETURN_IF_ERROR(MayJoin(*home_));  // somebody may have been invited here meanwhile
  const NodeId before = home_->membership()->cluster();
  Status kept = KeepGrant(*home_, received);
  if (!kept.ok() && home_->membership() && home_->membership()->cluster() == before) return kept;
  Log(LogLevel::kInfo, "cluster", "this node starts anew, as a member of another cluster");
  TellWhoWaits();
  starts_anew_ = true;
  ended_ = true;
  return kept;
}

Status RealClusterNode::Join(const JoinCommand& command) {
  const Error stopping{ErrorCode::kUnavailable, "this node is stopping"};
  const auto request = OnLoop([this, command] { return BeginJoin(command); });
  if (!request) return stopping;
  if (!request->ok()) return request->error();
  bool thrown_out = false;
  const Result<ReceivedGrant> received = AskToJoin(**request, thrown_out);
  const auto joined = OnLoop([&]() -> Status {
    joining_ = false;
    return received.ok() ? EndJoin(*received) : received.error();
  });
  if (!joined) return stopping;
  if (thrown_out) {
    return Error{ErrorCode::kUnavailable,
                 "that cluster has thrown this device's key out: end the node here, then `shoal join` takes a new key"};
  }
  return *joined;
}

Status RealClusterNode::Leave() {
  auto promise = std::make_shared<std::promise<Answer>>();
  SHOAL_RETURN_IF_ERROR(Wait(OnLoop([this, promise] {
                               leaving_.push_back(promise);
                               cluster_->Leave(Now());
                               Obey();
                               return promise;
                             }),
                             kLeaveMax));
  return {};
}

Status RealClusterNode::Revoke(const std::string& node) {
  const auto revoked = OnLoop([this, node]() -> Status {
    if (!home_->membership() || !home_->membership()->is_owner()) {
      return Error{ErrorCode::kUnsupported, "only the device that made the cluster can throw others out"};
    }
    SHOAL_ASSIGN_OR_RETURN(const NodeId id, FindMember(*cluster_, home_->known_members(), home_->revocations(), node));
    SHOAL_ASSIGN_OR_RETURN(const Revocation revocation,
                           home_->Revoke(id, static_cast<std::int64_t>(std::time(nullptr))));
    SHOAL_RETURN_IF_ERROR(cluster_->AddRevocation(Now(), revocation.encoded));
    Obey();
    return peers_->network().Revoke(revocation.encoded);
  });
  return revoked ? *revoked : Status(Error{ErrorCode::kUnavailable, "this node is stopping"});
}

Result<InviteStatus> RealClusterNode::Invite() {
  const auto invite = OnLoop([this] {
    std::string owner = "the device that made the cluster";
    for (const MemberView& member : cluster_->members()) {
      if (member.record.facts.owner) owner = "'" + member.record.facts.name + "'";
    }
    return inviting_->Invite(owner);
  });
  return invite ? *invite : Error{ErrorCode::kUnavailable, "this node is stopping"};
}

}  // namespace shoal
