// Wires the modules of a node: inputs of the cluster come from Peers and StageHost, its actions go back to them.
//
// All of it on one loop; the API's and the terminal's threads ask by posting to it, or read the PlacementTable.
#include "node/cluster_node.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <variant>

#include "base/log.h"
#include "cluster/cluster.h"
#include "device/available_memory.h"
#include "identity/home.h"
#include "identity/instance.h"
#include "node/answer_streams.h"
#include "node/cluster_backend.h"
#include "node/cluster_views.h"
#include "node/device.h"
#include "node/generation_stream.h"
#include "node/inviting.h"
#include "node/joining.h"
#include "node/model_library.h"
#include "node/peer_tasks.h"
#include "node/peers.h"
#include "node/pipe_rendezvous.h"
#include "node/stage_host.h"
#include "node/stage_metrics.h"
#include "runtime/ask_loop.h"
#include "runtime/blocking_tasks.h"
#include "runtime/rng.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

constexpr std::size_t kTasksMax = 1024;
constexpr DurationUs kTickUs = 100'000;
constexpr DurationUs kFactsUs = 5'000'000;       // how often memory and model folders are looked at
constexpr DurationUs kPeersFileUs = 20'000'000;  // how often addresses are kept
constexpr std::uint32_t kStreamOpenMs = 3'000;
constexpr std::chrono::seconds kPlaceMax{300};
constexpr std::chrono::seconds kLeaveMax{150};
constexpr std::uint32_t kJoinMs = 30'000;

std::int64_t UnixS() { return static_cast<std::int64_t>(std::time(nullptr)); }

std::vector<std::string> ModelFolders(const ClusterNodeOptions& options) {
  std::vector<std::string> folders = options.model_dirs;
  folders.push_back(options.home + "/models");
  return folders;
}

class RealClusterNode final : public ClusterNode, public std::enable_shared_from_this<RealClusterNode> {
 public:
  RealClusterNode(ClusterNodeOptions options, std::unique_ptr<Home> home, InstanceNumber instance)
      : options_(std::move(options)),
        home_(std::move(home)),
        instance_(instance),
        library_(ModelFolders(options_)),
        tasks_(kTasksMax),
        answers_(metrics_, AnswersOptions{}),
        host_(loop_, library_, tasks_, pipes_, HostOptions()) {}
  ~RealClusterNode() override { Stop(); }
  RealClusterNode(const RealClusterNode&) = delete;
  RealClusterNode& operator=(const RealClusterNode&) = delete;

  Status Begin();

  // ClusterNode
  void SetApiUrl(const std::string& url) override;
  bool Ended() const override { return ended_; }
  bool StartsAnew() const override { return starts_anew_; }
  void Depart(std::chrono::milliseconds limit) override;
  void SetDraining(const std::string& reason) override;
  void Stop() override;

  // Service
  std::vector<ModelCard> models() override;
  std::shared_ptr<Backend> Find(const std::string& name) override;
  bool healthy() const override { return !stopping_; }
  Answers* answers() override { return &answers_; }
  AnswerPeers* answer_peers() override { return answer_streams_.get(); }
  MetricsRegistry& metrics() override { return metrics_; }
  void RefreshMetrics() override;

  // ControlService
  ClusterStatus cluster_status() override;
  Result<InviteStatus> Invite() override;
  Result<PlacementStatus> Place(const PlaceCommand& command) override;
  Status Unplace(const std::string& model) override;
  Status Leave() override;
  Status Revoke(const std::string& node) override;

 private:
  using Answer = Result<Epoch>;

  StageHostOptions HostOptions();
  Status StartCluster();
  PeersOptions MakePeersOptions() const;
  PeersHandlers MakePeersHandlers();
  TimeUs Now() const { return loop_.clock().Now(); }

  template <typename F>
  auto OnLoop(F call) {
    return AskLoop(loop_, std::move(call));
  }

