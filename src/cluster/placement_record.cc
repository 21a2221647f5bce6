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

std::int32_t PlacementRecord::StageOf(const NodeId& node) const {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (stages[i].node == node) return static_cast<std::int32_t>(i);
  }
  return -1;
}

Epoch MakeEpoch(std::uint32_t round, const NodeId& decider, std::uint64_t incarnation) {
  return (static_cast<Epoch>(round) << 32) | (MixHash(HashOf(decider), incarnation) & 0xFFFFFFFF);
}

}  // namespace shoal
