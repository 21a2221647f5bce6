// The stages here: prepared, active, dropped; what every node does when a placement becomes known; leaving.
//
// A stage of a placement that continues another one is the very stage that runs here: it is ready at once, and goes
// over when the placement is live. Until then, and if the decider gives it up, the old one runs on.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cluster/split.h"
#include "cluster/state.h"

namespace shoal {
namespace {

constexpr DurationUs kUncommittedUs = 30'000'000;  // without a Prepare: the decider has forgotten it
constexpr DurationUs kLostSayUs = 2'000'000;
constexpr DurationUs kUnheardSayUs = 500'000;
// Times that others were asked, and heard it: by the last of them they would have noticed as well.
constexpr int kHeardElsewhereMin = 4;

}  // namespace

void Cluster::State::TellStage(const NodeId& to, const Local& local) {
  StageNews news;
  news.model = local.record.model;
  news.epoch = local.record.epoch;
  news.stage = local.index;
  news.status = local.broken ? StageStatus::kBroken : local.status;
  news.text = local.text;
  Tell(to, std::move(news));
}

// What is here already of stage `index` of `record`.
StageSource Cluster::State::SourceOf(const PlacementRecord& record, std::int32_t index) const {
  const LayerRange layers = record.LayersOf(index);
  for (const auto& [key, local] : locals) {
    const PlacementRecord& old = local.record;
    if (record.continues == 0 || old.model != record.model || old.epoch != record.continues) continue;
    if (!local.active || local.status != StageStatus::kReady || old.LayersOf(local.index) != layers) continue;
    if (old.request.fingerprint != record.request.fingerprint) continue;
    if (!IsSameEngine(old.request.options, record.request.options)) continue;
    return {StageSource::Kind::kRunning, old.epoch, local.index};
  }
  const auto spare = spares.find({record.model, layers.first, layers.last});
  const bool same = spare != spares.end() && spare->second.ready &&
                    spare->second.fingerprint == record.request.fingerprint &&
                    spare->second.options_hash == OptionsHash(record.request.options);
  return {same ? StageSource::Kind::kStandby : StageSource::Kind::kDisk, 0, 0};
}

// Whether stages of `record` that are to be loaded fit beside those of other models here: its decider may not have
// heard of these, which another part of a divided cluster placed. Ranges that a person named count as they are.
bool Cluster::State::HasRoomFor(const PlacementRecord& record, const std::vector<std::int32_t>& indices) const {
  const std::uint64_t budget = members.at(options.self).record.facts.device.memory_budget_bytes;
  std::uint64_t bytes = 0;
  bool loads = false;
  for (const std::int32_t index : indices) {
    bytes += StageBytes(record, index);
    loads = loads || SourceOf(record, index).kind == StageSource::Kind::kDisk;
  }
  for (const auto& [key, local] : locals) {
    if (local.record.model != record.model && local.takes_memory()) bytes += StageBytes(local.record, local.index);
  }
  return !loads || !record.request.ranges.empty() || bytes <= budget;
}

void Cluster::State::On(const NodeId& from, const Prepare& prepare) {
  const PlacementRecord record = prepare.placement;
  const std::vector<std::int32_t> indices = record.StagesOf(options.self);
  if (from != record.decider || indices.empty() || record.state != PlacementState::kPreparing) return;
  SeeRound(record.epoch);
  const auto refuse = [&](StageStatus status, Epoch known, const char* why) {
    Tell(from, StageNews{record.model, record.epoch, indices.front(), status, known, why});
  };
  if (!locals.contains({record.model, record.epoch, indices.front()})) {
    const auto placed = placements.find(record.model);
    Epoch newest = placed == placements.end() ? 0 : placed->second.record.epoch;
    for (const auto& [key, other] : locals) {
      if (other.record.model == record.model) newest = std::max(newest, other.record.epoch);
    }
    if (record.epoch <= newest && !options.break_stale_check) return refuse(StageStatus::kStale, newest, "");
    if (leaving || resting) return refuse(StageStatus::kFailed, 0, "it is leaving");
    if (record.stages[static_cast<std::size_t>(indices.front())].boot != self().record.boot()) {
      return refuse(StageStatus::kFailed, 0, "it has started anew");
    }
    if (!HasRoomFor(record, indices)) return refuse(StageStatus::kFailed, 0, "it has no room beside what it runs");
    // Only one is prepared at a time: the newest.
    DropLocals(record.model, [](const Local& other) { return !other.active; });
    if (locals.size() + indices.size() > kStagesMax) return refuse(StageStatus::kFailed, 0, "it has too many stages");
    std::vector<LoadStage> loads;
    for (const std::int32_t index : indices) {
      Local local;
      local.record = record;
      local.index = index;
      local.source = SourceOf(record, index);
      if (local.source.kind != StageSource::Kind::kDisk) local.status = StageStatus::kReady;
      loads.push_back({record, index, local.source});
      locals.emplace(StageKey{record.model, record.epoch, index}, std::move(local));
    }
    ReviewSpares();  // copies give way
    for (LoadStage& load : loads) Act(std::move(load));
  }
  for (const std::int32_t index : indices) {  // telling oneself may end it
    const auto known = locals.find({record.model, record.epoch, index});
    if (known == locals.end()) continue;
    known->second.prepared = now;
    TellStage(from, Local(known->second));
  }
}

void Cluster::State::On(const NodeId& from, const Abort& abort) {
  DropLocals(abort.model, [&](const Local& local) {
    return local.record.epoch == abort.epoch && !local.active && local.record.decider == from;
  });
}

// What was to take this stage over cannot any more.
void Cluster::State::DropLocal(const StageKey& key) {
  const auto found = locals.find(key);
  if (found == locals.end()) return;
  const auto& [model, epoch, index] = key;
  Act(UnloadStage{model, epoch, index});
  const std::string name = model;
  const StageSource taken{StageSource::Kind::kRunning, epoch, index};
  locals.erase(found);
  std::vector<Local> failed;
  for (const auto& [other, local] : locals) {
    if (local.record.model == name && !local.active && local.source == taken) failed.push_back(local);
  }
  for (Local& local : failed) {
    local.status = StageStatus::kFailed;
    local.text = "the stage that it was to take over is gone";
    DropLocal({name, local.record.epoch, local.index});
    TellStage(local.record.decider, local);
  }
}

void Cluster::State::DropLocals(const std::string& model, const std::function<bool(const Local&)>& which) {
  std::vector<StageKey> keys;
  for (const auto& [key, local] : locals) {
    if (local.record.model == model && which(local)) keys.push_back(key);
  }
  for (const StageKey& key : keys) DropLocal(key);
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

  std::vector<std::int32_t> indices;
  bool served = false;
  for (auto& [key, local] : locals) {
    if (local.record.model != record.model) continue;
    served = served || local.active;
    if (local.record.epoch != record.epoch || local.status != StageStatus::kReady) continue;
    local.active = true;
    local.record = record;
    indices.push_back(local.index);
    if (local.source.kind != StageSource::Kind::kStandby) continue;
    const LayerRange layers = record.LayersOf(local.index);
    spares.erase({record.model, layers.first, layers.last});
  }
  if (served && record.state == PlacementState::kLive && indices.empty() && !leaving) {
    Act(Note{"'" + record.model + "' was placed without this node: its stages here are out of date and dropped"});
  }
  if (record.state == PlacementState::kLive) Act(Activate{record, indices});
  DropLocals(record.model, [&](const Local& local) { return local.record.epoch < record.epoch; });
  ReviewSpares();
}

// A way between two nodes may be lost, in one direction too, while both are heard by everybody else: nobody dies, and
// no answer goes on. Said of those nodes only that a stage here speaks with.
void Cluster::State::TellUnheard() {
  std::vector<StageNews> news;
  for (auto& [model, placed] : placements) {
    const PlacementRecord& record = placed.record;
    if (record.state != PlacementState::kLive || now - placed.unheard_said < kUnheardSayUs) continue;
    for (const std::int32_t mine : record.StagesOf(options.self)) {
      for (std::int32_t other = 0; other < static_cast<std::int32_t>(record.stages.size()); ++other) {
        const bool speaks = mine == 0 || other == 0 || std::abs(mine - other) == 1;
        const Member* member = Find(record.stages[static_cast<std::size_t>(other)].node);
        if (!speaks || member == nullptr || !member->here() || !member->suspect) continue;
        if (member->rounds_heard < kHeardElsewhereMin) continue;
        placed.unheard_said = now;
        news.push_back({model, record.epoch, mine, StageStatus::kUnheard, static_cast<Epoch>(other), {}});
      }
    }
  }
  for (const StageNews& one : news) Tell(Decider(), one);
}

void Cluster::State::TickHosting() {
  std::vector<StageKey> forgotten;
  std::vector<Local> broken;
  for (auto& [key, local] : locals) {
    if (!local.active && now - local.prepared > kUncommittedUs) forgotten.push_back(key);
    if (!local.active || !local.broken || now - local.broken_said < kLostSayUs) continue;
    local.broken_said = now;
    broken.push_back(local);
  }
  for (const StageKey& key : forgotten) DropLocal(key);
  for (const Local& local : broken) TellStage(Decider(), local);
  std::vector<StageNews> lost;
  for (auto& [model, placed] : placements) {
    if (placed.record.state != PlacementState::kLive || now - placed.lost_said < kLostSayUs) continue;
    for (const std::int32_t index : placed.record.StagesOf(options.self)) {
      if (locals.contains({model, placed.record.epoch, index})) continue;
      placed.lost_said = now;
      lost.push_back({model, placed.record.epoch, index, StageStatus::kLost, 0, {}});
    }
  }
  for (const StageNews& news : lost) Tell(Decider(), news);
  TellUnheard();
  if (!spares.empty()) ReviewSpares();
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
  const bool holds = std::any_of(placements.begin(), placements.end(), [&](const auto& entry) {
    const PlacementRecord& record = entry.second.record;
    return record.state == PlacementState::kLive && record.Has(options.self) && !move_failures.contains(entry.first);
  });
  if (holds && others_stay && now < leave_by) return;
  left = true;
  left_at = now;
  std::erase_if(move_failures, [&](const auto& entry) {
    const auto placed = placements.find(entry.first);
    return placed == placements.end() || !placed->second.record.Has(options.self);
  });
  self().record.state = MemberState::kLeft;
  self().state_since = now;
  SpreadSelf(false, false);
  std::vector<StageKey> keys;
  for (const auto& [key, local] : locals) keys.push_back(key);
  for (const StageKey& key : keys) DropLocal(key);
  while (!spares.empty()) DropSpare(spares.begin()->first);
  members_changed = true;
}

}  // namespace shoal