  // Loop.
  void Tick();
  void RefreshFacts();
  void TakeAddresses();
  void Obey();
  void Do(const Send& send) { peers_->Send(send.to, send.frame); }
  void Do(const Connect& connect) { peers_->Connect(connect.node, connect.addresses, Now()); }
  void Do(const Disconnect& disconnect);
  void Do(const LoadStage& load) { host_.Load(load.placement, load.index, load.source); }
  void Do(const Activate& activate);
  void Do(const UnloadStage& unload) { host_.Unload(unload.model, unload.epoch, unload.index); }
  void Do(const LoadStandby& load) { host_.LoadCopy(load.placement, load.index); }
  void Do(const DropStandby& drop) { host_.DropCopy(drop.model, drop.layers); }
  void Do(const RequestDone& done);
  void Do(const Revoked& revoked);
  void Do(const MembersChanged&);
  void Do(const PlacementsChanged&);
  void Do(const Left& left);
  void Do(const Note& note) { Log(LogLevel::kInfo, "cluster", note.text); }
  void OnStream(const NodeId& peer, const std::string& protocol, int fd);
  void OnClone(const std::string& why);
  void KeepPeers();

  // Tasks.
  void ServeGenerate(int fd);
  Result<std::unique_ptr<GenerationHandle>> StartAt(const PlacementRecord& placement, GenerateOptions options);
  Answer Wait(std::optional<std::shared_ptr<std::promise<Answer>>> asked, std::chrono::seconds limit);

  const ClusterNodeOptions options_;
  const std::unique_ptr<Home> home_;
  const InstanceNumber instance_;
  MetricsRegistry metrics_;
  RealLoop loop_;
  ModelLibrary library_;
  PipeRendezvous pipes_;
  BlockingTasks tasks_;
  PeerTasks peer_tasks_;
  Answers answers_;
  StageHost host_;
  std::unique_ptr<Peers> peers_;
  std::unique_ptr<Inviting> inviting_;  // loop only
  PlacementTable placements_;
  std::unique_ptr<AnswerStreams> answer_streams_;

  // Loop only.
  std::unique_ptr<Cluster> cluster_;
  MemberFacts facts_;
  bool obeying_ = false;
  TimeUs facts_due_ = 0, peers_file_due_ = 0;
  bool scanning_ = false;
  bool departing_ = false;  // it goes, and comes back
  std::map<std::uint64_t, std::shared_ptr<std::promise<Answer>>> requests_;
  std::vector<std::shared_ptr<std::promise<Answer>>> leaving_;
  std::string peers_file_;

  std::mutex backends_mutex_;
  std::map<std::string, std::pair<std::uint64_t, std::shared_ptr<Backend>>> backends_;  // by model: fingerprint
  std::set<std::string> not_served_;  // guarded by backends_mutex_: said already

  std::atomic<bool> stopping_{false}, ended_{false}, starts_anew_{false};
  std::once_flag stopped_;
};

// ---- Start and end --------------------------------------------------------------------------------------------------

StageHostOptions RealClusterNode::HostOptions() {
  StageHostOptions options;
  options.self = home_->id();
  options.memory_bytes_max = options_.memory_bytes_max;
  options.threads = options_.threads;
  options.open_pipe = [this](const NodeId& peer) -> Result<StreamLink> {
    SHOAL_ASSIGN_OR_RETURN(const int fd, peers_->OpenStream(peer, kPipeProtocol, kStreamOpenMs));
    return MakeStreamLink(fd, kFrameBytesMax);
  };
  options.on_ready = [this](const std::string& model, Epoch epoch, std::int32_t index, Status status) {
    cluster_->OnStageReady(Now(), model, epoch, index, std::move(status));
    Obey();
  };
  options.on_broken = [this](const std::string& model, Epoch epoch) {
    cluster_->OnPipelineBroken(Now(), model, epoch);
    Obey();
  };
  options.on_copy_ready = [this](const std::string& model, LayerRange layers, Status status) {
    cluster_->OnStandbyReady(Now(), model, layers, std::move(status));
    Obey();
  };
  return options;
}

PeersOptions RealClusterNode::MakePeersOptions() const {
  const Membership& membership = *home_->membership();
  PeersOptions options;
  options.self = home_->id();
  options.listen = options_.listen;
  options.port = options_.net_port;
  options.given = options_.peers;
  options.relays = options_.relays;
  options.network.relay = options_.serve_relay;
  options.network.seed.assign(home_->node_key().seed().begin(), home_->node_key().seed().end());
  options.network.cluster = membership.cluster();
  options.network.certificate = membership.certificate.encoded;
  options.network.instance = instance_;
  options.network.mdns = options_.mdns;
  options.beacon.self = home_->id();
  options.beacon.instance = instance_;
  options.beacon.beacon_port = options_.net_port;
  options.beacon.cluster_secret = membership.cluster_secret;
  return options;
}

