// Epochs and look-ups of placement records.
#include "cluster/placement_record.h"

namespace shoal {

std::string_view PlacementStateName(PlacementState state) {
  switch (state) {
    case PlacementState::kPreparing: return "preparing";
    case PlacementState::kLive: return "live";
    case PlacementState::kRetired: return "retired";
  }
  return "unknown";
}

std::string_view PlaceGoalName(PlaceGoal goal) {
  switch (goal) {
    case PlaceGoal::kSpread: return "spread";
    case PlaceGoal::kLatency: return "latency";
    case PlaceGoal::kThroughput: return "throughput";
    case PlaceGoal::kEnergy: return "energy";
  }
  return "unknown";
}

bool IsSameEngine(const PlaceOptions& a, const PlaceOptions& b) {
  PlaceOptions same = a;
  same.queue_max = b.queue_max;  // of the head alone
  same.standby = b.standby;
  return same == b;
}

std::uint64_t OptionsHash(const PlaceOptions& o) {
  std::uint64_t hash = 0;
  for (const std::int64_t field :
       {std::int64_t{o.context_tokens}, std::int64_t{o.slots}, std::int64_t{o.micro_batch_tokens},
        static_cast<std::int64_t>(o.wire_type), static_cast<std::int64_t>(o.kv_type), std::int64_t{o.flash_attention},
        std::int64_t{o.reproducible}}) {
    hash = MixHash(hash, static_cast<std::uint64_t>(field));
  }
  return hash;
}

std::vector<std::int32_t> PlacementRecord::StagesOf(const NodeId& node) const {
  std::vector<std::int32_t> indices;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (stages[i].node == node) indices.push_back(static_cast<std::int32_t>(i));
  }
  return indices;
}

Epoch MakeEpoch(std::uint32_t round, const NodeId& decider, std::uint64_t incarnation) {
  return (static_cast<Epoch>(round) << 32) | (MixHash(HashOf(decider), incarnation) & 0xFFFFFFFF);
}

}  // namespace shoal
