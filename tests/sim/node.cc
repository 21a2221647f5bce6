// Inputs of the cluster come from streams and the host, its actions go back to them.
#include "sim/node.h"

#include <algorithm>
#include <utility>

namespace shoal::sim {
namespace {

constexpr DurationUs kTickUs = 200 * kMillisecond;
constexpr DurationUs kChangesUs = 50 * kMillisecond;  // those that come together are looked at once
constexpr DurationUs kReopenUs = 1 * kSecond;
constexpr DurationUs kDiscoverSoonUs = 2 * kSecond, kDiscoverUs = 10 * kSecond;  // a beacon

}  // namespace

SimNode::SimNode(Network& network, Checks& checks, int self, const std::vector<FakeModel>& models, NodeRules rules)
    : network_(network), checks_(checks), self_(self), models_(models), rules_(rules) {
  options_.self = NodeIdOf(self);
  options_.boot = 0;
  options_.facts.name = "n" + std::to_string(self);
  options_.facts.device.memory_budget_bytes = 1'000'000;
  options_.facts.device.cores = 1 + static_cast<std::int32_t>(network_.rng().Below(4));
  options_.break_epoch_tag = rules.break_epoch_tag;
  options_.break_stale_check = rules.break_stale_check;
}

void SimNode::Hold(const FakeModel& model) {
  ModelHolding holding;
  holding.name = model.name;
  holding.fingerprint = model.fingerprint;
  holding.file_bytes = 1000;
  const auto layers = static_cast<std::size_t>(model.layers);
  holding.shape.layer_bytes.assign(layers, kLayerBytes);
  holding.shape.kv_bytes.assign(layers, 0);
  holding.held = {{{0, model.layers}}, true, true, true, holding.file_bytes};
  for (std::int32_t cut = 1; cut < model.layers; ++cut) holding.shape.cuts.push_back(cut);
  options_.facts.models.push_back(std::move(holding));
}

bool SimNode::holds(const std::string& model) const {
  for (const ModelHolding& holding : options_.facts.models) {
    if (holding.name == model) return true;
  }
  return false;
}

void SimNode::Start() {
  ++options_.boot;
  options_.seed = network_.rng().Next();
  started_ = network_.now();
  network_.Start(self_, this);
  cluster_ = std::make_unique<Cluster>(options_, Now());
  SimHost::Hooks hooks;
  hooks.on_ready = [this](const std::string& model, Epoch epoch, std::int32_t index, Status status) {
    cluster_->OnStageReady(Now(), model, epoch, index, std::move(status));
    Obey();
  };
  hooks.on_broken = [this](const std::string& model, Epoch epoch) {
    cluster_->OnPipelineBroken(Now(), model, epoch);
    Obey();
  };
  hooks.on_copy_ready = [this](const std::string& model, LayerRange layers, Status status) {
    cluster_->OnStandbyReady(Now(), model, layers, std::move(status));
    Obey();
  };
  hooks.may_serve = [this](const std::string& model, Epoch epoch) { return cluster_->MayServe(model, epoch); };
  host_ = std::make_unique<SimHost>(network_, checks_, self_, models_, hardware, rules_.copies, std::move(hooks));
  entry_ = std::make_unique<Entry>(network_, *host_, self_, rules_.entry,
                                   [this](const std::string& model) { return FindPlacement(model); });
  answers_ = std::make_unique<SimAnswers>(network_, checks_, *entry_, self_, models_);
  keeping_ = std::make_unique<SimKeeping>(network_, *answers_, self_);
  answering_ = std::make_unique<SimAnswering>(network_, *answers_, *keeping_, *entry_, self_, rules_.answering);
  for (int peer = 0; peer < network_.nodes(); ++peer) {
    if (peer == self_) continue;
    const auto soon = static_cast<DurationUs>(network_.rng().Below(kDiscoverSoonUs));
    network_.Post(self_, soon, [this, peer] { Discover(peer); });
  }
  Tick();
}

void SimNode::Crash(bool silent) {
  if (cluster_ == nullptr) return;
  control_bytes_ += cluster_->counters().bytes_sent;
  running_us_ += network_.now() - started_;
  resumed_ += entry_->resumed();
  network_.Crash(self_, silent);
  answering_.reset();
  keeping_.reset();
  answers_.reset();
  entry_.reset();
  host_.reset();
  cluster_.reset();
  links_.clear();
  link_peers_.clear();
  opening_.clear();
  placements_.clear();
  answered_.clear();
  obeying_ = changed_ = false;
  leaving_ = left_;
}

std::uint64_t SimNode::control_bytes() const {
  return control_bytes_ + (cluster_ ? cluster_->counters().bytes_sent : 0);
}
DurationUs SimNode::running_us() const { return running_us_ + (cluster_ ? network_.now() - started_ : 0); }

void SimNode::Tick() {
  cluster_->OnTick(Now());
  Obey();
  network_.Post(self_, kTickUs, [this] { Tick(); });
}

std::uint64_t SimNode::Place(const std::string& model, std::int32_t stages) {
  PlaceRequest request;
  request.model = model;
  request.stages = stages;
  const std::uint64_t id = cluster_->RequestPlacement(Now(), std::move(request));
  Obey();
  return id;
}

std::uint64_t SimNode::Unplace(const std::string& model) {
  const std::uint64_t id = cluster_->RequestUnplace(Now(), model);
  Obey();
  return id;
}

void SimNode::Leave() {
  leaving_ = true;
  cluster_->Leave(Now());
  Obey();
}

void SimNode::SetDraining(const std::string& reason) {
  cluster_->SetDraining(Now(), reason);
  Obey();
}

// ---- Control streams ------------------------------------------------------------------------------------------------

void SimNode::Discover(int peer) {
  if (!links_.contains(peer)) network_.Connect(self_, peer);
  network_.Post(self_, kDiscoverUs, [this, peer] { Discover(peer); });
}

void SimNode::OnConnected(int peer) { OpenControl(peer); }

// The lower of the two opens it.
void SimNode::OpenControl(int peer) {
  if (peer < self_ || links_.contains(peer) || opening_.contains(peer)) return;
  const StreamId stream = network_.Open(self_, peer, Protocol::kControl);
  opening_[peer] = stream;
  link_peers_[stream] = peer;
  network_.Post(self_, kStreamOpenUs, [this, peer, stream] {
    const auto found = opening_.find(peer);
    if (found == opening_.end() || found->second != stream) return;
    opening_.erase(found);
    link_peers_.erase(stream);
    network_.Close(self_, stream);
  });
}

void SimNode::AddLink(int peer, StreamId stream) {
  if (const auto old = links_.find(peer); old != links_.end()) {
    link_peers_.erase(old->second);
    network_.Close(self_, old->second);
  }
  links_[peer] = stream;
  link_peers_[stream] = peer;
  cluster_->OnLinkUp(Now(), NodeIdOf(peer));
  Obey();
}

void SimNode::OnOpened(StreamId stream) {
  const auto found = link_peers_.find(stream);
  if (found == link_peers_.end()) {  // opened here for a stage, a generation or an answer
    host_->OnOpened(stream);
    keeping_->OnOpened(stream);
    answering_->OnOpened(stream);
    return entry_->OnOpened(stream);
  }
  const int peer = found->second;
  if (const auto opening = opening_.find(peer); opening != opening_.end() && opening->second == stream) {
    opening_.erase(opening);
    AddLink(peer, stream);
  }
}

void SimNode::OnStream(StreamId stream, Protocol protocol, int peer) {
  switch (protocol) {
    case Protocol::kControl: return AddLink(peer, stream);
    case Protocol::kPipe: return host_->OnStream(stream, peer);
    case Protocol::kGenerate: return entry_->OnStream(stream);
    case Protocol::kCopy: return host_->copies().OnStream(stream);
    case Protocol::kKeep: return keeping_->OnStream(stream);
    case Protocol::kAnswer: return answering_->OnStream(stream);
  }
}

void SimNode::OnFrame(StreamId stream, FrameBytes frame) {
  const auto found = link_peers_.find(stream);
  if (found == link_peers_.end()) {
    if (host_->Knows(stream)) return host_->OnFrame(stream, std::move(frame));
    if (host_->copies().Knows(stream)) return host_->copies().OnFrame(stream, std::move(frame));
    if (keeping_->Knows(stream)) return keeping_->OnFrame(stream, frame);
    if (answering_->Knows(stream)) return answering_->OnFrame(stream, frame);
    return entry_->OnFrame(stream, std::move(frame));
  }
  const Result<ClusterMessage> message = DecodeClusterMessage(frame);
  SHOAL_CHECK(message.ok());
  cluster_->OnMessage(Now(), NodeIdOf(found->second), *message);
  Obey();
}

void SimNode::OnStreamEnd(StreamId stream) {
  const auto found = link_peers_.find(stream);
  if (found == link_peers_.end()) {
    if (host_->Knows(stream)) return host_->OnStreamEnd(stream);
    if (host_->copies().Knows(stream)) return host_->copies().OnStreamEnd(stream);
    if (keeping_->Knows(stream)) return keeping_->OnStreamEnd(stream);
    if (answering_->Knows(stream)) return answering_->OnStreamEnd(stream);
    return entry_->OnStreamEnd(stream);
  }
  const int peer = found->second;
  link_peers_.erase(found);
  const auto opening = opening_.find(peer);
  if (opening != opening_.end() && opening->second == stream) opening_.erase(opening);
  const auto link = links_.find(peer);
  if (link != links_.end() && link->second == stream) {
    links_.erase(link);
    cluster_->OnLinkDown(Now(), NodeIdOf(peer));
    Obey();
  }
  network_.Post(self_, kReopenUs, [this, peer] { OpenControl(peer); });
}

// ---- What the cluster wants done ------------------------------------------------------------------------------------

void SimNode::Obey() {
  if (std::exchange(obeying_, true)) return;
  bool changed = false;  // whether a placement is broken, and who has copies, depends on who is here
  for (;;) {
    const std::vector<Action> actions = cluster_->TakeActions();
    if (actions.empty()) break;
    for (const Action& action : actions) {
      Do(action);
      changed = changed || std::holds_alternative<PlacementsChanged>(action) ||
                std::holds_alternative<MembersChanged>(action);
    }
  }
  if (changed && !std::exchange(changed_, true)) network_.Post(self_, kChangesUs, [this] { OnChanges(); });
  obeying_ = false;
}

void SimNode::OnChanges() {
  changed_ = false;
  placements_ = cluster_->placements();
  for (const PlacementView& one : placements_) host_->SetCopies(one.record.model, one.record.epoch, one.copies);
  keeping_->SetMembers(Members());
}

std::optional<PlacementView> SimNode::FindPlacement(const std::string& model) const {
  for (const PlacementView& one : placements_) {
    if (one.record.model == model) return one;
  }
  return std::nullopt;
}

// As node/cluster_views has it.
std::vector<KeepingMember> SimNode::Members() const {
  std::set<std::uint64_t> placed;
  for (const PlacementView& placement : placements_) placed.insert(placement.record.request.fingerprint);
  std::vector<KeepingMember> members;
  for (const MemberView& member : cluster_->members()) {
    if (member.self || !member.linked) continue;
    if (member.state != MemberState::kAlive && member.state != MemberState::kSuspect) continue;
    const MemberFacts& facts = member.record.facts;
    KeepingMember& one = members.emplace_back();
    one.node = NumberOf(member.record.id);
    one.alive = member.state == MemberState::kAlive && !facts.leaving;
    for (const ModelHolding& model : facts.models) one.models += placed.count(model.fingerprint);
  }
  return members;
}

bool SimNode::Sees(int peer) const {
  const std::vector<KeepingMember>& members = keeping_->members();
  return std::any_of(members.begin(), members.end(), [&](const KeepingMember& one) { return one.node == peer; });
}

std::string SimNode::DescribeView(std::uint64_t view) const {
  return answering_ ? answering_->Describe(view) : " is gone";
}

void SimNode::Do(const Action& action) {
  if (const auto* send = std::get_if<Send>(&action)) {
    const auto link = links_.find(NumberOf(send->to));
    if (link != links_.end()) network_.Send(self_, link->second, send->frame);
  } else if (const auto* connect = std::get_if<Connect>(&action)) {
    network_.Connect(self_, NumberOf(connect->node));
  } else if (const auto* disconnect = std::get_if<Disconnect>(&action)) {
    const int peer = NumberOf(disconnect->node);
    const auto link = links_.find(peer);
    const bool linked = link != links_.end();
    if (linked) link_peers_.erase(link->second);
    if (linked) links_.erase(link);
    if (const auto opening = opening_.find(peer); opening != opening_.end()) {
      link_peers_.erase(opening->second);
      opening_.erase(opening);
    }
    network_.Disconnect(self_, peer, Protocol::kControl);
    if (linked) cluster_->OnLinkDown(Now(), disconnect->node);
  } else if (const auto* load = std::get_if<LoadStage>(&action)) {
    host_->Load(load->placement, load->index, load->source);
  } else if (const auto* activate = std::get_if<Activate>(&action)) {
    host_->Activate(activate->placement, activate->indices);
  } else if (const auto* unload = std::get_if<UnloadStage>(&action)) {
    host_->Unload(unload->model, unload->epoch, unload->index);
  } else if (const auto* copy = std::get_if<LoadStandby>(&action)) {
    host_->copies().Load(copy->placement, copy->index);
  } else if (const auto* drop = std::get_if<DropStandby>(&action)) {
    host_->copies().Drop(drop->model, drop->layers);
  } else if (const auto* done = std::get_if<RequestDone>(&action)) {
    answered_.emplace(done->id, done->status);
  } else if (std::get_if<Left>(&action) != nullptr) {
    left_ = true;
    network_.Post(self_, 0, [this] { Crash(false); });
  }
}

}  // namespace shoal::sim
