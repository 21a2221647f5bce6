// The stages here: prepared, active, draining, dropped; what every node does when a placement becomes known; leaving.
#include <algorithm>

#include "cluster/state.h"

namespace shoal {
namespace {

constexpr DurationUs kUncommittedUs = 30'000'000;  // without a Prepare: the decider has forgotten it
constexpr DurationUs kDrainAskUs = 1'000'000;
constexpr DurationUs kLostSayUs = 2'000'000;

}  // namespace

void Cluster::State::TellStage(const NodeId& to, const Local& local) {
  StageNews news;
  news.model = local.record.model;
  news.epoch = local.record.epoch;
  news.stage = local.index;
  news.status = local.status;
  news.text = local.text;
  Tell(to, std::move(news));
}

void Cluster::State::On(const NodeId& from, const Prepare& prepare) {
  const PlacementRecord& record = prepare.placement;
  const std::int32_t index = record.StageOf(options.self);
  if (from != record.decider || index < 0 || record.state != PlacementState::kPreparing) return;
  SeeRound(record.epoch);
  const auto known = locals.find({record.model, record.epoch});
  if (known != locals.end()) {
    known->second.prepared = now;
    return TellStage(from, known->second);
  }
  Local local;
  local.record = record;
  local.index = index;
  const auto placed = placements.find(record.model);
  Epoch newest = placed == placements.end() ? 0 : placed->second.record.epoch;
  for (const auto& [key, other] : locals) {
    if (key.first == record.model) newest = std::max(newest, key.second);
  }
  if (record.epoch <= newest && !options.break_stale_check) {
    StageNews stale{record.model, record.epoch, index, StageStatus::kStale, newest, {}};
    return Tell(from, std::move(stale));
  }
  if (record.stages[static_cast<std::size_t>(index)].boot != self().record.boot() || leaving) {
    local.status = StageStatus::kFailed;
    local.text = leaving ? "it is leaving" : "it has started anew";
    return TellStage(from, local);
  }
  // Only one is prepared at a time: the newest.
  std::vector<StageKey> older;
  for (const auto& [key, other] : locals) {
    if (key.first == record.model && !other.active) older.push_back(key);
  }
  for (const StageKey& key : older) DropLocal(key);
  if (locals.size() >= kPlacementsMax) {
    local.status = StageStatus::kFailed;
    local.text = "it has too many stages";
    return TellStage(from, local);
  }
  local.prepared = now;
  locals.emplace(StageKey{record.model, record.epoch}, local);
  Act(LoadStage{record, index});
  TellStage(from, local);
}

void Cluster::State::On(const NodeId& from, const Abort& abort) {
  const auto found = locals.find({abort.model, abort.epoch});
  if (found != locals.end() && !found->second.active && found->second.record.decider == from) {
    DropLocal({abort.model, abort.epoch});
  }
}

void Cluster::State::DropLocal(const StageKey& key) {
  if (locals.erase(key) == 1) Act(UnloadStage{key.first, key.second});
}

// What every node does with a live or retired record: the highest epoch of a model stands.
void Cluster::State::Adopt(const PlacementRecord& record, bool spread) {
  if (record.state == PlacementState::kPreparing || record.model.empty()) return;
  if (record.state == PlacementState::kLive && record.stages.empty()) return;
  const auto found = placements.find(record.model);
  if (found != placements.end() && found->second.record.epoch >= record.epoch) return;
  if (found == placements.end() && placements.size() >= kPlacementsMax) {
    // Room is made of what has ended.
    const auto retired = std::find_if(placements.begin(), placements.end(), [](const auto& entry) {
      return entry.second.record.state == PlacementState::kRetired;
    });
    if (retired == placements.end()) return;
    placements.erase(retired);
  }
  Placed placed;
  placed.record = record;
  placed.since = now;
  placements.insert_or_assign(record.model, placed);
  SeeRound(record.epoch);
  if (const auto known = care.find(record.model); known != care.end()) known->second.reason.clear();
  const auto mine = deciding.find(record.model);
  if (mine != deciding.end() && mine->second.record.epoch < record.epoch) {
    GiveUp(record.model, Error{ErrorCode::kStale, "another node placed '" + record.model + "' meanwhile"});
  }
  if (spread) TellAll(SyncDelta{{}, {record}, {}});
  Act(PlacementsChanged{});

  std::int32_t index = -1;
  std::vector<StageKey> keys;
  for (const auto& [key, local] : locals) {
    if (key.first == record.model) keys.push_back(key);
  }
  for (const StageKey& key : keys) {
    Local& local = locals.at(key);
    if (key.second == record.epoch && local.status == StageStatus::kReady) {
      local.active = true;
      local.record = record;
      index = local.index;
    }
  }
  if (record.state == PlacementState::kLive) Act(Activate{record, index});
  for (const StageKey& key : keys) {
    if (key.second < record.epoch) Supersede(locals.at(key));
  }
}

void Cluster::State::Supersede(Local& local) {
  if (local.draining) return;
  if (!local.active) return DropLocal({local.record.model, local.record.epoch});
  local.draining = true;
  local.drain_since = now;
  local.drain_ask_due = now + kDrainAskUs;
  Act(Drain{local.record, local.index});
}

void Cluster::State::On(const NodeId& from, const DrainAsk& ask) {
  Tell(from, DrainAnswer{ask.model, ask.epoch, locals.contains({ask.model, ask.epoch})});
}

void Cluster::State::On(const NodeId& from, const DrainAnswer& answer) {
  const auto found = locals.find({answer.model, answer.epoch});
  if (found == locals.end() || !found->second.draining || answer.serving) return;
  if (found->second.record.stages.front().node == from) DropLocal({answer.model, answer.epoch});
}

void Cluster::State::TickHosting() {
  std::vector<StageKey> keys;
  for (const auto& [key, local] : locals) keys.push_back(key);
  for (const StageKey& key : keys) {
    const auto found = locals.find(key);
    if (found == locals.end()) continue;
    Local& local = found->second;
    if (!local.active && now - local.prepared > kUncommittedUs) {
      DropLocal(key);
      continue;
    }
    if (!local.draining) continue;
    const NodeId head = local.record.stages.front().node;
    const bool over = now - local.drain_since > options.drain_max_us;
    if (over || (!IsSelf(head) && !IsHere(head))) {
      DropLocal(key);
    } else if (!IsSelf(head) && now >= local.drain_ask_due) {
      local.drain_ask_due = now + kDrainAskUs;
      Tell(head, DrainAsk{key.first, key.second});
    }
  }
  for (auto& [model, placed] : placements) {
    if (placed.record.state != PlacementState::kLive || now - placed.lost_said < kLostSayUs) continue;
    const std::int32_t index = placed.record.StageOf(options.self);
    if (index < 0 || locals.contains({model, placed.record.epoch})) continue;
    placed.lost_said = now;
    Tell(Decider(), StageNews{model, placed.record.epoch, index, StageStatus::kLost, 0, {}});
  }
}

// ---- Leaving --------------------------------------------------------------------------------------------------------

void Cluster::State::On(const NodeId&, const MoveFailed& failed) {
  const auto placed = placements.find(failed.model);
  if (leaving && placed != placements.end() && placed->second.record.epoch == failed.epoch) {
    move_failures[failed.model] = failed.text;
  }
}

void Cluster::State::CheckLeaving() {
  if (!leaving || left) return;
  const bool others_stay = std::any_of(members.begin(), members.end(), [&](const auto& entry) {
    return !IsSelf(entry.first) && entry.second.here() && !entry.second.record.facts.leaving;
  });
  bool holds = false;
  for (const auto& [key, local] : locals) holds = holds || !move_failures.contains(key.first);
  for (const auto& [model, placed] : placements) {
    holds = holds || (placed.record.state == PlacementState::kLive && placed.record.StageOf(options.self) >= 0 &&
                      !move_failures.contains(model));
  }
  if (holds && others_stay && now - leave_since < options.leave_wait_us) return;
  left = true;
  left_at = now;
  std::erase_if(move_failures, [&](const auto& entry) {
    const auto placed = placements.find(entry.first);
    return placed == placements.end() || placed->second.record.StageOf(options.self) < 0;
  });
  self().record.state = MemberState::kLeft;
  self().state_since = now;
  SpreadSelf(false, false);
  std::vector<StageKey> keys;
  for (const auto& [key, local] : locals) keys.push_back(key);
  for (const StageKey& key : keys) DropLocal(key);
  members_changed = true;
}

}  // namespace shoal
