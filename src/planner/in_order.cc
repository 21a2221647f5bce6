// The cheapest cuts for devices in a given order: dynamic programming over (stage, segments done) for the least sum
// below a pace, again and again below the pace of the plan found, until no plan with less pace can be cheaper. Of plans
// that cost nearly the same the one with the least pace is taken: its stages are the most even.
#include <algorithm>
#include <limits>

#include "planner/search.h"

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kBelow = 1 - 1e-12;
constexpr double kNearly = 1 + 1e-3;
constexpr int kRoundsMax = 256;

class InOrder {
 public:
  InOrder(const PlanSizes& sizes, const PlanPrices& prices, const std::vector<std::size_t>& order)
      : sizes_(sizes), prices_(prices), order_(order), segments_(sizes.segments()) {
    for (std::size_t i = 0; i + 1 < order.size(); ++i) {
      link_sum_ += prices_.link_sum(order[i], order[i + 1]);
      link_pace_ = std::max(link_pace_, prices_.link_pace(order[i], order[i + 1]));
    }
    link_sum_ += prices_.way_back(order.back(), order.front());
  }

  std::optional<SegmentPlan> Run(const std::function<bool(const SegmentPlan&)>& allowed) {
    std::optional<SegmentPlan> taken;
    double best = kInfinity;
    double pace_max = kInfinity;
    for (int round = 0; round < kRoundsMax && link_pace_ <= pace_max; ++round) {
      SegmentPlan plan;
      double sum = 0, pace = 0;
      if (!LeastSum(pace_max, plan, sum, pace)) break;
      plan.cost = prices_.Cost(sum, pace);
      if (!allowed || allowed(plan)) {
        best = std::min(best, plan.cost);
        if (plan.cost <= best * kNearly) taken = plan;
      }
      if (prices_.Cost(sum, 0) > best * kNearly) break;  // sums only grow from here
      pace_max = pace * kBelow;
    }
    return taken;
  }

 private:
  // The plan of the least sum among those of at most `pace_max`. False when there is none.
  bool LeastSum(double pace_max, SegmentPlan& plan, double& sum, double& pace) const {
    const std::size_t stages = order_.size();
    std::vector<double> before(segments_ + 1, kInfinity), now;
    std::vector<std::vector<std::size_t>> from(stages, std::vector<std::size_t>(segments_ + 1, 0));
    before[0] = 0;
    for (std::size_t i = 0; i < stages; ++i) {
      const bool is_last = i + 1 == stages;
      now.assign(segments_ + 1, kInfinity);
      for (std::size_t end = is_last ? segments_ : i + 1; end <= segments_ - (stages - i - 1); ++end) {
        for (std::size_t at = end; at-- > i;) {
          if (!sizes_.Fits(order_[i], at, end)) break;
          const double weights = sizes_.weights(at, end), kv = sizes_.kv(at, end);
          if (prices_.pace(order_[i]).Of(weights, kv, is_last) > pace_max) break;
          const double found = before[at] + prices_.sum(order_[i]).Of(weights, kv, is_last);
          if (found >= now[end]) continue;
          now[end] = found;
          from[i][end] = at;
        }
      }
      before = now;
    }
    if (before[segments_] == kInfinity) return false;
    sum = before[segments_] + link_sum_;
    pace = link_pace_;
    plan.devices = order_;
    plan.starts.assign(stages, 0);
    std::size_t end = segments_;
    for (std::size_t i = stages; i-- > 0;) {
      const std::size_t at = from[i][end];
      plan.starts[i] = at;
      pace = std::max(pace, prices_.pace(order_[i]).Of(sizes_.weights(at, end), sizes_.kv(at, end), i + 1 == stages));
      end = at;
    }
    return true;
  }

  const PlanSizes& sizes_;
  const PlanPrices& prices_;
  const std::vector<std::size_t>& order_;
  const std::size_t segments_;
  double link_sum_ = 0, link_pace_ = 0;
};

}  // namespace

std::optional<SegmentPlan> CutInOrder(const PlanSizes& sizes, const PlanPrices& prices,
                                      const std::vector<std::size_t>& order,
                                      const std::function<bool(const SegmentPlan&)>& allowed) {
  return InOrder(sizes, prices, order).Run(allowed);
}

}  // namespace shoal
