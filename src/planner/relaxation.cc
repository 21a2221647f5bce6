// Fractional knapsacks: the cheapest bytes first.
#include "planner/relaxation.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBisections = 50;
constexpr int kPaceSteps = 400;      // of the grid over paces
constexpr double kPaceRatio = 1.01;  // between two of them

}  // namespace

Relaxation::Relaxation(const PlanSizes& sizes, const PlanPrices& prices, std::size_t devices)
    : sizes_(sizes), prices_(prices), devices_(devices) {
  cheapest_last_ = kInfinity;
  for (std::size_t d = 0; d < devices; ++d) {
    double sum = kInfinity, pace = kInfinity;
    for (std::size_t i = 0; i < sizes.segments(); ++i) {
      const double memory = sizes.memory(i, i + 1);
      const double weights = sizes.weights(i, i + 1), kv = sizes.kv(i, i + 1);
      sum = std::min(sum, (prices.sum(d).weight * weights + prices.sum(d).kv * kv) / memory);
      pace = std::min(pace, (prices.pace(d).weight * weights + prices.pace(d).kv * kv) / memory);
    }
    sum_density_.push_back(sum);
    pace_density_.push_back(pace);
    double link = devices > 1 ? kInfinity : 0;
    for (std::size_t to = 0; to < devices; ++to) {
      if (to != d) link = std::min({link, prices.link_sum(d, to), prices.way_back(d, to)});
    }
    cheapest_link_.push_back(link);
    double fastest = devices > 1 ? kInfinity : 0;
    for (std::size_t other = 0; other < devices; ++other) {
      if (other != d) fastest = std::min({fastest, prices.link_pace(d, other), prices.link_pace(other, d)});
    }
    fastest_link_.push_back(fastest);
    cheapest_last_ = std::min(cheapest_last_, prices.sum(d).last);
  }
  for (std::size_t d = 0; d < devices; ++d) {
    capacity_.push_back(CapacityAt(d, kInfinity, 0, 0));
    full_density_.push_back(
        capacity_[d] > 0 ? sum_density_[d] + (prices.sum(d).fixed + cheapest_link_[d]) / capacity_[d] : kInfinity);
  }
}

double Relaxation::CapacityAt(std::size_t device, double pace, double extra, double late) const {
  const double room = sizes_.room(device) - extra;
  const StagePrice& price = prices_.pace(device);
  double most = 0;
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < sizes_.segments(); ++begin) {
    end = std::max(end, begin);
    while (end < sizes_.segments() && sizes_.memory(begin, end + 1) <= room &&
           price.Of(sizes_.weights(begin, end + 1), sizes_.kv(begin, end + 1), false) + late <= pace) {
      ++end;
    }
    most = std::max(most, sizes_.memory(begin, end));
    if (end == sizes_.segments()) break;
  }
  return most;
}

// The least sum when no stage and no link may be slower than `pace`: two stages or more. All devices but the last pay a
// link that is fast enough; each may be the last.
double Relaxation::SumAt(double pace) const {
  std::vector<double> capacities, links;
  for (std::size_t d = 0; d < devices_; ++d) {
    double link = kInfinity;
    bool reached = false;
    for (std::size_t other = 0; other < devices_; ++other) {
      if (other == d) continue;
      if (prices_.link_pace(d, other) <= pace) link = std::min(link, prices_.link_sum(d, other));
      reached |= prices_.link_pace(other, d) <= pace;
    }
    capacities.push_back(link < kInfinity || reached ? CapacityAt(d, pace, 0, 0) : 0);
    links.push_back(link);
  }
  double best = kInfinity;
  for (std::size_t last = 0; last < devices_; ++last) {
    if (capacities[last] > 0) best = std::min(best, SumAt(pace, last, capacities, links));
  }
  return best;
}

