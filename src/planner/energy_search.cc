// The plan that takes the least energy of those that are fast enough.
//
// What devices take at idle counts as long as the request lasts, so what a second costs depends on which devices take
// part. For a given set of them energy is a sum over stages and links and their pace, as time is. So: every set in
// order of a bound, and in each set depth first over orders and cuts, with a second sum beside energy, the time.
#include <algorithm>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "planner/search.h"

namespace shoal {
namespace {

using Order = std::vector<std::size_t>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSlack = 1e-12;          // what floating point may lose
constexpr double kLocalWorkMax = 60e6;    // steps of in-order searches, about
constexpr std::size_t kNewcomersMax = 8;  // devices that a local search tries in each place

// The least that bytes cost on a device whatever layers they are of, by memory that they take.
double Density(const StagePrice& price, double context_tokens) {
  return std::min(price.weight, price.kv / context_tokens);
}

class EnergySearch {
 public:
  EnergySearch(const SearchSpace& fast, double request_s_max, PlansByStages& plans)
      : space_(fast), sizes_(fast.sizes), time_(fast.prices[1]), request_s_max_(request_s_max), plans_(plans) {}

  // Of these devices in this order. True if it is better than the best so far.
  bool Try(const Order& order) {
    if (order.empty() || order.size() > space_.stages_max || !space_.input.devices[order.front()].may_be_head) {
      return false;
    }
    const PlanPrices prices(space_.input, order);
    const auto fast_enough = [&](const SegmentPlan& plan) {
      return CostOf(sizes_, time_, plan) <= request_s_max_ * (1 + kSlack);
    };
    const std::optional<SegmentPlan> plan = CutInOrder(sizes_, prices, order, fast_enough);
    work_ += static_cast<double>(order.size() * sizes_.segments() * sizes_.segments());
    return plan && Take(*plan);
  }

  void Adopt(SegmentPlan plan) {
    if (plan.devices.empty() || CostOf(sizes_, time_, plan) > request_s_max_ * (1 + kSlack)) return;
    plan.cost = CostOf(sizes_, PlanPrices(space_.input, plan.devices), plan);
    (void)Take(plan);
  }

  // Fewer, others, more: until nothing is better, or the work is done.
  void Improve() {
    for (bool better = true; better && work_ < kLocalWorkMax;) {
      better = false;
      const Order order = best_order_;
      for (std::size_t i = 0; i < order.size() && !better; ++i) {
        Order fewer = order;
        fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
        better = fewer.size() >= space_.stages_min && Try(fewer);
      }
      const Order newcomers = Newcomers(order);
      for (std::size_t i = 0; i <= order.size() && !better; ++i) {
        for (const std::size_t device : newcomers) {
          Order other = order, more = order;
          if (i < order.size()) other[i] = device;
          more.insert(more.begin() + static_cast<std::ptrdiff_t>(i), device);
          better = work_ < kLocalWorkMax && ((i < order.size() && Try(other)) || Try(more));
          if (better) break;
        }
      }
      for (std::size_t i = 0; i + 1 < order.size() && !better; ++i) {
        Order swapped = order;
        std::swap(swapped[i], swapped[i + 1]);
        better = Try(swapped);
      }
    }
  }

  // Every set of devices. False if it gave up.
  bool Exact();

 private:
  class OfSet;

  bool Take(const SegmentPlan& plan) {
    SegmentPlan& known = plans_[plan.devices.size()];
    if (known.devices.empty() || plan.cost < known.cost) known = plan;
    if (plan.devices.size() < space_.stages_min || plan.cost >= best_ * (1 - kSlack)) return false;
    best_ = plan.cost;
    best_order_ = plan.devices;
    return true;
  }

  // Who takes the least energy for a byte among those that are not in `order`.
  Order Newcomers(const Order& order) const {
    std::vector<std::pair<double, std::size_t>> by_energy;
    for (std::size_t d = 0; d < space_.devices(); ++d) {
      if (std::find(order.begin(), order.end(), d) != order.end() || sizes_.room(d) <= 0) continue;
      const PlanPrices alone(space_.input, Order{d});
      by_energy.emplace_back(alone.sum(d).weight, d);
    }
    std::sort(by_energy.begin(), by_energy.end());
    Order newcomers;
    for (std::size_t i = 0; i < std::min(by_energy.size(), kNewcomersMax); ++i)
      newcomers.push_back(by_energy[i].second);
    return newcomers;
  }

