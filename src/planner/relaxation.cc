// Fractional knapsacks: the cheapest bytes first.
#include "planner/relaxation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "planner/knapsack.h"

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBisections = 50;
constexpr int kPaceSteps = 400;      // of the grid over paces
constexpr double kPaceRatio = 1.01;  // between two of them
constexpr double kPaceExact = 1e-4;  // where it is searched for
constexpr double kWholeStep = 1.02;  // from where divisible devices would meet
constexpr int kShareRounds = 12;
constexpr double kSharesRatio = 1.1;  // the links' shares are found anew for so much more pace
constexpr int kPrizeSteps = 30;

}  // namespace

Relaxation::Relaxation(const PlanSizes& sizes, const PlanPrices& prices, std::size_t devices)
    : sizes_(sizes), prices_(prices), devices_(devices) {
  for (std::size_t i = 1; i < sizes.segments(); ++i) {
    even_ = even_ && sizes.memory(i, i + 1) == sizes.memory(0, 1) && sizes.weights(i, i + 1) == sizes.weights(0, 1) &&
            sizes.kv(i, i + 1) == sizes.kv(0, 1);
  }
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
  const auto holds = [&](std::size_t begin, std::size_t end) {
    return sizes_.memory(begin, end) <= room &&
           price.Of(sizes_.weights(begin, end), sizes_.kv(begin, end), false) + late <= pace;
  };
  if (even_) {  // anywhere as many as from the first on
    std::size_t held = 0, more = sizes_.segments();
    while (held < more) {
      const std::size_t middle = (held + more + 1) / 2;
      if (holds(0, middle)) {
        held = middle;
      } else {
        more = middle - 1;
      }
    }
    return sizes_.memory(0, held);
  }
  double most = 0;
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < sizes_.segments(); ++begin) {
    end = std::max(end, begin);
    while (end < sizes_.segments() && holds(begin, end + 1)) ++end;
    most = std::max(most, sizes_.memory(begin, end));
    if (end == sizes_.segments()) break;
  }
  return most;
}

// What each device must at least pay for the links it is on, where no link is slower than `pace`: `out` of the one to
// the next stage, `in` of the one from the stage before, so that out[a] + in[b] is at most the price from a to b.
// Raised in turns by half of what is possible, which leaves both ends of a link their part.
Relaxation::LinkShares Relaxation::LinkSharesAt(double pace) const {
  LinkShares shares;
  shares.out.assign(devices_, 0);
  shares.in.assign(devices_, 0);
  std::vector<double> price(devices_ * devices_, kInfinity);
  for (std::size_t a = 0; a < devices_; ++a) {
    for (std::size_t b = 0; b < devices_; ++b) {
      if (a != b && prices_.link_pace(a, b) <= pace) price[a * devices_ + b] = prices_.link_sum(a, b);
    }
  }
  const auto raise = [&](std::vector<double>& own, const std::vector<double>& other, bool is_out, double part) {
    for (std::size_t d = 0; d < devices_; ++d) {
      double left = kInfinity;
      for (std::size_t to = 0; to < devices_; ++to) {
        left = std::min(left, price[is_out ? d * devices_ + to : to * devices_ + d] - other[to]);
      }
      if (left < kInfinity) own[d] += part * (left - own[d]);
    }
  };
  for (int i = 0; i < kShareRounds; ++i) {
    const double part = i + 1 < kShareRounds ? 0.5 : 1;
    raise(shares.out, shares.in, true, part);
    raise(shares.in, shares.out, false, part);
  }
  for (std::size_t d = 0; d < devices_; ++d) {
    const auto from = price.begin() + static_cast<std::ptrdiff_t>(d * devices_);
    shares.sends.push_back(*std::min_element(from, from + static_cast<std::ptrdiff_t>(devices_)) < kInfinity);
    // As the last stage it has no link onwards, but one back to the head, which has none before it.
    double back = kInfinity;
    for (std::size_t head = 0; head < devices_; ++head) {
      if (head != d) back = std::min(back, prices_.way_back(d, head) - shares.in[head]);
    }
    shares.back.push_back(shares.in[d] + back);
  }
  shares.pace = pace;
  return shares;
}