double Relaxation::SumAt(double pace, std::size_t last, const std::vector<double>& capacities,
                         const std::vector<double>& links) const {
  std::vector<std::pair<double, double>> fills;  // density, bytes
  double sum = prices_.sum(last).last;
  double left = sizes_.memory(0, sizes_.segments());
  for (std::size_t d = 0; d < devices_; ++d) {
    double link = links[d];
    if (d == last) {
      link = kInfinity;
      for (std::size_t head = 0; head < devices_; ++head) {
        if (head != d) link = std::min(link, prices_.way_back(d, head));
      }
      // It is there for certain, with its fixed time whole, and with the output head in its room.
      const double capacity = CapacityAt(d, pace, sizes_.last_extra(), prices_.pace(d).last);
      if (capacity <= 0) return kInfinity;
      sum += prices_.sum(d).fixed + link;
      fills.emplace_back(sum_density_[d], capacity);
    } else if (capacities[d] > 0 && link < kInfinity) {
      fills.emplace_back(sum_density_[d] + (prices_.sum(d).fixed + link) / capacities[d], capacities[d]);
    }
  }
  std::sort(fills.begin(), fills.end());
  for (const auto& [density, bytes] : fills) {
    const double taken = std::min(left, bytes);
    sum += taken * density;
    left -= taken;
    if (left <= 0) return sum;
  }
  return kInfinity;
}

// Can `stages` devices hold everything with no stage slower than `pace`? One of them also has the output head.
bool Relaxation::Covers(double pace, std::size_t stages) const {
  std::vector<double> capacities;
  double least_loss = kInfinity;
  for (std::size_t d = 0; d < devices_; ++d) {
    if (stages != 1 && fastest_link_[d] > pace) continue;
    const double capacity = CapacityAt(d, pace, 0, 0);
    const double as_last = CapacityAt(d, pace, sizes_.last_extra(), prices_.pace(d).last);
    if (as_last > 0) least_loss = std::min(least_loss, capacity - as_last);
    capacities.push_back(capacity);
  }
  if (least_loss == kInfinity) return false;
  std::sort(capacities.begin(), capacities.end(), std::greater<>());
  const std::size_t count = std::min(stages > 0 ? stages : devices_, capacities.size());
  const double held = std::accumulate(capacities.begin(), capacities.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
  return held - least_loss >= sizes_.memory(0, sizes_.segments()) * (1 - 1e-12);
}

double Relaxation::BoundPaceOf(std::size_t stages) const {
  if (!Covers(kInfinity, stages)) return kInfinity;
  double low = 0, high = 0;
  for (std::size_t d = 0; d < devices_; ++d) {
    high =
        std::max(high, prices_.pace(d).Of(sizes_.weights(0, sizes_.segments()), sizes_.kv(0, sizes_.segments()), true));
    high = std::max(high, fastest_link_[d]);
  }
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    (Covers(middle, stages) ? high : low) = middle;
  }
  return low;
}

double Relaxation::Bound(std::size_t stages, double enough) const {
  double best = kInfinity;
  if (stages <= 1) {
    SegmentPlan single{{0}, {0}, 0};
    for (std::size_t d = 0; d < devices_; ++d) {
      if (!sizes_.Fits(d, 0, sizes_.segments())) continue;
      single.devices[0] = d;
      best = std::min(best, CostOf(sizes_, prices_, single));
    }
    if (stages == 1) return best;
  }
  // Between two paces of the grid a plan has at least the lower pace, and at least the sum that the higher one allows.
  double pace = BoundPaceOf(stages);
  if (pace == kInfinity) return best;
  if (prices_.Cost(0, pace) >= enough) return std::min(best, prices_.Cost(0, pace));
  double several = kInfinity;
  for (int i = 0; i < kPaceSteps; ++i) {
    const double next = i + 1 < kPaceSteps ? pace * kPaceRatio : kInfinity;
    several = std::min(several, prices_.Cost(SumAt(next), pace));
    if (prices_.Cost(0, next) >= several) break;
    pace = next;
  }
  return std::min(best, several);
}

}  // namespace shoal