PeersHandlers RealClusterNode::MakePeersHandlers() {
  PeersHandlers handlers;
  handlers.on_link_up = [this](const NodeId& peer) {
    if (!cluster_) return;
    cluster_->OnLinkUp(Now(), peer);
    Obey();
  };
  handlers.on_link_down = [this](const NodeId& peer) {
    if (!cluster_) return;
    cluster_->OnLinkDown(Now(), peer);
    Obey();
  };
  handlers.on_message = [this](const NodeId& peer, const ClusterMessage& message) {
    if (!cluster_) return;
    cluster_->OnMessage(Now(), peer, message);
    Obey();
  };
  handlers.on_stream = [this](const NodeId& peer, const std::string& protocol, int fd) {
    OnStream(peer, protocol, fd);
  };
  handlers.on_invite = [this](const NetworkEvent& event) {
    if (inviting_) inviting_->OnEvent(event);
  };
  handlers.on_clone = [this](const std::string& why) { OnClone(why); };
  handlers.on_addresses = [this] { facts_due_ = 0; };
  handlers.on_throughput = [this](const NodeId& peer, std::uint64_t bytes_per_s) {
    if (!cluster_) return;
    cluster_->OnThroughput(Now(), peer, bytes_per_s);
    Obey();
  };
  return handlers;
}

Status RealClusterNode::Begin() {
  library_.Scan();
  const auto open = [this](const NodeId& peer, const std::string& protocol, std::uint32_t timeout_ms) {
    return peers_->OpenStream(peer, protocol, timeout_ms);
  };
  answer_streams_ = std::make_unique<AnswerStreams>(*this, answers_, AnswerStreamsOptions{home_->id(), open});
  SHOAL_ASSIGN_OR_RETURN(peers_, Peers::Start(loop_, tasks_, MakePeersOptions(), MakePeersHandlers()));
  const std::optional<Status> started = OnLoop([this] { return StartCluster(); });
  return started ? *started : Status(Error{ErrorCode::kInternal, "the loop has stopped"});
}

Status RealClusterNode::StartCluster() {
  SHOAL_ASSIGN_OR_RETURN(const std::uint64_t boot, home_->NextIncarnation(0));
  const NodeId cluster_id = home_->membership()->cluster();
  facts_.name = options_.name;
  facts_.owner = home_->membership()->is_owner();
  facts_.device = MeasureDevice(options_.memory_bytes_max);
  facts_.models = HoldingsOf(library_.models());
  TakeAddresses();
  ClusterOptions options;
  options.self = home_->id();
  options.boot = boot;
  options.seed = RandomSeed();
  options.facts = facts_;
  options.verify_revocation = [cluster_id](std::span<const std::uint8_t> bytes) -> std::optional<NodeId> {
    const Result<Revocation> revocation = ParseRevocation(bytes, cluster_id);
    return revocation.ok() ? std::optional<NodeId>(revocation->member) : std::nullopt;
  };
  inviting_ = std::make_unique<Inviting>(*home_, *peers_);
  cluster_ = std::make_unique<Cluster>(options, Now());
  for (const Revocation& revocation : home_->revocations()) {
    (void)peers_->network().Revoke(revocation.encoded);
    (void)cluster_->AddRevocation(Now(), revocation.encoded);
  }
  if (const Result<std::string> peers = home_->LoadPeers(); peers.ok() && !peers->empty()) {
    const Status added = peers_->book().AddJson(*peers, Now());
    if (!added.ok()) Log(LogLevel::kWarning, "network", "peers.json is left out: " + added.error().message);
  }
  facts_due_ = Now() + kFactsUs;
  peers_file_due_ = Now() + kPeersFileUs;
  Obey();
  Tick();
  return {};
}

void RealClusterNode::Stop() {
  std::call_once(stopped_, [this] {
    stopping_ = true;
    OnLoop([this] {
      if (peers_ && !ended_) KeepPeers();
      for (const auto& [id, promise] : requests_) leaving_.push_back(promise);
      for (const auto& promise : leaving_) {
        promise->set_value(Error{ErrorCode::kUnavailable, "this node is stopping"});
      }
      requests_.clear();
      leaving_.clear();
      return 0;
    });
    if (answer_streams_) answer_streams_->Stop();
    pipes_.Close();
    host_.Stop();
    if (peers_) peers_->Stop();
    peer_tasks_.Join();
    answers_.Stop();
    tasks_.Join();
    loop_.Stop();
  });
}