// The least sum when no stage and no link may be slower than `pace`, on exactly `stages` stages (0: on two or more).
// `shares` may be of a larger pace. All devices but the last pay a link onwards; each may be the last.
double Relaxation::SumAt(double pace, std::size_t stages, const LinkShares& shares, bool whole) const {
  std::vector<double> capacities;
  for (std::size_t d = 0; d < devices_; ++d) {
    bool reached = shares.sends[d];
    for (std::size_t from = 0; !reached && from < devices_; ++from) {
      reached = from != d && prices_.link_pace(from, d) <= pace;
    }
    capacities.push_back(reached ? CapacityAt(d, pace, 0, 0) : 0);
  }
  const double prize = stages > 0 ? BestPrize(stages, capacities, shares) : 0;
  double best = kInfinity;
  for (std::size_t last = 0; last < devices_; ++last) {
    // It is there for certain, with its fixed time whole, and with the output head in its room.
    const double capacity =
        capacities[last] > 0 ? CapacityAt(last, pace, sizes_.last_extra(), prices_.pace(last).last) : 0;
    if (capacity <= 0) continue;
    const double own = prices_.sum(last).last + prices_.sum(last).fixed + shares.back[last];
    const Fill first{sum_density_[last], capacity};
    double sum = own + Filled(last, first, 0, capacities, shares);
    if (prize != 0) {
      sum = std::max(sum,
                     own + Filled(last, first, prize, capacities, shares) + prize * (static_cast<double>(stages) - 1));
    }
    best = std::min(best, sum);
  }
  return whole ? std::max(best, WholeSum(pace, stages, capacities, shares)) : best;
}

// The same where all segments are alike: on whole devices, each there or not.
double Relaxation::WholeSum(double pace, std::size_t stages, const std::vector<double>& capacities,
                            const LinkShares& shares) const {
  const double segment = sizes_.memory(0, sizes_.segments()) / static_cast<double>(sizes_.segments());
  const auto pieces = [&](double bytes) { return static_cast<std::size_t>(std::lround(bytes / segment)); };
  std::vector<KnapsackItem> items;
  for (std::size_t d = 0; d < devices_; ++d) {
    const StagePrice& sum = prices_.sum(d);
    KnapsackItem item;
    item.per_piece = sum_density_[d] * segment;
    item.there = sum.fixed + shares.out[d] + shares.in[d];
    item.most = shares.sends[d] ? pieces(capacities[d]) : 0;
    item.there_last = sum.fixed + sum.last + shares.back[d];
    if (capacities[d] > 0) item.most_last = pieces(CapacityAt(d, pace, sizes_.last_extra(), prices_.pace(d).last));
    items.push_back(item);
  }
  const std::vector<KnapsackSet> sets = CheapestSets(items, sizes_.segments(), stages);
  return sets.size() > stages ? sets[stages].cost : kInfinity;
}

// Seconds for all bytes, dealt to the cheapest first, beside what the last stage pays for being there. Each other
// device that is used is given `prize` seconds, or pays them where that is negative: where it is more than what it
// costs to be there, it is.
double Relaxation::Filled(std::size_t last, const Fill& first, double prize, const std::vector<double>& capacities,
                          const LinkShares& shares) const {
  std::vector<Fill> fills;
  double sum = 0;
  if (last < devices_) fills.push_back(first);
  for (std::size_t d = 0; d < devices_; ++d) {
    if (d == last || capacities[d] <= 0 || !shares.sends[d]) continue;
    const double there = prices_.sum(d).fixed + shares.out[d] + shares.in[d] - prize;
    sum += std::min(there, 0.0);
    fills.push_back({sum_density_[d] + std::max(there, 0.0) / capacities[d], capacities[d]});
  }
  std::sort(fills.begin(), fills.end(), [](const Fill& a, const Fill& b) { return a.density < b.density; });
  double left = sizes_.memory(0, sizes_.segments());
  for (const Fill& fill : fills) {
    const double taken = std::min(left, fill.bytes);
    sum += taken * fill.density;
    left -= taken;
    if (left <= 0) return sum;
  }
  return kInfinity;
}