  const SearchSpace& space_;
  const PlanSizes& sizes_;
  const PlanPrices& time_;
  const double request_s_max_;
  PlansByStages& plans_;
  double best_ = kInfinity;
  Order best_order_;
  double work_ = 0;
  std::int64_t steps_ = 0;
};

// Plans that use exactly the devices of a set.
class EnergySearch::OfSet {
 public:
  OfSet(EnergySearch& search, Order set)
      : search_(search), sizes_(search.sizes_), set_(std::move(set)), energy_(search.space_.input, set_) {
    const auto context = static_cast<double>(search.space_.input.workload.context_tokens);
    for (const std::size_t d : set_) {
      of_.push_back({d, Density(energy_.sum(d), context), Density(search.time_.sum(d), context), sizes_.room(d)});
    }
    by_energy_ = by_time_ = std::vector<std::size_t>(set_.size());
    std::iota(by_energy_.begin(), by_energy_.end(), std::size_t{0});
    by_time_ = by_energy_;
    std::sort(by_energy_.begin(), by_energy_.end(), [&](auto a, auto b) { return of_[a].energy < of_[b].energy; });
    std::sort(by_time_.begin(), by_time_.end(), [&](auto a, auto b) { return of_[a].time < of_[b].time; });
    if (set_.size() > 1) {
      energy_link_ = time_link_ = kInfinity;
      for (const std::size_t a : set_) {
        for (const std::size_t b : set_) {
          if (a == b) continue;
          energy_link_ = std::min(energy_link_, energy_.link_sum(a, b));
          time_link_ = std::min(time_link_, search.time_.link_sum(a, b));
        }
      }
    }
  }

  // The least energy of a plan of this set; infinite when it cannot hold the model, or not in time.
  double Bound() const {
    const double time = Rest(0, 0, search_.time_, by_time_, &Device::time, time_link_);
    if (time > search_.request_s_max_ * (1 + kSlack)) return kInfinity;
    return Rest(0, 0, energy_, by_energy_, &Device::energy, energy_link_);
  }

  bool Run() {
    for (std::size_t i = 0; i < set_.size(); ++i) {
      if (search_.space_.input.devices[set_[i]].may_be_head && !Take(i, 0, {})) return false;
    }
    return true;
  }

 private:
  struct Device {
    std::size_t device = 0;
    double energy = 0, time = 0;  // of a byte, at least
    double room = 0;
  };
  struct Spent {
    double energy = 0, time = 0, pace = 0;
  };

  // What the rest from `at` on adds at least on the devices outside `used`, all of which take part.
  double Rest(std::size_t used, std::size_t at, const PlanPrices& prices, const std::vector<std::size_t>& by_density,
              double Device::*density, double link) const {
    double left = sizes_.memory(at, sizes_.segments()), sum = 0, last = kInfinity;
    std::size_t devices = 0;
    for (const std::size_t i : by_density) {
      if ((used >> i & 1) != 0) continue;
      ++devices;
      const double taken = std::clamp(of_[i].room, 0.0, left);
      left -= taken;
      sum += taken * (of_[i].*density) + prices.sum(of_[i].device).fixed;
      last = std::min(last, prices.sum(of_[i].device).last);
    }
    if (left > sizes_.memory(0, sizes_.segments()) * kSlack) return kInfinity;
    // A link to each of them, but none in front of the first.
    return devices == 0 ? 0 : sum + last + link * static_cast<double>(devices - (used == 0 ? 1 : 0));
  }

  bool IsDominated(std::size_t last, std::size_t at, const Spent& spent) {
    const std::uint64_t key = (static_cast<std::uint64_t>(used_) << 32) | (order_.front() << 24) | (last << 16) | at;
    std::vector<Spent>& seen = seen_[key];
    const auto covers = [](const Spent& a, const Spent& b) {
      return a.energy <= b.energy && a.time <= b.time && a.pace <= b.pace;
    };
    if (std::any_of(seen.begin(), seen.end(), [&](const Spent& one) { return covers(one, spent); })) return true;
    std::erase_if(seen, [&](const Spent& one) { return covers(spent, one); });
    seen.push_back(spent);
    return false;
  }

  // Gives the set's device `i` segments from `at` on.
  bool Take(std::size_t i, std::size_t at, const Spent& before) {
    order_.push_back(i);
    starts_.push_back(at);
    used_ |= std::size_t{1} << i;
    const bool whole = TakeEach(i, at, before);
    used_ &= ~(std::size_t{1} << i);
    starts_.pop_back();
    order_.pop_back();
    return whole;
  }

