// Wires the modules of a node: inputs of the cluster come from Peers and StageHost, its actions go back to them.
//
// All of it on one loop; the API's and the terminal's threads ask by posting to it, or read the PlacementTable.
#include "node/cluster_node.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <set>
#include <variant>

#include "base/log.h"
#include "device/available_memory.h"
#include "device/cpu_affinity.h"
#include "node/cluster_views.h"
#include "node/device.h"
#include "node/generation_stream.h"
#include "node/joining.h"
#include "node/offload_facts.h"
#include "node/real_cluster_node.h"
#include "offload/stage_engines.h"
#include "runtime/rng.h"
#include "wire/copy_messages.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

constexpr std::size_t kTasksMax = 1024;
constexpr DurationUs kTickUs = 100'000;
constexpr DurationUs kFactsUs = 5'000'000;       // how often memory and model folders are looked at
constexpr DurationUs kFetchingUs = 1'000'000;    // how often others are told what is fetched; less often among many
constexpr DurationUs kObservedUs = 10'000'000;   // how often others are told what placements give, likewise
constexpr DurationUs kSpeedsUs = 1'000'000;      // how often what stages take is looked at
constexpr DurationUs kPeersFileUs = 20'000'000;  // how often addresses are kept

std::int64_t UnixS() { return static_cast<std::int64_t>(std::time(nullptr)); }

std::vector<std::string> ModelFolders(const ClusterNodeOptions& options) {
  std::vector<std::string> folders = options.model_dirs;
  folders.push_back(options.home + "/models");
  return folders;
}

KernelKeeperOptions KernelOptions(const ClusterNodeOptions& options) {
  KernelKeeperOptions kernels;
  kernels.home = options.home;
  kernels.known = options.kernels;
  kernels.may_measure = options.measure_speed;
  kernels.threads = options.threads;
  kernels.battery_floor_percent = options.power.battery_floor_percent;
  return kernels;
}

}  // namespace

// ---- Start and end --------------------------------------------------------------------------------------------------

RealClusterNode::RealClusterNode(ClusterNodeOptions options, std::unique_ptr<Home> home, InstanceNumber instance)
    : options_(std::move(options)),
      home_(std::move(home)),
      instance_(instance),
      library_(ModelFolders(options_)),
      tasks_(kTasksMax),
      kernels_(tasks_, KernelOptions(options_)),
      engines_(options_.device.none() ? nullptr : std::make_shared<StageEngines>(options_.device, options_.home)),
      speeds_(
          loop_, tasks_, options_.home, [this](const std::string& type) { return kernels_.ThreadsFor(type); },
          options_.measure_speed,
          [this](const ModelHolding& holding) -> std::shared_ptr<const ModelFile> {
            const Result<LibraryModel> model = weights_->ObtainHeader(holding.fingerprint, holding.name);
            return model.ok() ? model->file : nullptr;
          },
          engines_
              ? FindSpeedDevice([engines = engines_](ModelFingerprint model) { return SpeedDeviceOf(engines, model); })
              : nullptr),
      power_(loop_, tasks_, options_.power),
      answers_(metrics_, AnswersOptions{}),
      host_(loop_, library_, tasks_, pipes_, HostOptions()) {}

