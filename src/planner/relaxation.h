// Lower bounds of what a plan, or the rest of one, must cost: layers cut anywhere, each device at its best.
//
// Every second is charged to memory: a device takes `room` bytes of layers at the best it can do a byte, and pays its
// fixed time and its shares of links in proportion. What a device holds is counted in whole segments. The shares of
// links are those of the dual of an assignment: whatever order the stages have, their links cost no less.
#pragma once

#include <cstddef>
#include <vector>

#include "planner/cost_model.h"

namespace shoal {

class Relaxation {
 public:
  Relaxation(const PlanSizes& sizes, const PlanPrices& prices, std::size_t devices);

  double sum_density(std::size_t device) const { return sum_density_[device]; }    // seconds a byte, at best
  double pace_density(std::size_t device) const { return pace_density_[device]; }  // of the pace
  // Sum density with the device's fixed time and cheapest link spread over the most it can hold; infinite if that is
  // nothing.
  double full_density(std::size_t device) const { return full_density_[device]; }
  double cheapest_link(std::size_t device) const { return cheapest_link_[device]; }
  double capacity(std::size_t device) const { return capacity_[device]; }
  double cheapest_last() const { return cheapest_last_; }  // the output head's share of a sum
  // Most bytes of whole segments on a device whose pace is at most `pace`, `extra` room and `late` seconds taken.
  double CapacityAt(std::size_t device, double pace, double extra, double late) const;

  // What each device must at least pay for the links it is on: out[a] + in[b] is at most the price from a to b.
  struct LinkShares {
    std::vector<double> out, in;  // [devices]
    std::vector<double> back;     // of a last stage: its `in`, and back to the cheapest head
    std::vector<bool> sends;      // there is a link onwards
    double pace = 0;              // of no link more
  };
  // Of links no slower than `pace`.
  LinkShares LinkSharesAt(double pace) const;

  // No plan of exactly `stages` stages (0: of any number) costs less. `whole`: sharper where all segments are alike,
  // and slower; only where the larger of pace and sum counts.
  double Bound(std::size_t stages, bool whole) const;

 private:
  double BoundPaceOf(std::size_t stages) const;
  double BoundOfLarger(double least_pace, std::size_t stages, bool whole) const;
  double BoundOfBoth(double pace, std::size_t stages) const;
  struct Fill {
    double density = 0, bytes = 0;
  };
  double SumAt(double pace, std::size_t stages, const LinkShares& shares, bool whole = false) const;
  double Filled(std::size_t last, const Fill& first, double prize, const std::vector<double>& capacities,
                const LinkShares& shares) const;
  double WholeSum(double pace, std::size_t stages, const std::vector<double>& capacities,
                  const LinkShares& shares) const;
  double BestPrize(std::size_t stages, const std::vector<double>& capacities, const LinkShares& shares) const;
  bool Covers(double pace, std::size_t stages) const;

  const PlanSizes& sizes_;
  const PlanPrices& prices_;
  std::size_t devices_;
  std::vector<double> sum_density_, pace_density_, full_density_, cheapest_link_, fastest_link_, capacity_;
  double cheapest_last_ = 0;
  bool even_ = true;  // all segments are alike
};

}  // namespace shoal