  bool TakeEach(std::size_t i, std::size_t at, const Spent& before) {
    const std::size_t device = set_[i];
    const bool is_last = order_.size() == set_.size();
    const std::size_t others = set_.size() - order_.size();
    for (std::size_t end = is_last ? sizes_.segments() : at + 1; end + others <= sizes_.segments(); ++end) {
      if (!sizes_.Fits(device, at, end)) break;
      const double weights = sizes_.weights(at, end), kv = sizes_.kv(at, end);
      Spent now = before;
      now.energy += energy_.sum(device).Of(weights, kv, is_last);
      now.time += search_.time_.sum(device).Of(weights, kv, is_last);
      now.pace = std::max(now.pace, search_.time_.pace(device).Of(weights, kv, is_last));
      if (is_last) return Finish(now), true;
      if (++search_.steps_ > search_.space_.input.policy.exact_steps_max) return false;
      const double rest_s = Rest(used_, end, search_.time_, by_time_, &Device::time, time_link_);
      if (search_.time_.Cost(now.time + rest_s, now.pace) > search_.request_s_max_ * (1 + kSlack)) continue;
      const double rest = Rest(used_, end, energy_, by_energy_, &Device::energy, energy_link_);
      if (energy_.Cost(now.energy + rest, now.pace) >= search_.best_ * (1 - kSlack)) continue;
      if (IsDominated(i, end, now)) continue;
      for (std::size_t next = 0; next < set_.size(); ++next) {
        if ((used_ >> next & 1) != 0) continue;
        Spent linked = now;
        linked.energy += energy_.link_sum(device, set_[next]);
        linked.time += search_.time_.link_sum(device, set_[next]);
        linked.pace = std::max(linked.pace, search_.time_.link_pace(device, set_[next]));
        if (!Take(next, end, linked)) return false;
      }
    }
    return true;
  }

  void Finish(const Spent& spent) {
    const std::size_t last = set_[order_.back()], head = set_[order_.front()];
    const double time = search_.time_.Cost(spent.time + search_.time_.way_back(last, head), spent.pace);
    if (time > search_.request_s_max_ * (1 + kSlack)) return;
    SegmentPlan plan;
    for (const std::size_t i : order_) plan.devices.push_back(set_[i]);
    plan.starts = starts_;
    plan.cost = energy_.Cost(spent.energy + energy_.way_back(last, head), spent.pace);
    (void)search_.Take(plan);
  }

  EnergySearch& search_;
  const PlanSizes& sizes_;
  const Order set_;
  const PlanPrices energy_;
  std::vector<Device> of_;  // [set]
  std::vector<std::size_t> by_energy_, by_time_;
  double energy_link_ = 0, time_link_ = 0;
  std::unordered_map<std::uint64_t, std::vector<Spent>> seen_;
  // The plan so far, in places of the set.
  Order order_, starts_;
  std::size_t used_ = 0;
};

bool EnergySearch::Exact() {
  std::vector<std::pair<double, Order>> sets;
  for (std::size_t bits = 1; bits < std::size_t{1} << space_.devices(); ++bits) {
    Order set;
    for (std::size_t d = 0; d < space_.devices(); ++d) {
      if ((bits >> d & 1) != 0) set.push_back(d);
    }
    if (set.size() < space_.stages_min || set.size() > space_.stages_max) continue;
    const double bound = OfSet(*this, set).Bound();
    if (bound < best_) sets.emplace_back(bound, std::move(set));
  }
  std::sort(sets.begin(), sets.end());
  for (const auto& [bound, set] : sets) {
    if (bound >= best_ * (1 - kSlack)) return true;
    if (!OfSet(*this, set).Run()) return false;
  }
  return true;
}

}  // namespace

bool SearchEnergy(const SearchSpace& fast, double request_s_max, const PlansByStages& known, PlansByStages& plans) {
  EnergySearch search(fast, request_s_max, plans);
  for (const SegmentPlan& plan : known) {
    search.Adopt(plan);
    (void)search.Try(plan.devices);
  }
  for (std::size_t d = 0; d < fast.devices(); ++d) (void)search.Try({d});
  search.Improve();
  return fast.devices() <= kExactDevicesMax && search.Exact();
}

}  // namespace shoal
