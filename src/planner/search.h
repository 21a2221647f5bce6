// Three searches for the cheapest plan: one that ends with the best there is, one that ends soon, and one for the plan
// of the least energy, which does either.
//
// All work on segments (cost_model.h) and are pure and deterministic.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "planner/cost_model.h"
#include "planner/relaxation.h"

namespace shoal {

// What they look for plans in.
struct SearchSpace {
  const PlanInput& input;
  const PlanSizes& sizes;
  std::vector<PlanPrices> prices;  // [stages_max + 1]: for plans of so many stages
  std::size_t stages_min = 1, stages_max = 0;

  std::size_t devices() const { return input.devices.size(); }
  bool depends_on_stages() const { return input.policy.objective == PlanObjective::kThroughput; }
};
SearchSpace MakeSearchSpace(const PlanInput& input, const PlanSizes& sizes);

// The best plan found for each number of stages: [stages_max + 1], empty `devices` where none was found.
using PlansByStages = std::vector<SegmentPlan>;

// Bounded: every single device, whatever stages_min is, then local search from several starts; the work is limited
// (kWorkMax).
PlansByStages SearchBounded(const SearchSpace& space);

// Orders of devices from which a local search over many may begin, the most promising first. `of_one`: the relaxation
// with the prices of one stage.
std::vector<std::vector<std::size_t>> OrdersOfSets(const SearchSpace& space, const Relaxation& of_one);

// Improves the best of `plans` to the best there is, by depth first search over devices and cuts with bounds. False if
// it would take more than policy.exact_steps_max steps: then the best so far. Preconditions: at most kExactDevicesMax
// devices; `plans` has the best single device.
bool SearchExact(const SearchSpace& space, PlansByStages& plans);

// The best plan on exactly these devices in this order by `prices`, which are of as many stages; empty when they do not
// hold the model so. Preconditions: each device once, no more of them than segments. `allowed`: which plans count; then
// it may miss the best of them.
std::optional<SegmentPlan> CutInOrder(const PlanSizes& sizes, const PlanPrices& prices,
                                      const std::vector<std::size_t>& order,
                                      const std::function<bool(const SegmentPlan&)>& allowed = {});

// The plans of the least energy, of those that take at most `request_s_max`. `fast`: the space of kLatency, with the
// powers of devices; `known`: plans in it to begin from, among them one that is fast enough. True when nothing is
// better than the best of `plans`.
bool SearchEnergy(const SearchSpace& fast, double request_s_max, const PlansByStages& known, PlansByStages& plans);

}  // namespace shoal
