// A copy of each stage first, then a second one of each.
#include "planner/standby.h"

#include <cstdlib>
#include <limits>
#include <optional>

#include "planner/cost_model.h"

namespace shoal {

CopyRank RankForCopy(const std::vector<std::int32_t>& stages_there, std::int32_t index, std::uint64_t bytes_taken) {
  std::int32_t distance = stages_there.empty() ? 0 : std::numeric_limits<std::int32_t>::max();
  for (const std::int32_t other : stages_there) distance = std::min(distance, std::abs(other - index));
  return {!stages_there.empty(), distance, bytes_taken};
}

std::vector<std::vector<std::int32_t>> PlanCopies(const PlanInput& input, const Plan& plan, std::int32_t copies) {
  const std::size_t devices = input.devices.size();
  std::vector<std::uint64_t> taken(devices);
  std::vector<std::vector<std::int32_t>> stages_of(devices), kept(plan.stages.size());
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const auto device = static_cast<std::size_t>(plan.stages[i].device);
    taken[device] += plan.memory_bytes[i];
    stages_of[device].push_back(static_cast<std::int32_t>(i));
  }
  const auto place = [&](std::size_t stage) {
    std::optional<std::size_t> best;
    CopyRank best_rank;
    for (std::size_t d = 0; d < devices; ++d) {
      const auto device = static_cast<std::int32_t>(d);
      const bool has_it = plan.stages[stage].device == device ||
                          std::find(kept[stage].begin(), kept[stage].end(), device) != kept[stage].end();
      if (has_it || static_cast<double>(taken[d] + plan.memory_bytes[stage]) > RoomOf(input, input.devices[d]))
        continue;
      const CopyRank rank = RankForCopy(stages_of[d], static_cast<std::int32_t>(stage), taken[d]);
      if (!best || rank < best_rank) std::tie(best, best_rank) = std::tuple(std::optional(d), rank);
    }
    if (!best) return;
    kept[stage].push_back(static_cast<std::int32_t>(*best));
    taken[*best] += plan.memory_bytes[stage];
  };
  for (std::int32_t round = 0; round < copies; ++round) {
    for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) place(stage);
  }
  return kept;
}

}  // namespace shoal
