// Copies of stages that nodes keep loaded, in case the node that runs the stage is lost.
//
// The decider asks for them once a placement stands; what there is spreads as facts of the member that has it, so that
// whoever decides later knows. They take only memory that no placement needs: a stage to be loaded drops them first.
#include <algorithm>
#include <cstdlib>
#include <tuple>
#include <utility>

#include "cluster/split.h"
#include "cluster/state.h"
#include "planner/standby.h"

namespace shoal {
namespace {

constexpr DurationUs kCopiesEveryUs = 500'000;  // how often the decider looks what is missing
constexpr DurationUs kCopyAskEveryUs = 5'000'000;
constexpr DurationUs kCopyMaxUs = 60'000'000;      // for a copy to be loaded; again from whenever layers come
constexpr DurationUs kCopyRefusedUs = 60'000'000;  // until a node that did not is asked again
constexpr DurationUs kPlacedUs = 2'000'000;        // a placement stands so long: what goes on there comes first

}  // namespace

bool Cluster::State::HasCopy(const NodeId& node, const PlacementRecord& record, std::int32_t index) const {
  const auto member = members.find(node);
  if (member == members.end()) return false;
  const StandbyCopy want{record.model, record.request.fingerprint, record.LayersOf(index),
                         OptionsHash(record.request.options)};
  const std::vector<StandbyCopy>& copies = member->second.record.facts.standby;
  return std::find(copies.begin(), copies.end(), want) != copies.end();
}

std::vector<NodeId> Cluster::State::CopiesOf(const PlacementRecord& record, std::int32_t index) const {
  std::vector<NodeId> nodes;
  for (const auto& [id, member] : members) {
    const bool may = member.here() && !member.suspect && !member.record.facts.leaving;
    if (may && id != record.stages[static_cast<std::size_t>(index)].node && HasCopy(id, record, index)) {
      nodes.push_back(id);
    }
  }
  return nodes;
}

// ---- At the decider -------------------------------------------------------------------------------------------------

// What copies take on `node`, by its own account and by what it was asked for.
std::uint64_t Cluster::State::CopiesTaken(const NodeId& node) const {
  std::uint64_t bytes = 0;
  for (const StandbyCopy& copy : members.at(node).record.facts.standby) {
    const auto placed = placements.find(copy.model);
    if (placed == placements.end() || placed->second.record.state != PlacementState::kLive) continue;
    const PlaceRequest& request = placed->second.record.request;
    bytes += StageBytes(request.shape, copy.layers, request.options);
  }
  for (const auto& [key, asked] : copies_asked) bytes += asked.node == node ? asked.bytes : 0;
  return bytes;
}

// The best of those with room.
std::optional<NodeId> Cluster::State::PlaceForCopy(const PlacementRecord& record, std::int32_t index) const {
  const LayerRange layers = record.LayersOf(index);
  const std::uint64_t bytes = StageBytes(record, index);
  std::optional<NodeId> best;
  CopyRank best_rank;
  for (const auto& [id, member] : members) {
    if (!MayHost(id) || id == record.stages[static_cast<std::size_t>(index)].node) continue;
    const MemberFacts& facts = member.record.facts;
    const auto refused = copies_refused.find({id, {record.model, layers.first, layers.last}});
    if (!MayGet(facts, record.model, record.request.fingerprint)) continue;
    if (HasCopy(id, record, index) || (refused != copies_refused.end() && now < refused->second)) continue;
    if (facts.standby.size() >= kStandbyCopiesMax) continue;
    const std::uint64_t taken = MemoryTaken(id, {}) + CopiesTaken(id);
    if (facts.device.memory_budget_bytes < taken + bytes) continue;
    if (facts.device.memory_free_bytes != 0 && facts.device.memory_free_bytes < bytes + bytes / 4) continue;
    const CopyRank rank = RankForCopy(record.StagesOf(id), index, taken);
    if (!best || rank < best_rank) std::tie(best, best_rank) = std::tuple(std::optional(id), rank);
  }
  return best;
}

void Cluster::State::CareForStandby() {
  if (now < copies_due) return;
  copies_due = now + kCopiesEveryUs;
  if (!IsSelf(Decider())) return copies_asked.clear();
  std::erase_if(copies_refused, [&](const auto& entry) { return now >= entry.second; });
  // What was asked for is there, is of no use any more, or does not come.
  for (auto& [key, asked] : copies_asked) {
    const std::uint64_t fetched = Fetched(std::get<0>(key), &asked.node);
    if (std::exchange(asked.fetched, fetched) != fetched) asked.since = now;
  }
  std::erase_if(copies_asked, [&](const auto& entry) {
    const auto& [model, epoch, index] = entry.first;
    const auto placed = placements.find(model);
    if (placed == placements.end() || placed->second.record.epoch != epoch) return true;
    if (HasCopy(entry.second.node, placed->second.record, index) || !MayHost(entry.second.node)) return true;
    if (now - entry.second.since < kCopyMaxUs) return false;
    const LayerRange layers = placed->second.record.LayersOf(index);
    copies_refused[{entry.second.node, {model, layers.first, layers.last}}] = now + kCopyRefusedUs;
    return true;
  });
  for (const auto& [model, placed] : placements) {
    const PlacementRecord& record = placed.record;
    const bool stands = record.state == PlacementState::kLive && now - placed.since >= kPlacedUs;
    const auto cared = care.find(model);
    if (!stands || deciding.contains(model) || (cared != care.end() && !cared->second.problem.empty())) continue;
    for (std::int32_t index = 0; index < static_cast<std::int32_t>(record.stages.size()); ++index) {
      const auto have = static_cast<std::int32_t>(CopiesOf(record, index).size());
      const StageKey key{model, record.epoch, index};
      if (have >= record.request.options.standby || copies_asked.contains(key)) continue;
      const std::optional<NodeId> node = PlaceForCopy(record, index);
      if (!node) continue;
      copies_asked[key] = {*node, StageBytes(record, index), now, now};
    }
  }
  const std::map<StageKey, CopyAsked> asked = copies_asked;  // telling oneself changes it
  for (const auto& [key, one] : asked) {
    if (now < one.send_due) continue;
    copies_asked[key].send_due = now + kCopyAskEveryUs;
    const auto& [model, epoch, index] = key;
    Tell(one.node, StandbyAsk{model, epoch, index});
  }
}

// ---- Here -----------------------------------------------------------------------------------------------------------

std::uint64_t Cluster::State::SparesTaken() const {
  std::uint64_t bytes = 0;
  for (const auto& [key, spare] : spares) bytes += spare.bytes;
  return bytes;
}

void Cluster::State::On(const NodeId& from, const StandbyAsk& ask) {
  const auto placed = placements.find(ask.model);
  if (from != Decider() || leaving || resting || placed == placements.end()) return;
  const PlacementRecord& record = placed->second.record;
  if (record.epoch != ask.epoch || record.state != PlacementState::kLive) return;
  if (static_cast<std::size_t>(ask.stage) >= record.stages.size() || spares.size() >= kStandbyCopiesMax) return;
  if (IsSelf(record.stages[static_cast<std::size_t>(ask.stage)].node)) return;
  const LayerRange layers = record.LayersOf(ask.stage);
  Spare spare;
  spare.fingerprint = record.request.fingerprint;
  spare.options_hash = OptionsHash(record.request.options);
  spare.bytes = StageBytes(record, ask.stage);
  const std::uint64_t budget = self().record.facts.device.memory_budget_bytes;
  if (MemoryTaken(options.self, {}) + SparesTaken() + spare.bytes > budget) return;
  if (!spares.emplace(SpareKey{record.model, layers.first, layers.last}, spare).second) return;
  Act(LoadStandby{record, ask.stage});
}

void Cluster::State::DropSpare(const SpareKey& key) {
  const auto [model, first, last] = key;  // may be one of what is erased
  const auto found = spares.find(key);
  if (found == spares.end()) return;
  spares.erase(found);
  Act(DropStandby{model, {first, last}});
}

// Copies of what is not placed so any more go; then others, until what is placed and prepared has room.
void Cluster::State::ReviewSpares() {
  std::set<SpareKey> keep, wanted;
  std::uint64_t taken = 0;
  for (const auto& [key, local] : locals) {
    const PlacementRecord& record = local.record;
    const LayerRange layers = record.LayersOf(local.index);
    if (local.source.kind == StageSource::Kind::kStandby && !local.active) {
      keep.insert({record.model, layers.first, layers.last});  // to be taken over: counted as a copy
    } else if (local.takes_memory()) {
      taken += StageBytes(record, local.index);
    }
  }
  for (const auto& [model, placed] : placements) {
    const PlacementRecord& record = placed.record;
    if (record.state != PlacementState::kLive || record.request.options.standby == 0) continue;
    for (std::size_t i = 0; i < record.stages.size(); ++i) {
      const LayerRange layers = record.stages[i].layers;
      const auto spare = spares.find({model, layers.first, layers.last});
      if (spare == spares.end() || spare->second.fingerprint != record.request.fingerprint) continue;
      if (spare->second.options_hash != OptionsHash(record.request.options)) continue;
      if (!IsSelf(record.stages[i].node)) wanted.insert(spare->first);
    }
  }
  std::vector<SpareKey> keys;
  for (const auto& [key, spare] : spares) keys.push_back(key);
  for (const SpareKey& key : keys) {
    if (!keep.contains(key) && (!wanted.contains(key) || leaving || resting)) DropSpare(key);
  }
  const std::uint64_t budget = self().record.facts.device.memory_budget_bytes;
  for (const SpareKey& key : keys) {
    if (taken + SparesTaken() <= budget) break;
    if (!keep.contains(key)) DropSpare(key);
  }
  TellSpares();
}

void Cluster::State::TellSpares() {
  std::vector<StandbyCopy> copies;
  for (const auto& [key, spare] : spares) {
    const auto& [model, first, last] = key;
    if (spare.ready) copies.push_back({model, spare.fingerprint, {first, last}, spare.options_hash});
  }
  if (left || copies == self().record.facts.standby) return;
  self().record.facts.standby = std::move(copies);
  ++self().record.facts_version;
  SpreadSelf(true, false);
  members_changed = true;
  Act(PlacementsChanged{});
}

void Cluster::OnStandbyReady(TimeUs now, const std::string& model, LayerRange layers, Status status) {
  State& s = *state_;
  s.Advance(now);
  const auto found = s.spares.find({model, layers.first, layers.last});
  if (found == s.spares.end()) return;
  if (status.ok()) {
    found->second.ready = true;
  } else {
    s.spares.erase(found);
  }
  s.TellSpares();
}

}  // namespace shoal