// ---- The loop -------------------------------------------------------------------------------------------------------

void RealClusterNode::Tick() {
  if (stopping_) return;
  cluster_->OnTick(Now());
  Obey();
  peers_->Tick(Now());
  answers_.Sweep();
  if (Now() >= facts_due_) RefreshFacts();
  if (Now() >= peers_file_due_) KeepPeers();
  loop_.After(kTickUs, [this] { Tick(); });
}

// Looks at the disk in a task: a slow card must not silence this node.
void RealClusterNode::RefreshFacts() {
  facts_due_ = Now() + kFactsUs;
  if (scanning_) return;
  scanning_ = tasks_.Run([this] {
    library_.Scan();
    std::vector<ModelHolding> models = HoldingsOf(library_.models());
    const std::optional<std::uint64_t> free = AvailableMemory();
    loop_.Post([this, models = std::move(models), free]() mutable {
      scanning_ = false;
      if (ended_ || stopping_) return;
      facts_.models = std::move(models);
      TakeAddresses();
      if (free) facts_.device.memory_free_bytes = *free;
      cluster_->SetSelfFacts(Now(), facts_);
      Obey();
    });
  });
}

void RealClusterNode::TakeAddresses() {
  facts_.addresses = peers_->own_addresses();
  if (facts_.addresses.size() > kAddressesMax) facts_.addresses.resize(kAddressesMax);
}

void RealClusterNode::KeepPeers() {
  peers_file_due_ = Now() + kPeersFileUs;
  std::string text = peers_->book().ToJson();
  if (text == peers_file_) return;
  const Status stored = home_->StorePeers(text);
  if (!stored.ok()) Log(LogLevel::kWarning, "network", stored.error().message);
  peers_file_ = std::move(text);
}

void RealClusterNode::Obey() {
  if (obeying_ || !cluster_) return;
  obeying_ = true;
  for (;;) {
    const std::vector<Action> actions = cluster_->TakeActions();
    if (actions.empty()) break;
    for (const Action& action : actions) {
      std::visit([this](const auto& one) { Do(one); }, action);
    }
  }
  obeying_ = false;
}

void RealClusterNode::Do(const Disconnect& disconnect) {
  Log(LogLevel::kInfo, "cluster", "node " + ShortHex(disconnect.node) + " is disconnected: " + disconnect.reason);
  peers_->Disconnect(disconnect.node);
}

void RealClusterNode::Do(const Activate& activate) {
  for (const std::int32_t index : activate.indices) host_.Activate(activate.placement, index);
}

void RealClusterNode::Do(const RequestDone& done) {
  const auto found = requests_.find(done.id);
  if (found == requests_.end()) return;
  found->second->set_value(done.status.ok() ? Answer(done.epoch) : Answer(done.status.error()));
  requests_.erase(found);
}

void RealClusterNode::Do(const Revoked& revoked) {
  const Result<Revocation> parsed = ParseRevocation(revoked.bytes, home_->membership()->cluster());
  if (!parsed.ok()) return;
  const Result<bool> stored = home_->AddRevocation(*parsed);
  if (!stored.ok()) Log(LogLevel::kError, "cluster", "a revocation cannot be kept: " + stored.error().message);
  (void)peers_->network().Revoke(revoked.bytes);
  peers_->Forget(revoked.subject);
}

void RealClusterNode::Do(const MembersChanged&) {
  for (const MemberView& member : cluster_->members()) {
    if (member.self || member.state == MemberState::kLeft || member.state == MemberState::kDead) continue;
    peers_->LearnGossip(member.record.id, member.record.facts.addresses, Now());
  }
  Do(PlacementsChanged{});  // whether one is broken, and can be replaced, depends on who is here
}

void RealClusterNode::Do(const PlacementsChanged&) {
  placements_.Set(cluster_->placements(), IsAlone(*cluster_));
  answer_streams_->SetMembers(AnswerMembersOf(*cluster_));
}

