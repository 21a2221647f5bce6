// The doors of the state machine: inputs, wishes, views. What happens behind them is in membership, placing and
// hosting.
#include "cluster/cluster.h"

#include <algorithm>
#include <utility>

#include "cluster/state.h"
#include "planner/standby.h"

namespace shoal {
namespace {

constexpr DurationUs kStepMaxUs = 500'000;
constexpr DurationUs kLinkProvesUs = 400'000;  // until a suspect with a new link is asked about again

}  // namespace

Cluster::State::State(const ClusterOptions& given, TimeUs start) : options(given), rng(given.seed), clock_last(start) {
  now = 1'000'000;  // 0 stands for "never" in some places
  Member me;
  me.record.id = options.self;
  me.record.incarnation = options.boot << 16;
  me.record.nonce = static_cast<std::uint32_t>(rng.Next());
  me.record.facts = options.facts;
  me.record.facts.leaving = false;
  me.record.facts_version = 1;
  me.heard = now;
  // A decider remembers what it answered: requests of an earlier start must not share their numbers with ours.
  last_wish = static_cast<std::uint64_t>(me.record.nonce) << 32;
  members.emplace(options.self, std::move(me));
}

// A gap longer than the caller promised means that we did not run, or that the clock was set: nobody was heard
// meanwhile, and that is no fault of theirs.
void Cluster::State::Advance(TimeUs clock) {
  const DurationUs gap = clock - clock_last;
  clock_last = clock;
  now += std::clamp<DurationUs>(gap, 0, kStepMaxUs);
  lag_ms = static_cast<std::uint32_t>(std::clamp<DurationUs>(gap / 1000 - 250, 0, 60'000));
  if (gap <= kStepMaxUs) return;
  ++counters.freezes_noticed;
  for (auto& [id, link] : links) link.heard = now;
  for (auto& [id, member] : members) {
    member.heard = now;
    member.unlinked_since = now;
    if (member.suspect) Revive(member);
  }
}

Cluster::State::Member* Cluster::State::Find(const NodeId& id) {
  const auto found = members.find(id);
  return found == members.end() ? nullptr : &found->second;
}

bool Cluster::State::IsHere(const NodeId& id) const {
  const auto found = members.find(id);
  return found != members.end() && found->second.here();
}

std::string Cluster::State::NameOf(const NodeId& id) const {
  const auto found = members.find(id);
  return found == members.end() || found->second.record.facts.name.empty() ? ShortHex(id)
                                                                           : found->second.record.facts.name;
}

// Epochs made here are above all that were heard of. A peer's word counts only so far: rounds must not run out.
void Cluster::State::SeeRound(Epoch epoch) {
  round_max = std::max(round_max, std::min(EpochRound(epoch), round_max + (1U << 20)));
}

std::size_t Cluster::State::HereCount() const {
  return static_cast<std::size_t>(
      std::count_if(members.begin(), members.end(), [](const auto& entry) { return entry.second.here(); }));
}

// Bytes of the model's layers that have come to `node`, or to all nodes, as they say: a number that changes while they
// come.
std::uint64_t Cluster::State::Fetched(const std::string& model, const NodeId* node) const {
  std::uint64_t bytes = 0;
  for (const auto& [id, member] : members) {
    if (!member.here() || (node != nullptr && id != *node)) continue;
    for (const Fetching& one : member.record.facts.fetching) bytes += one.model == model ? one.bytes_done : 0;
  }
  return bytes;
}

// The lowest id; among those that stay, if anyone stays.
NodeId Cluster::State::Decider() const {
  for (const bool leaving_too : {false, true}) {
    for (const auto& [id, member] : members) {
      if (member.here() && (leaving_too || !member.record.facts.leaving)) return id;
    }
  }
  return options.self;
}

std::uint64_t Cluster::State::Digest() const {
  std::uint64_t sum = 0;  // order does not matter
  for (const auto& [id, member] : members) {
    const MemberRecord& r = member.record;
    if (!member.here()) continue;  // tombstones end at other times on other nodes
    sum += MixHash(MixHash(HashOf(id), r.incarnation), r.facts_version);
  }
  for (const auto& [model, placed] : placements) {
    if (placed.record.state == PlacementState::kLive) sum += MixHash(HashOf(model), placed.record.epoch);
  }
  for (const auto& [hash, bytes] : revocations) sum += MixHash(hash, 1);
  return sum;
}

void Cluster::State::Tell(const NodeId& to, ClusterMessage message) {
  if (IsSelf(to)) return Handle(to, message);
  if (!links.contains(to)) return;
  std::vector<std::uint8_t> frame = EncodeClusterMessage(message);
  ++counters.messages_sent;
  counters.bytes_sent += frame.size();
  Act(Send{to, std::move(message), std::move(frame)});
}

void Cluster::State::TellAll(const ClusterMessage& message) {
  for (const auto& [id, link] : links) Tell(id, message);
}

// What an input made urgent does not wait for the next tick.
void Cluster::State::Settle() {
  if (left || !std::exchange(hurry, false)) return;
  TickPlacing();
  CheckLeaving();
}

void Cluster::State::Handle(const NodeId& from, const ClusterMessage& message) {
  std::visit([&](const auto& m) { On(from, m); }, message);
}

// ---- Inputs ---------------------------------------------------------------------------------------------------------

Cluster::Cluster(const ClusterOptions& options, TimeUs now) : state_(std::make_unique<State>(options, now)) {}
Cluster::~Cluster() = default;

void Cluster::OnTick(TimeUs now) {
  State& s = *state_;
  s.Advance(now);
  if (s.left) {
    if (!s.left_told && s.now - s.left_at > 300'000) {  // the others have had time to read it
      s.left_told = true;
      std::string text;
      for (const auto& [model, why] : s.move_failures) text += (text.empty() ? "" : "; ") + model + ": " + why;
      s.Act(Left{text.empty() ? text : "this node left, but its layers fit nowhere else: " + text});
    }
    return;
  }
  s.TickMembership();
  s.TickHosting();
  s.TickPlacing();
  s.CheckLeaving();
  s.hurry = false;
  if (std::exchange(s.members_changed, false)) s.Act(MembersChanged{});
}

void Cluster::OnMessage(TimeUs now, const NodeId& from, const ClusterMessage& message) {
  State& s = *state_;
  s.Advance(now);
  if (s.left || s.IsSelf(from) || s.revoked.contains(from) || !s.links.contains(from)) return;
  s.Handle(from, message);
  s.Settle();
}

void Cluster::OnLinkUp(TimeUs now, const NodeId& peer) {
  State& s = *state_;
  s.Advance(now);
  if (s.left || s.IsSelf(peer)) return;
  if (s.revoked.contains(peer)) return s.Act(Disconnect{peer, "it was thrown out of the cluster"});
  if (s.links.size() >= kMembersMax && !s.links.contains(peer)) {
    return s.Act(Disconnect{peer, "the cluster is full"});
  }
  s.links.erase(peer);
  State::Link link(s.HeartbeatInterval());
  link.heard = s.now;
  link.heartbeat_due = s.now;
  if (const auto rate = s.rates.find(peer); rate != s.rates.end()) link.bytes_per_s = rate->second;
  s.links.emplace(peer, link);
  if (State::Member* member = s.Find(peer)) {
    member->connect_wait = 0;
    member->link_ended = false;
    member->rounds_silent = 0;
    member->unanswered.clear();
    member->round_ends = s.now + kLinkProvesUs;
    member->asks_again = true;
  }
  s.links_changed = true;
  s.Tell(peer, Hello{s.Told(s.self()), s.Digest()});
  s.members_changed = true;
}

void Cluster::OnLinkDown(TimeUs now, const NodeId& peer) {
  State& s = *state_;
  s.Advance(now);
  if (s.links.erase(peer) == 0) return;
  if (State::Member* member = s.Find(peer)) {
    member->unlinked_since = s.now;
    member->link_ended = true;
  }
  s.links_changed = true;
  s.members_changed = true;
}

void Cluster::OnThroughput(TimeUs now, const NodeId& peer, std::uint64_t bytes_per_s) {
  state_->Advance(now);
  bytes_per_s = std::min(bytes_per_s, static_cast<std::uint64_t>(kBytesPerSecondMax));  // or it could not be told
  if (state_->rates.size() >= kMembersMax) state_->rates.clear();
  state_->rates[peer] = bytes_per_s;
  const auto link = state_->links.find(peer);
  if (link == state_->links.end()) return;
  link->second.bytes_per_s = bytes_per_s;
  state_->links_changed = true;
}

void Cluster::OnStageReady(TimeUs now, const std::string& model, Epoch epoch, std::int32_t index,
                           const Status& status) {
  State& s = *state_;
  s.Advance(now);
  const auto found = s.locals.find({model, epoch, index});
  if (found == s.locals.end()) return;
  State::Local& local = found->second;
  if (status.ok()) {
    local.status = StageStatus::kReady;
    s.TellStage(local.record.decider, State::Local(local));
    return s.Settle();
  }
  State::Local gone = local;
  gone.broken = false;
  gone.status = local.active ? StageStatus::kLost : StageStatus::kFailed;
  gone.text = status.error().message.substr(0, kErrorTextBytesMax);
  s.DropLocal({model, epoch, index});
  s.TellStage(gone.active ? s.Decider() : gone.record.decider, gone);
  s.Settle();
}

void Cluster::OnPipelineBroken(TimeUs now, const std::string& model, Epoch epoch) {
  State& s = *state_;
  s.Advance(now);
  const auto local = std::find_if(s.locals.begin(), s.locals.end(), [&](const auto& entry) {
    return entry.second.record.model == model && entry.second.record.epoch == epoch && entry.second.active;
  });
  if (local == s.locals.end() || std::exchange(local->second.broken, true)) return;
  local->second.broken_said = s.now;
  s.TellStage(s.Decider(), State::Local(local->second));
  s.Settle();
}

void Cluster::SetSelfFacts(TimeUs now, MemberFacts facts) {
  State& s = *state_;
  s.Advance(now);
  MemberFacts& mine = s.self().record.facts;
  facts.leaving = mine.leaving;
  facts.standby = mine.standby;
  const std::uint64_t free = facts.device.memory_free_bytes, told = mine.device.memory_free_bytes;
  const bool small = std::max(free, told) - std::min(free, told) < std::max(free, told) / 10;
  if (small) facts.device.memory_free_bytes = told;
  if (facts == mine) return;
  s.WeightsChanged(mine, facts);
  mine = std::move(facts);
  ++s.self().record.facts_version;
  s.SpreadSelf(true, false);
  s.members_changed = true;
}

Status Cluster::AddRevocation(TimeUs now, std::span<const std::uint8_t> bytes) {
  state_->Advance(now);
  return state_->TakeRevocation(bytes, true);
}

// ---- Wishes ---------------------------------------------------------------------------------------------------------

std::uint64_t Cluster::State::AddWish(PlaceAsk ask) {
  const std::uint64_t id = ask.id = ++last_wish;
  Wish& wish = wishes[id];
  wish.ask = std::move(ask);
  wish.send_due = wish.reached = now;
  wish.give_up = now + options.request_max_us;
  DriveWish(id, wish);
  return id;
}

std::uint64_t Cluster::RequestPlacement(TimeUs now, PlaceRequest request) {
  state_->Advance(now);
  PlaceAsk ask;
  ask.request = std::move(request);
  return state_->AddWish(std::move(ask));
}

std::uint64_t Cluster::RequestUnplace(TimeUs now, const std::string& model) {
  state_->Advance(now);
  PlaceAsk ask;
  ask.unplace = true;
  ask.request.model = model.substr(0, kModelNameBytesMax);
  return state_->AddWish(std::move(ask));
}

void Cluster::Leave(TimeUs now, DurationUs wait_max) {
  State& s = *state_;
  s.Advance(now);
  s.leave_by = s.leaving ? std::min(s.leave_by, s.now + wait_max) : s.now + wait_max;
  s.leaving = true;
  s.TellWhetherItStays();
}

void Cluster::SetDraining(TimeUs now, const std::string& reason) {
  State& s = *state_;
  s.Advance(now);
  if (s.resting == !reason.empty()) return;
  s.resting = !reason.empty();
  s.Act(Note{s.resting ? "this node takes no stages for now: " + reason : "this node takes stages again"});
  s.TellWhetherItStays();
}

void Cluster::State::TellWhetherItStays() {
  if (left) return;
  MemberFacts& facts = self().record.facts;
  if (facts.leaving != (leaving || resting)) {
    facts.leaving = leaving || resting;
    ++self().record.facts_version;
    SpreadSelf(true, false);
    WhoIsBack();
    ReviewSpares();
  }
  CheckLeaving();
  Settle();
}

std::vector<Action> Cluster::TakeActions() { return std::exchange(state_->actions, {}); }

// ---- Views ----------------------------------------------------------------------------------------------------------

std::vector<MemberView> Cluster::members() const {
  State& s = *state_;
  std::vector<MemberView> views;
  for (const auto& [id, member] : s.members) {
    MemberView view;
    view.record = s.Told(member);
    view.self = s.IsSelf(id);
    view.state = member.here() && member.suspect ? MemberState::kSuspect : member.record.state;
    view.silence = member.suspect ? member.silence : Silence::kNone;
    view.linked = s.links.contains(id);
    view.silent_us = view.self ? 0 : s.now - member.heard;
    view.lag_ms = view.self ? s.lag_ms : member.lag_ms;
    if (view.self) {
      views.insert(views.begin(), std::move(view));
    } else {
      views.push_back(std::move(view));
    }
  }
  return views;
}

std::vector<LinkView> Cluster::links() const {
  State& s = *state_;
  std::vector<LinkView> views;
  for (const auto& [id, member] : s.members) {
    if (!member.here() || s.IsSelf(id)) continue;
    for (const LinkFacts& link : member.record.links) {
      if (s.IsHere(link.to)) views.push_back({id, link});
    }
  }
  for (const auto& [id, link] : s.links) {
    if (s.IsHere(id)) views.push_back({s.options.self, {id, link.rtt_us, link.bytes_per_s}});
  }
  return views;
}

std::vector<PlacementView> Cluster::placements() const {
  std::vector<PlacementView> views;
  for (const auto& [model, placed] : state_->placements) {
    if (auto view = placement(model)) views.push_back(std::move(*view));
  }
  return views;
}

std::optional<PlacementView> Cluster::placement(const std::string& model) const {
  const auto found = state_->placements.find(model);
  if (found == state_->placements.end() || found->second.record.state != PlacementState::kLive) return std::nullopt;
  PlacementView view;
  view.record = found->second.record;
  const State::Problem problem = state_->ProblemOf(found->second);
  view.reason = problem.text;
  view.broken = problem.kind > State::Problem::kMoves;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(view.record.stages.size()); ++i) {
    view.copies.push_back(state_->CopiesOf(view.record, i));
  }
  std::vector<NodeId> nodes;
  for (const StagePlace& stage : view.record.stages) nodes.push_back(stage.node);
  view.survives = HarmlessLosses(nodes, view.copies);
  const auto care = state_->care.find(model);
  std::string failed = care == state_->care.end() ? "" : care->second.reason;
  if (view.broken && !state_->Continue(found->second, {}, true).ok()) {  // the cheaper question first
    const Result<PlacementRecord> possible = state_->Build(view.record.request, true, true);
    view.hopeless = !possible.ok();
    if (view.hopeless) failed = possible.error().message;
  }
  if (!view.reason.empty() && !failed.empty()) view.reason += "; it cannot be placed anew: " + failed;
  return view;
}

std::vector<PlacementRecord> Cluster::preparing() const {
  std::vector<PlacementRecord> records;
  for (const auto& [model, one] : state_->deciding) records.push_back(one.record);
  return records;
}

NodeId Cluster::decider() const { return state_->Decider(); }
const NodeId& Cluster::self() const { return state_->options.self; }
std::uint64_t Cluster::incarnation() const { return state_->self().record.incarnation; }
std::uint64_t Cluster::digest() const { return state_->Digest(); }

bool Cluster::MayServe(const std::string& model, Epoch epoch) const {
  return std::any_of(state_->locals.begin(), state_->locals.end(), [&](const auto& entry) {
    const State::Local& local = entry.second;
    return local.record.model == model && local.record.epoch == epoch && local.status == StageStatus::kReady;
  });
}

const ClusterCounters& Cluster::counters() const { return state_->counters; }

}  // namespace shoal
