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
  // [stages_max + 1]: for plans of so many stages, by each way to group streams, fewest groups first. Only throughput
  // has several.
  std::vector<std::vector<PlanPrices>> prices;
  std::size_t stages_min = 1, stages_max = 0;

  std::size_t devices() const { return input.devices.size(); }
  bool depends_on_stages() const { return input.policy.objective == PlanObjective::kThroughput; }
};
SearchSpace MakeSearchSpace(const PlanInput& input, const PlanSizes& sizes);
// By the best way to group streams.
double CostOf(const SearchSpace& space, const SegmentPlan& plan);

// The best plan found for each number of stages: [stages_max + 1], empty `devices` where none was found.
using PlansByStages = std::vector<SegmentPlan>;

// Bounded: every single device, whatever stages_min is, then local search from several starts; the work is limited
// (kWorkMax).
PlansByStages SearchBounded(const SearchSpace& space);

// For plans of one number of stages the way to group streams that looks best, and what it promises: where the least
// pace of divisible devices meets their sum.
struct LikelyWay {
  std::size_t way = 0;  // index into SearchSpace::prices[stages]
  double cost = 0, pace = 0;
};
// [stages_max + 1]. `shares`: of links, with the prices of one stage.
std::vector<LikelyWay> LikelyWays(const SearchSpace& space, const Relaxation::LinkShares& shares);

// Orders of devices from which a local search over many may begin, the most promising first.
std::vector<std::vector<std::size_t>> OrdersOfSets(const SearchSpace& space, const Relaxation::LinkShares& shares,
                                                   const std::vector<LikelyWay>& likely);

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