void RealClusterNode::Do(const Left& left) {
  if (!left.text.empty()) Log(LogLevel::kWarning, "cluster", left.text);
  const Status forgotten = departing_ ? Status() : home_->ForgetCluster();
  if (!forgotten.ok()) Log(LogLevel::kError, "cluster", forgotten.error().message);
  for (const auto& promise : leaving_) promise->set_value(Epoch{0});
  leaving_.clear();
  ended_ = true;
}

void RealClusterNode::OnClone(const std::string& why) {
  if (ended_) return;
  const Status replaced = home_->ReplaceNodeKey(UnixS());
  starts_anew_ = replaced.ok() && home_->membership().has_value();
  Log(LogLevel::kError, "cluster",
      why + ": SHOAL_HOME was copied. " +
          (!replaced.ok() ? replaced.error().message
           : starts_anew_ ? "This node takes a new key and starts again with it"
                          : "This node took a new key and is a stranger with it: `shoal up --join CODE`, with a new "
                            "invite, brings it back"));
  ended_ = true;
}

void RealClusterNode::OnStream(const NodeId& peer, const std::string& protocol, int fd) {
  bool started = false;
  if (protocol == kPipeProtocol) started = peer_tasks_.Run(peer, [this, peer, fd] { pipes_.Serve(peer, fd); });
  if (protocol == kGenerateProtocol) started = peer_tasks_.Run(peer, [this, fd] { ServeGenerate(fd); });
  if (protocol == kKeepProtocol) {
    started = peer_tasks_.Run(peer, [this, peer, fd] { answer_streams_->ServeKeep(peer, fd); });
  }
  if (protocol == kAnswerProtocol) started = peer_tasks_.Run(peer, [this, fd] { answer_streams_->ServeAnswer(fd); });
  if (!started) ::close(fd);
}

void RealClusterNode::ServeGenerate(int fd) {
  StreamLink link = MakeStreamLink(fd, kFrameBytesMax);
  LimitFirstFrames(*link.receiver, kGenerateRequestFrames, kFirstFramesMax);
  ServeGeneration(std::move(link), [this](Epoch epoch, const std::string& model, GenerateOptions options) {
    return host_.Generate(model, epoch, std::move(options));
  });
}

// ---- Generations ----------------------------------------------------------------------------------------------------

Result<std::unique_ptr<GenerationHandle>> RealClusterNode::StartAt(const PlacementRecord& placement,
                                                                   GenerateOptions options) {
  if (stopping_) return Error{ErrorCode::kOverloaded, "this node is stopping"};
  const NodeId& head = placement.stages.front().node;
  if (head == home_->id()) return host_.Generate(placement.model, placement.epoch, std::move(options));
  SHOAL_ASSIGN_OR_RETURN(const int fd, peers_->OpenStream(head, kGenerateProtocol, kStreamOpenMs));
  return OpenRemoteGeneration(MakeStreamLink(fd, kFrameBytesMax), placement.epoch, placement.model, std::move(options));
}

std::vector<ModelCard> RealClusterNode::models() {
  std::vector<ModelCard> cards;
  for (const PlacementView& placement : placements_.all()) {
    if (const std::shared_ptr<Backend> backend = Find(placement.record.model)) cards.push_back(backend->model());
  }
  return cards;
}