// The prize that makes the bound for exactly `stages` stages highest, about: it is concave in it.
double Relaxation::BestPrize(std::size_t stages, const std::vector<double>& capacities,
                             const LinkShares& shares) const {
  double high = 0;
  for (std::size_t d = 0; d < devices_; ++d) {
    if (capacities[d] > 0 && shares.sends[d]) {
      high = std::max(high, prices_.sum(d).fixed + shares.out[d] + shares.in[d]);
    }
  }
  const auto bound = [&](double prize) {
    return Filled(devices_, {}, prize, capacities, shares) + prize * static_cast<double>(stages);
  };
  double low = 0;
  for (std::size_t d = 0; d < devices_; ++d) low = std::min(low, -sum_density_[d] * capacities[d]);
  for (int i = 0; i < kPrizeSteps; ++i) {
    const double a = low + (high - low) / 3, b = high - (high - low) / 3;
    if (bound(a) < bound(b)) {
      low = a;
    } else {
      high = b;
    }
  }
  return (low + high) / 2;
}

// Can `stages` devices hold everything with no stage slower than `pace`? One of them also has the output head.
bool Relaxation::Covers(double pace, std::size_t stages) const {
  std::vector<std::pair<double, double>> capacities;  // as any stage, as the last
  for (std::size_t d = 0; d < devices_; ++d) {
    if (stages != 1 && fastest_link_[d] > pace) continue;
    capacities.emplace_back(CapacityAt(d, pace, 0, 0), CapacityAt(d, pace, sizes_.last_extra(), prices_.pace(d).last));
  }
  std::sort(capacities.begin(), capacities.end(), std::greater<>());
  const std::size_t count = std::min(stages > 0 ? stages : devices_, capacities.size());
  if (count == 0) return false;
  double held = 0, most = 0;  // of the largest but one, then with each as the last
  for (std::size_t i = 0; i + 1 < count; ++i) held += capacities[i].first;
  for (std::size_t i = 0; i < capacities.size(); ++i) {
    if (capacities[i].second <= 0) continue;
    const double others = i + 1 < count ? held - capacities[i].first + capacities[count - 1].first : held;
    most = std::max(most, others + capacities[i].second);
  }
  return most >= sizes_.memory(0, sizes_.segments()) * (1 - 1e-12);
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

double Relaxation::Bound(std::size_t stages, bool whole) const {
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
  double pace = BoundPaceOf(stages);
  if (pace == kInfinity) return best;
  return std::min(best, prices_.takes_larger() ? BoundOfLarger(pace, stages, whole) : BoundOfBoth(pace, stages));
}

// Where the larger of pace and sum counts: the sum falls as the pace rises, so nothing is below where they meet.
double Relaxation::BoundOfLarger(double least_pace, std::size_t stages, bool whole) const {
  double low = least_pace, high = least_pace;
  LinkShares shares = LinkSharesAt(kInfinity);
  const auto meets = [&](double pace, bool whole_devices) {
    return prices_.Cost(SumAt(pace, stages, shares, whole_devices), 0) <= prices_.Cost(0, pace);
  };
  const auto narrow = [&](bool whole_devices, double step) {
    for (int i = 0; i < kBisections && !meets(high, whole_devices); ++i) {
      low = high;
      high *= step;
    }
    shares = LinkSharesAt(high);
    for (int i = 0; i < kBisections && high > low * (1 + kPaceExact); ++i) {
      const double middle = (low + high) / 2;
      (meets(middle, whole_devices) ? high : low) = middle;
    }
  };
  narrow(false, 2);
  if (whole && stages > 0 && even_) narrow(true, kWholeStep);
  return prices_.Cost(0, low);
}

// Where both count. Between two paces of a grid a plan has at least the lower pace, and at least the sum that the
// higher one allows.
double Relaxation::BoundOfBoth(double pace, std::size_t stages) const {
  LinkShares shares = LinkSharesAt(pace * kPaceRatio);
  double several = kInfinity;
  for (int i = 0; i < kPaceSteps; ++i) {
    const double next = i + 1 < kPaceSteps ? pace * kPaceRatio : kInfinity;
    if (next > shares.pace) shares = LinkSharesAt(next * kSharesRatio);
    several = std::min(several, prices_.Cost(SumAt(next, stages, shares), pace));
    if (prices_.Cost(0, next) >= several) break;
    pace = next;
  }
  return several;
}

}  // namespace shoal
