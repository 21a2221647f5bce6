// Depth first over (device, first layer, last layer) of each stage in turn.
//
// A node is cut off when even the relaxed rest (relaxation.h) cannot beat the best plan, when the devices left cannot
// hold the rest at the pace that a better plan needs, or when a node with the same devices, head, last device and
// layers was there before with no larger sum and no larger pace.
#include <algorithm>
#include <functional>
#include <limits>
#include <unordered_map>

#include "planner/relaxation.h"
#include "planner/search.h"

namespace shoal {
namespace {

constexpr int kRoundsOfRooms = 3;
constexpr double kSlack = 1e-12;  // what floating point may lose
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Exact {
 public:
  // Plans of `first_stages` to `last_stages` stages by `prices`.
  Exact(const SearchSpace& space, const PlanPrices& prices, std::size_t first_stages, std::size_t last_stages,
        PlansByStages& plans, std::int64_t& steps)
      : space_(space),
        sizes_(space.sizes),
        prices_(prices),
        relaxed_(space.sizes, prices_, space.devices()),
        first_stages_(first_stages),
        last_stages_(last_stages),
        plans_(plans),
        steps_(steps) {
    for (std::size_t d = 0; d < space.devices(); ++d) {
      by_density_.push_back(d);
      room_.push_back(relaxed_.capacity(d));
      density_.push_back(relaxed_.full_density(d));
    }
  }

  // `best`: the cost to beat. False if it gave up.
  bool Run(double& best) {
    best_ = &best;
    MeasureRooms();
    for (std::size_t head = 0; head < space_.devices(); ++head) {
      if (!space_.input.devices[head].may_be_head) continue;
      if (!Take(head, 0, 0, 0)) return false;
    }
    return true;
  }

 private:
  struct Seen {
    double sum, pace;
  };

  // What devices can hold at the pace that a better plan needs, and what that makes a byte cost on them. The sum that
  // every plan has limits the pace, which limits what devices hold, which raises that sum.
  void MeasureRooms() {
    for (int round = 0; round < kRoundsOfRooms; ++round) {
      std::sort(by_density_.begin(), by_density_.end(),
                [&](std::size_t a, std::size_t b) { return density_[a] < density_[b]; });
      const double pace = prices_.PaceBelow(*best_, RestSum(0, 0));
      for (std::size_t d = 0; d < space_.devices(); ++d) {
        room_[d] = relaxed_.CapacityAt(d, pace, 0, 0);
        density_[d] = room_[d] > 0
                          ? relaxed_.sum_density(d) + (prices_.sum(d).fixed + relaxed_.cheapest_link(d)) / room_[d]
                          : kInfinity;
      }
    }
    std::vector<double> rates;
    for (std::size_t d = 0; d < space_.devices(); ++d) rates.push_back(1 / relaxed_.pace_density(d));
    SumLargest(room_, rooms_);
    SumLargest(rates, rates_);
    best_of_rooms_ = *best_;
  }

  // Of each set of devices, the sums of its one, two, ... largest values.
  void SumLargest(const std::vector<double>& values, std::vector<double>& sums) const {
    const std::size_t sets = std::size_t{1} << space_.devices();
    sums.assign(sets * (space_.devices() + 1), 0);
    for (std::size_t set = 1; set < sets; ++set) {
      std::vector<double> largest;
      for (std::size_t d = 0; d < space_.devices(); ++d) {
        if ((set >> d & 1) != 0) largest.push_back(values[d]);
      }
      std::sort(largest.begin(), largest.end(), std::greater<>());
      double* const row = &sums[set * (space_.devices() + 1)];
      for (std::size_t k = 1; k <= space_.devices(); ++k) {
        row[k] = row[k - 1] + (k <= largest.size() ? largest[k - 1] : 0);
      }
    }
  }

  // The least that the rest from `at` adds to the sum, on devices outside `used`.
  double RestSum(std::size_t used, std::size_t at) const {
    double left = sizes_.memory(at, sizes_.segments());
    if (left <= 0) return 0;
    double sum = relaxed_.cheapest_last();
    for (const std::size_t d : by_density_) {
      if ((used >> d & 1) != 0) continue;
      const double taken = std::min(left, room_[d]);
      sum += taken > 0 ? taken * density_[d] : 0;
      left -= taken;
      if (left <= 0) return sum;
    }
    return kInfinity;
  }

  bool IsDominated(std::size_t head, std::size_t device, std::size_t at, double sum, double pace) {
    const std::uint64_t key = (static_cast<std::uint64_t>(used_) << 24) | (head << 20) | (device << 16) | at;
    std::vector<Seen>& seen = seen_[key];
    for (const Seen& other : seen) {
      if (other.sum <= sum && other.pace <= pace) return true;
    }
    std::erase_if(seen, [&](const Seen& other) { return sum <= other.sum && pace <= other.pace; });
    seen.push_back({sum, pace});
    return false;
  }

  void Finish(double cost) {
    *best_ = cost;
    SegmentPlan& plan = plans_[devices_.size()];
    plan = {devices_, starts_, cost};
    if (cost < best_of_rooms_ * (1 - 1e-3)) MeasureRooms();
  }

  // Gives `device` segments from `at` on. `sum` and `pace` are those of the stages before, links to here included.
  bool Take(std::size_t device, std::size_t at, double sum, double pace) {
    devices_.push_back(device);
    starts_.push_back(at);
    used_ |= std::size_t{1} << device;
    const bool whole = TakeEach(device, at, sum, pace);
    used_ &= ~(std::size_t{1} << device);
    starts_.pop_back();
    devices_.pop_back();
    return whole;
  }

  bool TakeEach(std::size_t device, std::size_t at, double sum, double pace) {
    const std::size_t all = (std::size_t{1} << space_.devices()) - 1;
    const std::size_t head = devices_.front();
    const std::size_t depth = devices_.size();
    for (std::size_t end = sizes_.segments(); end > at; --end) {
      const bool is_last = end == sizes_.segments();
      if (!sizes_.Fits(device, at, end)) continue;
      if (is_last ? depth < first_stages_ : depth >= last_stages_) continue;
      const double weights = sizes_.weights(at, end), kv = sizes_.kv(at, end);
      const double new_pace = std::max(pace, prices_.pace(device).Of(weights, kv, is_last));
      const double new_sum = sum + prices_.sum(device).Of(weights, kv, is_last);
      if (is_last) {
        const double cost = prices_.Cost(new_sum + prices_.way_back(device, head), new_pace);
        if (cost < *best_ * (1 - kSlack)) Finish(cost);
        continue;
      }
      if (++steps_ > space_.input.policy.exact_steps_max) return false;
      // Fewer segments here leave more for the rest: once the rest has no room, less here is no way out.
      const double rest = sizes_.memory(end, sizes_.segments());
      const std::size_t left = (all & ~used_) * (space_.devices() + 1) + last_stages_ - depth;
      if (rooms_[left] < rest * (1 - kSlack)) break;
      const double rest_pace = std::max(new_pace, rest / rates_[left]);
      const double link = relaxed_.cheapest_link(device);
      const double rest_sum = RestSum(used_, end);
      if (prices_.Cost(new_sum + link + rest_sum, rest_pace) >= *best_ * (1 - kSlack)) continue;
      if (IsDominated(head, device, end, new_sum, new_pace)) continue;
      for (std::size_t next = 0; next < space_.devices(); ++next) {
        if ((used_ >> next & 1) != 0) continue;
        const double linked_pace = std::max(new_pace, prices_.link_pace(device, next));
        if (!Take(next, end, new_sum + prices_.link_sum(device, next), linked_pace)) return false;
      }
    }
    return true;
  }

  const SearchSpace& space_;
  const PlanSizes& sizes_;
  const PlanPrices& prices_;
  const Relaxation relaxed_;
  const std::size_t first_stages_, last_stages_;
  PlansByStages& plans_;
  std::int64_t& steps_;
  double* best_ = nullptr;
  double best_of_rooms_ = kInfinity;
  std::vector<std::size_t> by_density_;
  std::vector<double> room_, density_;  // of each device
  std::vector<double> rooms_, rates_;   // [sets, devices + 1]: of the 0, 1, ... best of each set
  std::unordered_map<std::uint64_t, std::vector<Seen>> seen_;
  // The plan so far.
  std::vector<std::size_t> devices_, starts_;
  std::size_t used_ = 0;
};

}  // namespace

bool SearchExact(const SearchSpace& space, PlansByStages& plans) {
  double best = kInfinity;
  for (const SegmentPlan& plan : plans) {
    if (!plan.devices.empty() && plan.devices.size() >= space.stages_min) best = std::min(best, plan.cost);
  }
  std::int64_t steps = 0;
  const std::size_t fewest = std::max<std::size_t>(space.stages_min, 2);
  // A single stage pays no link; those plans are all known already (SearchBounded).
  if (space.stages_max < fewest) return true;
  if (!space.depends_on_stages()) {
    return Exact(space, space.prices[1].front(), fewest, space.stages_max, plans, steps).Run(best);
  }
  bool whole = true;
  for (std::size_t stages = fewest; stages <= space.stages_max; ++stages) {
    for (const PlanPrices& prices : space.prices[stages]) {
      whole &= Exact(space, prices, stages, stages, plans, steps).Run(best);
    }
  }
  return whole;
}

}  // namespace shoal