std::shared_ptr<Backend> RealClusterNode::Find(const std::string& name) {
  const std::lock_guard lock(backends_mutex_);
  for (const PlacementView& placement : placements_.all()) {
    const std::string& model = placement.record.model;
    if (!IsServedModel({model, 0, 0}, name)) continue;
    auto& [fingerprint, backend] = backends_[model];
    if (backend == nullptr || fingerprint != placement.record.request.fingerprint) {
      Result<std::shared_ptr<Backend>> opened = OpenClusterBackend(
          library_, placements_, placement.record,
          [this](const PlacementRecord& record, GenerateOptions options) {
            return StartAt(record, std::move(options));
          },
          metrics_.GetCounter("shoal_generations_resumed_total", "Generations that went on after a loss."));
      if (!opened.ok()) {
        if (not_served_.insert(model).second) {
          Log(LogLevel::kWarning, "models", "'" + model + "' cannot be served here: " + opened.error().message);
        }
        continue;
      }
      fingerprint = placement.record.request.fingerprint;
      backend = *std::move(opened);
      not_served_.erase(model);
    }
    // Who uses it keeps it, also when another file takes the model's name, and with it the node.
    return {backend.get(), [node = shared_from_this(), kept = backend](Backend*) {}};
  }
  return nullptr;
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
  for (const auto& [model, totals] : host_.HeadTotals()) SetStageMetrics(metrics_, model, totals);
  SetRecoveryMetrics(metrics_, host_.Recovery());
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
  const std::optional<ClusterStatus> status =
      OnLoop([this] { return StatusOf(*cluster_, home_->membership() ? home_->membership()->cluster() : NodeId{}); });
  return status.value_or(ClusterStatus{});
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

Result<PlacementStatus> RealClusterNode::Place(const PlaceCommand& asked) {
  PlaceCommand command = asked;
  if (command.model.find('/') != std::string::npos) {  // a file of this node, which joins the library
    SHOAL_ASSIGN_OR_RETURN(const LibraryModel model, library_.Find(command.model));
    command.model = model.name;
    OnLoop([this] {
      facts_.models = HoldingsOf(library_.models());
      cluster_->SetSelfFacts(Now(), facts_);
      Obey();
      return 0;
    });
  }
  command.model = ModelNameOf(command.model);
  const auto promise = std::make_shared<std::promise<Answer>>();
  SHOAL_RETURN_IF_ERROR(Wait(OnLoop([this, command, promise] {
                               const Result<PlaceRequest> request = RequestOf(*cluster_, command);
                               if (request.ok()) {
                                 requests_[cluster_->RequestPlacement(Now(), *request)] = promise;
                                 Obey();
                               } else {
                                 promise->set_value(request.error());
                               }
                               return promise;
                             }),
                             kPlaceMax));
  const auto status = OnLoop([this, model = command.model]() -> Result<PlacementStatus> {
    const std::optional<PlacementView> view = cluster_->placement(model);
    if (view) return StatusOf(*cluster_, *view);
    return Error{ErrorCode::kStale, "'" + model + "' was placed, and unplaced by someone else right after"};
  });
  return status ? *status : Error{ErrorCode::kUnavailable, "this node is stopping"};
}

Status RealClusterNode::Unplace(const std::string& model) {
  const auto promise = std::make_shared<std::promise<Answer>>();
  SHOAL_RETURN_IF_ERROR(Wait(OnLoop([this, name = ModelNameOf(model), promise] {
                               requests_[cluster_->RequestUnplace(Now(), name)] = promise;
                               Obey();
                               return promise;
                             }),
                             kPlaceMax));
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
  const auto promise = std::make_shared<std::promise<Answer>>();
  (void)Wait(OnLoop([this, promise, limit] {
               departing_ = true;
               leaving_.push_back(promise);
               cluster_->Leave(Now(), std::chrono::microseconds(limit).count());
               Obey();
               return promise;
             }),
             std::chrono::ceil<std::chrono::seconds>(limit) + std::chrono::seconds(1));
}

Status RealClusterNode::Leave() {
  const auto promise = std::make_shared<std::promise<Answer>>();
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
    SHOAL_ASSIGN_OR_RETURN(const NodeId id, FindMember(*cluster_, node));
    SHOAL_ASSIGN_OR_RETURN(const Revocation revocation, home_->Revoke(id, UnixS()));
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

}  // namespace

Result<std::shared_ptr<ClusterNode>> ClusterNode::Open(const ClusterNodeOptions& given) {
  ClusterNodeOptions options = given;
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<Home> home, Home::Open(options.home, UnixS()));
  const std::string name = CleanNodeName(options.name.empty() ? HostName() : options.name);
  if (!options.join_code.empty()) {
    SHOAL_RETURN_IF_ERROR(JoinWithCode(*home, name, options.join_code, options.peers, options.net_port, kJoinMs));
  } else if (!home->membership()) {
    SHOAL_RETURN_IF_ERROR(home->CreateCluster(name, UnixS()));
  }
  options.name = options.name.empty() ? home->membership()->certificate.name : name;
  SHOAL_ASSIGN_OR_RETURN(const InstanceNumber instance, MakeInstance());
  const auto node = std::make_shared<RealClusterNode>(options, std::move(home), instance);
  SHOAL_RETURN_IF_ERROR(node->Begin());
  return std::shared_ptr<ClusterNode>(node);
}

}  // namespace shoal
