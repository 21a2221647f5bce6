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
      : space_(fast),
        sizes_(fast.sizes),
        time_(fast.prices[1].front()),
        seconds_max_(request_s_max * (1 + kSlack)),
        plans_(plans) {
    std::vector<std::pair<double, std::size_t>> by_energy;
    for (std::size_t d = 0; d < space_.devices(); ++d) {
      if (sizes_.room(d) > 0) by_energy.emplace_back(PlanPrices(space_.input, Order{d}).sum(d).weight, d);
    }
    std::sort(by_energy.begin(), by_energy.end());
    for (const auto& [joules, device] : by_energy) thrifty_.push_back(device);
  }

  // Of these devices in this order. True if it is better than the best so far.
  bool Try(const Order& order) {
    if (order.empty() || order.size() > space_.stages_max || !space_.input.devices[order.front()].may_be_head) {
      return false;
    }
    const PlanPrices prices(space_.input, order);
    const auto fast_enough = [&](const SegmentPlan& plan) { return CostOf(sizes_, time_, plan) <= seconds_max_; };
    const std::optional<SegmentPlan> plan = CutInOrder(sizes_, prices, order, fast_enough);
    work_ += static_cast<double>(order.size() * sizes_.segments() * sizes_.segments());
    return plan && Take(*plan);
  }

  void Adopt(SegmentPlan plan) {
    if (plan.devices.empty() || CostOf(sizes_, time_, plan) > seconds_max_) return;
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
    Order newcomers = thrifty_;
    std::erase_if(newcomers, [&](std::size_t d) { return std::find(order.begin(), order.end(), d) != order.end(); });
    newcomers.resize(std::min(newcomers.size(), kNewcomersMax));
    return newcomers;
  }

  const SearchSpace& space_;
  const PlanSizes& sizes_;
  const PlanPrices& time_;
  const double seconds_max_;  // of a request, with slack
  PlansByStages& plans_;
  Order thrifty_;  // devices with room, by the energy that one alone takes for a byte
  double best_ = kInfinity;
  Order best_order_;
  double work_ = 0;
  std::int64_t steps_ = 0;
};

// Plans that use exactly the devices of a set.
class EnergySearch::OfSet {
 public:
  OfSet(EnergySearch& search, Order set)
      : search_(search),
        sizes_(search.sizes_),
        set_(std::move(set)),
        prices_(search.space_.input, set_),
        energy_(SideOf(prices_)),
        time_(SideOf(search.time_)) {}

  // The least energy of a plan of this set; infinite when it cannot hold the model, or not in time.
  double Bound() const { return Rest(0, 0, time_) > search_.seconds_max_ ? kInfinity : Rest(0, 0, energy_); }

  bool Run() {
    for (std::size_t i = 0; i < set_.size(); ++i) {
      if (search_.space_.input.devices[set_[i]].may_be_head && !Take(i, 0, {})) return false;
    }
    return true;
  }

 private:
  // One of the two sums: energy, or time.
  struct Side {
    const PlanPrices& prices;
    std::vector<double> density;          // [set]: of a byte on the device, at least
    std::vector<std::size_t> by_density;  // places of the set
    double link = 0;                      // of one, at least
  };
  struct Spent {
    double energy = 0, time = 0, pace = 0;
  };

  Side SideOf(const PlanPrices& prices) const {
    Side side{prices, {}, std::vector<std::size_t>(set_.size())};
    const auto context = static_cast<double>(search_.space_.input.workload.context_tokens);
    for (const std::size_t d : set_) side.density.push_back(Density(prices.sum(d), context));
    std::iota(side.by_density.begin(), side.by_density.end(), std::size_t{0});
    std::sort(side.by_density.begin(), side.by_density.end(),
              [&](auto a, auto b) { return side.density[a] < side.density[b]; });
    if (set_.size() == 1) return side;
    side.link = kInfinity;
    for (const std::size_t a : set_) {
      for (const std::size_t b : set_) {
        if (a != b) side.link = std::min(side.link, prices.link_sum(a, b));
      }
    }
    return side;
  }

  // What the rest from `at` on adds at least on the devices outside `used`, all of which take part.
  double Rest(std::size_t used, std::size_t at, const Side& side) const {
    double left = sizes_.memory(at, sizes_.segments()), sum = 0, last = kInfinity;
    std::size_t devices = 0;
    for (const std::size_t i : side.by_density) {
      if ((used >> i & 1) != 0) continue;
      ++devices;
      const double taken = std::clamp(sizes_.room(set_[i]), 0.0, left);
      const StagePrice& price = side.prices.sum(set_[i]);
      left -= taken;
      sum += taken * side.density[i] + price.fixed;
      last = std::min(last, price.last);
    }
    if (left > sizes_.memory(0, sizes_.segments()) * kSlack) return kInfinity;
    // A link to each of them, but none in front of the first.
    return devices == 0 ? 0 : sum + last + side.link * static_cast<double>(devices - (used == 0 ? 1 : 0));
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
      now.energy += energy_.prices.sum(device).Of(weights, kv, is_last);
      now.time += time_.prices.sum(device).Of(weights, kv, is_last);
      now.pace = std::max(now.pace, time_.prices.pace(device).Of(weights, kv, is_last));
      if (is_last) return Finish(now), true;
      if (++search_.steps_ > search_.space_.input.policy.exact_steps_max) return false;
      if (time_.prices.Cost(now.time + Rest(used_, end, time_), now.pace) > search_.seconds_max_) continue;
      const double energy = now.energy + Rest(used_, end, energy_);
      if (energy_.prices.Cost(energy, now.pace) >= search_.best_ * (1 - kSlack)) continue;
      if (IsDominated(i, end, now)) continue;
      for (std::size_t next = 0; next < set_.size(); ++next) {
        if ((used_ >> next & 1) != 0) continue;
        Spent linked = now;
        linked.energy += energy_.prices.link_sum(device, set_[next]);
        linked.time += time_.prices.link_sum(device, set_[next]);
        linked.pace = std::max(linked.pace, time_.prices.link_pace(device, set_[next]));
        if (!Take(next, end, linked)) return false;
      }
    }
    return true;
  }

  void Finish(const Spent& spent) {
    const std::size_t last = set_[order_.back()], head = set_[order_.front()];
    if (time_.prices.Cost(spent.time + time_.prices.way_back(last, head), spent.pace) > search_.seconds_max_) return;
    SegmentPlan plan;
    for (const std::size_t i : order_) plan.devices.push_back(set_[i]);
    plan.starts = starts_;
    plan.cost = energy_.prices.Cost(spent.energy + energy_.prices.way_back(last, head), spent.pace);
    (void)search_.Take(plan);
  }

  EnergySearch& search_;
  const PlanSizes& sizes_;
  const Order set_;
  const PlanPrices prices_;  // energy
  const Side energy_, time_;
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