StageHostOptions RealClusterNode::HostOptions() {
  StageHostOptions options;
  options.self = home_->id();
  options.memory_bytes_max = options_.memory_bytes_max;
  options.drafts = options_.drafts;
  options.threads = [this](const std::string& type) { return kernels_.ThreadsFor(type); };
  options.obtain = [this](const PlacementRecord& placement, LayerRange layers, const std::function<bool()>& cancelled) {
    auto obtained = weights_->Obtain(placement.request.fingerprint, placement.model, layers, cancelled);
    loop_.Post([this] { facts_due_ = 0; });  // others are told what came
    return obtained;
  };
  if (engines_) {
    engines_->OnChange([this] { loop_.Post([this] { TellOffload(); }); });
    options.open_engine = [engines = engines_](std::shared_ptr<const ModelFile> model, const EngineOptions& engine) {
      return engines->Open(std::move(model), engine);
    };
  }
  options.open_copy = [this](const NodeId& peer) -> Result<StreamLink> {
    SHOAL_ASSIGN_OR_RETURN(const int fd, peers_->OpenStream(peer, kCopyProtocol, kStreamOpenMs, StreamPriority::kBulk));
    return MakeStreamLink(fd, kCopyFrameBytesMax);
  };
  options.open_pipe = [this](const NodeId& peer) -> Result<StreamLink> {
    SHOAL_ASSIGN_OR_RETURN(const int fd, peers_->OpenStream(peer, kPipeProtocol, kStreamOpenMs));
    return MakeStreamLink(fd, kFrameBytesMax);
  };
  options.on_ready = [this](const std::string& model, Epoch epoch, std::int32_t index, const Status& status) {
    cluster_->OnStageReady(Now(), model, epoch, index, status);
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

NodeWeightsOptions RealClusterNode::WeightsOptions() {
  NodeWeightsOptions options;
  options.store = {options_.home + "/store", options_.store_bytes_max};
  options.self = home_->id();
  options.members = [this] { return OnLoop([this] { return MembersHere(*cluster_); }).value_or(MembersWithNames{}); };
  options.open = [this](const NodeId& peer) -> Result<StreamLink> {
    const auto fd = peers_->OpenStream(peer, kWeightsProtocol, kStreamOpenMs, StreamPriority::kBulk);
    return fd.ok() ? Result<StreamLink>(MakeStreamLink(*fd, kFrameBytesMax)) : fd.error();
  };
  options.run = [this](std::function<void()> task) { return tasks_.Run(std::move(task)); };
  options.stopping = [this] { return stopping_.load(); };
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
  handlers.on_certificate = [this](const std::vector<std::uint8_t>& shown) {
    const Result<Certificate> certificate = ParseCertificate(shown, 0);
    const Status kept = certificate.ok() ? home_->Remember(certificate->member, certificate->name) : Status();
    if (!kept.ok()) Log(LogLevel::kInfo, "cluster", "a name is not remembered: " + kept.error().message);
  };
  handlers.on_clone = [this](const std::string& why) { OnClone(why); };
  handlers.on_end = [this](const std::string& why) { OnNetworkEnd(why); };
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
  SHOAL_ASSIGN_OR_RETURN(weights_, NodeWeights::Open(library_, metrics_, WeightsOptions()));
  // Both look at the disk: before the loop has anything to do.
  facts_.device = MeasureDevice(options_.memory_bytes_max);
  if (engines_) facts_.device.offload = OffloadFactsOf(*engines_);
  facts_.models = weights_->Holdings();
  {
    const PlacedWhile placed(options_.waiting_cpus);  // the network's threads
    SHOAL_ASSIGN_OR_RETURN(peers_, Peers::Start(loop_, tasks_, MakePeersOptions(), MakePeersHandlers()));
  }
  const std::optional<Status> started = OnLoop([this] { return StartCluster(); });
  return started ? *started : Status(Error{ErrorCode::kInternal, "the loop has stopped"});
}

Status RealClusterNode::StartCluster() {
  SHOAL_ASSIGN_OR_RETURN(const std::uint64_t boot, home_->NextIncarnation(0));
  const NodeId cluster_id = home_->membership()->cluster();
  facts_.name = options_.name;
  facts_.owner = home_->membership()->is_owner();
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
  peers_->Begin();
  facts_due_ = Now() + kFactsUs;
  peers_file_due_ = Now() + kPeersFileUs;
  Obey();
  Tick();
  return {};
}

void RealClusterNode::TellWhoWaits() {
  for (const auto& [id, promise] : requests_) leaving_.push_back(promise);
  for (const auto& promise : leaving_) { promise->set_value(Error{ErrorCode::kUnavailable, "this node is stopping"}); }
  requests_.clear();
  leaving_.clear();
}

void RealClusterNode::Stop() {
  std::call_once(stopped_, [this] {
    stopping_ = true;
    OnLoop([this] {
      if (peers_ && !ended_) KeepPeers();
      TellWhoWaits();
      return 0;
    });
    if (engines_) engines_->Close();
    if (answer_streams_) answer_streams_->Stop();
    kernels_.Stop();
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
  if (Now() >= speeds_due_) RefreshSpeeds();
  if (Now() >= fetching_due_) TellFetching();
  if (Now() >= peers_file_due_ && !ended_) KeepPeers();
  loop_.After(kTickUs, [this] { Tick(); });
}

RealClusterNode::Look RealClusterNode::LookAtDisk() {
  Look look{++looks_, {}};
  library_.Scan();
  look.models = weights_->Holdings();
  return look;
}

void RealClusterNode::TakeModels(Look look) {
  if (look.number < look_taken_) return;
  look_taken_ = look.number;
  facts_.models = std::move(look.models);
}

// Looks at the disk in a task: a slow card must not silence this node.
void RealClusterNode::RefreshFacts() {
  if (scanning_) return;
  facts_due_ = Now() + kFactsUs;
  Learn();
  scanning_ = tasks_.Run([this] {
    weights_->TidyUp();
    Look look = LookAtDisk();
    const std::optional<std::uint64_t> free = AvailableMemory();
    loop_.Post([this, look = std::move(look), free]() mutable {
      scanning_ = false;
      if (ended_ || stopping_) return;
      TakeModels(std::move(look));
      TakeAddresses();
      if (free) facts_.device.memory_free_bytes = *free;
      cluster_->SetSelfFacts(Now(), facts_);
      Obey();
    });
  });
}

void RealClusterNode::RefreshSpeeds() {
  speeds_due_ = Now() + kSpeedsUs;
  const std::vector<StageHost::Work> works = host_.Works();
  TellObserved(ObservedOf(works));
  host_.SetDraftChances(DraftChancesOf(*cluster_));
  RefreshKernels(works);
  speeds_.Tick(Now(), facts_.models, works, [this] {
    if (ended_ || stopping_) return;
    speeds_.Fill(facts_.device);
    cluster_->SetSelfFacts(Now(), facts_);
    Obey();
  });
  power_.Tick(Now(), speeds_.work_s(), works, [this] { ObeyPower(); });
}

// On what the stages here compute.
void RealClusterNode::TellOffload() {
  if (ended_ || stopping_) return;
  facts_.device.offload = OffloadFactsOf(*engines_);
  cluster_->SetSelfFacts(Now(), facts_);
  Obey();
}

// Busy: rows are run, a stage comes or goes, layers arrive, or this device should rest.
void RealClusterNode::RefreshKernels(const std::vector<StageHost::Work>& works) {
  std::uint64_t done = works.size();
  std::set<std::string> types;
  for (const StageHost::Work& work : works) done += work.stats.rows;
  for (const ModelHolding& model : facts_.models) types.insert(model.quantization);
  const std::vector<PlacementView> placements = placements_.all();
  const bool comes = std::any_of(placements.begin(), placements.end(), [](const PlacementView& one) {
    return one.record.state == PlacementState::kPreparing;
  });
  const bool rests = power_.rest() > 0 || !power_.draining().empty();
  const bool busy = done != std::exchange(worked_, done) || comes || rests || !facts_.fetching.empty();
  if (kernels_.Tick(Now(), busy, {types.begin(), types.end()})) speeds_.Forget();
}

// Rests, says how fast it is now, and gives its layers away when the battery is low or it stays hot.
void RealClusterNode::ObeyPower() {
  if (ended_ || stopping_) return;
  host_.SetRest(power_.rest());
  if (power_.cap() && speeds_.Cap(*power_.cap())) speeds_.Fill(facts_.device);
  power_.Fill(facts_.device);
  cluster_->SetSelfFacts(Now(), facts_);
  cluster_->SetDraining(Now(), power_.draining());
  Obey();
}

// In a task of its own: whoever has a model may have to hash it first.
void RealClusterNode::Learn() {
  std::vector<ModelHolding> unknown = UnknownModels(*cluster_, facts_.models);
  if (learning_ || unknown.empty()) return;
  learning_ = tasks_.Run([this, unknown = std::move(unknown)] {
    bool learnt = false;
    for (const ModelHolding& model : unknown) learnt = weights_->Learn(model.fingerprint, model.name) || learnt;
    loop_.Post([this, learnt] {
      learning_ = false;
      if (learnt) facts_due_ = 0;
    });
  });
}

void RealClusterNode::TellFetching() {
  std::vector<Fetching> now = weights_->fetching();
  if (now == facts_.fetching) return;
  fetching_due_ = Now() + kFetchingUs * static_cast<DurationUs>(1 + cluster_->members().size() / 16);
  facts_.fetching = std::move(now);
  cluster_->SetSelfFacts(Now(), facts_);
  Obey();
}

void RealClusterNode::TellObserved(std::vector<ObservedPlacement> now) {
  if (Now() < observed_due_ || !IsNews(now, facts_.observed)) return;
  observed_due_ = Now() + kObservedUs * static_cast<DurationUs>(1 + cluster_->members().size() / 16);
  facts_.observed = std::move(now);
  cluster_->SetSelfFacts(Now(), facts_);
  Obey();
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
  const std::size_t before = std::exchange(unknown_, UnknownModels(*cluster_, facts_.models).size());
  if (unknown_ > before) facts_due_ = 0;
  for (const MemberView& member : cluster_->members()) {
    if (member.self || member.state == MemberState::kLeft || member.state == MemberState::kDead) continue;
    peers_->LearnGossip(member.record.id, member.record.facts.addresses, Now());
  }
  Do(PlacementsChanged{});  // whether one is broken, and can be replaced, depends on who is here
}

void RealClusterNode::Do(const PlacementsChanged&) {
  std::vector<PlacementView> placements = cluster_->placements();
  for (const PlacementView& one : placements) host_.SetCopies(one.record.model, one.record.epoch, one.copies);
  std::vector<AnswerMember> members = AnswerMembersOf(*cluster_, placements);
  placements_.Set(std::move(placements), IsAlone(*cluster_));
  answer_streams_->SetMembers(std::move(members));
}

void RealClusterNode::Do(const Left& left) {
  if (!left.text.empty()) Log(LogLevel::kWarning, "cluster", left.text);
  if (!ended_) {  // else it is in another cluster already, which nobody asked it to leave
    if (departing_) KeepPeers();
    const Status forgotten = departing_ ? Status() : home_->ForgetCluster();
    if (!forgotten.ok()) Log(LogLevel::kError, "cluster", forgotten.error().message);
    for (const auto& promise : leaving_) promise->set_value(Epoch{0});
    leaving_.clear();
  }
  TellWhoWaits();
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
  TellWhoWaits();
  ended_ = true;
}

// A node that reaches nobody for good is worse than one that begins again.
void RealClusterNode::OnNetworkEnd(const std::string& why) {
  Log(LogLevel::kError, "network", "the network has ended: " + why + ". The node starts anew");
  if (ended_) return;
  TellWhoWaits();
  starts_anew_ = true;
  ended_ = true;
}

void RealClusterNode::OnStream(const NodeId& peer, const std::string& protocol, int fd) {
  bool started = false;
  if (protocol == kPipeProtocol) started = peer_tasks_.Run(peer, [this, peer, fd] { pipes_.Serve(peer, fd); });
  if (protocol == kGenerateProtocol) started = peer_tasks_.Run(peer, [this, fd] { ServeGenerate(fd); });
  if (protocol == kKeepProtocol) {
    started = peer_tasks_.Run(peer, [this, peer, fd] { answer_streams_->ServeKeep(peer, fd); });
  }
  if (protocol == kCopyProtocol) started = peer_tasks_.Run(peer, [this, fd] { host_.ServeCopy(fd); });
  if (protocol == kAnswerProtocol) started = peer_tasks_.Run(peer, [this, fd] { answer_streams_->ServeAnswer(fd); });
  if (protocol == kWeightsProtocol) started = peer_tasks_.Run(peer, [this, fd] { weights_->Serve(fd); });
  if (!started) ::close(fd);
}

void RealClusterNode::ServeGenerate(int fd) {
  StreamLink link = MakeStreamLink(fd, kFrameBytesMax);
  LimitFirstFrames(*link.receiver, kGenerateRequestFrames, kFirstFramesMax);
  ServeGeneration(std::move(link), [this](Epoch epoch, const std::string& model, GenerateOptions options) {
    return host_.Generate(model, epoch, std::move(options));
  });
}

Result<std::shared_ptr<ClusterNode>> ClusterNode::Open(const ClusterNodeOptions& given) {
  ClusterNodeOptions options = given;
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<Home> home, Home::Open(options.home, UnixS()));
  const bool named = !options.name.empty();
  const auto name = [&] { return CleanNodeName(named ? options.name : NodeName(home->id())); };
  if (!options.join_code.empty()) {
    SHOAL_RETURN_IF_ERROR(JoinWithCode(*home, name(), options.join_code, options.peers));
  } else if (!home->membership()) {
    SHOAL_RETURN_IF_ERROR(home->expired());
    SHOAL_RETURN_IF_ERROR(home->CreateCluster(name(), UnixS()));
  }
  options.name = named ? name() : home->membership()->certificate.name;
  SHOAL_ASSIGN_OR_RETURN(const InstanceNumber instance, MakeInstance());
  std::shared_ptr<RealClusterNode> node;
  {
    const PlacedWhile placed(options.waiting_cpus);  // its loop
    node = std::make_shared<RealClusterNode>(options, std::move(home), instance);
  }
  SHOAL_RETURN_IF_ERROR(node->Begin());
  return std::shared_ptr<ClusterNode>(node);
}

}  // namespace shoal
