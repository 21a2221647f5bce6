// Local search over ordered sets of devices; for each, layers dealt out by a rule.
//
// Dealing: for a few paces, each device may hold what its memory and that pace allow; those that are cheapest a byte
// get as much as they may, the others one segment at least. Then segments move between stages while that helps. Sets
// grow from the devices that are best by several measures; a step adds, drops, replaces or moves one device. Work is
// counted, not timed, so that the answer depends on the input alone.
#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "planner/relaxation.h"
#include "planner/search.h"

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kBetter = 1 - 1e-9;
constexpr std::int64_t kWorkMax = 100'000;  // stages dealt to, over all starts
constexpr double kPaces[] = {1.0, 1.03, 1.08, 1.15, 1.3, 1.6, 2.2, 4.0, 1e9};
constexpr std::size_t kStartsImproved = 8;
constexpr int kBisections = 24;
constexpr int kRepairsMax = 64;

using Order = std::vector<std::size_t>;

class Bounded {
 public:
  explicit Bounded(const SearchSpace& space)
      : space_(space),
        sizes_(space.sizes),
        shares_of_one_(Relaxation(space.sizes, space.prices[1].back(), space.devices()).LinkSharesAt(kInfinity)),
        likely_(LikelyWays(space, shares_of_one_)),
        best_(space.stages_max + 1) {
    for (std::size_t k = 0; k <= space.stages_max; ++k) {
      if (k <= 1 || space.depends_on_stages()) relaxed_.emplace_back(space.sizes, PricesOf(k), space.devices());
    }
  }

  PlansByStages Run() {
    for (std::size_t d = 0; d < space_.devices(); ++d) {
      if (!space_.input.devices[d].may_be_head || !sizes_.Fits(d, 0, sizes_.segments())) continue;
      SegmentPlan single{{d}, {0}, 0};
      single.cost = CostOf(space_, single);
      Keep(single);
    }
    // All starts as they are; then the best of them improved.
    std::vector<std::pair<double, Order>> starts;
    std::vector<Order> orders = Starts();
    if (space_.devices() > kExactDevicesMax) {
      for (Order& order : OrdersOfSets(space_, shares_of_one_, likely_)) orders.push_back(std::move(order));
    }
    for (Order& order : orders) {
      const double cost = Deal(order);
      starts.emplace_back(cost, std::move(order));
    }
    std::stable_sort(starts.begin(), starts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const std::size_t improved = std::min(starts.size(), kStartsImproved);
    for (std::size_t i = 0; i < improved; ++i) {
      work_max_ = work_ + (kWorkMax - work_) / static_cast<std::int64_t>(improved - i);
      Improve(starts[i].second);
    }
    for (SegmentPlan& plan : best_) {
      Polish(plan);
      if (!plan.devices.empty()) plan.cost = CostOf(space_, plan);
    }
    return std::move(best_);
  }

 private:
  const PlanPrices& PricesOf(std::size_t stages) const { return space_.prices[stages][likely_[stages].way]; }
  const Relaxation& RelaxedOf(std::size_t stages) const {
    return relaxed_[space_.depends_on_stages() ? stages : relaxed_.size() - 1];
  }

  // --- Dealing out layers --------------------------------------------------------------------------------------------

  struct Share {
    std::size_t device = 0;
    double room = 0, per_segment_pace = 0, late = 0, fixed = 0, density = 0;
    std::size_t most = 0;  // segments at the pace in question
    std::size_t dealt = 0;
  };

  std::vector<Share> SharesOf(const Order& order) const {
    const PlanPrices& prices = PricesOf(order.size());
    const auto segments = static_cast<double>(sizes_.segments());
    std::vector<Share> shares;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::size_t d = order[i];
      const bool is_last = i + 1 == order.size();
      Share share;
      share.device = d;
      share.room = sizes_.room(d) - (i == 0 ? sizes_.head_extra() : 0);
      share.room -= is_last ? sizes_.last_extra() : sizes_.sent_extra();
      share.room = share.room / (sizes_.memory(0, sizes_.segments()) / segments);  // in mean segments
      const StagePrice& pace = prices.pace(d);
      share.per_segment_pace =
          (pace.weight * sizes_.weights(0, sizes_.segments()) + pace.kv * sizes_.kv(0, sizes_.segments())) / segments;
      share.fixed = pace.fixed;
      share.late = is_last ? pace.last : 0;
      share.density = RelaxedOf(order.size()).sum_density(d);
      shares.push_back(share);
    }
    return shares;
  }

  static std::size_t CountAt(const Share& share, double pace, std::size_t segments) {
    const double by_pace = (pace - share.fixed - share.late) / share.per_segment_pace;
    const double count = std::min({share.room, by_pace, static_cast<double>(segments)}) + 1e-9;
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }

  // The least pace at which the shares hold all segments; infinite if none is enough.
  double LeastPace(const std::vector<Share>& shares) const {
    const std::size_t segments = sizes_.segments();
    const auto holds = [&](double pace) {
      std::size_t held = 0;
      for (const Share& share : shares) {
        const std::size_t count = CountAt(share, pace, segments);
        if (count == 0) return false;
        held += count;
      }
      return held >= segments;
    };
    double high = 0;
    for (const Share& share : shares) {
      high = std::max(high, share.fixed + share.late + share.per_segment_pace * static_cast<double>(segments));
    }
    if (!holds(high)) return kInfinity;
    double low = 0;
    for (int i = 0; i < kBisections; ++i) {
      const double middle = (low + high) / 2;
      (holds(middle) ? high : low) = middle;
    }
    return high;
  }

  // Fills `dealt`: everyone one segment, then the cheapest as much as they may.
  bool Distribute(std::vector<Share>& shares) const {
    std::size_t left = sizes_.segments();
    std::vector<std::size_t> by_density(shares.size());
    std::iota(by_density.begin(), by_density.end(), std::size_t{0});
    std::sort(by_density.begin(), by_density.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(shares[a].density, a) < std::pair(shares[b].density, b);
    });
    if (shares.size() > left) return false;
    for (Share& share : shares) {
      if (share.most == 0) return false;
      share.dealt = 1;
    }
    left -= shares.size();
    for (const std::size_t i : by_density) {
      const std::size_t more = std::min(left, shares[i].most - 1);
      shares[i].dealt += more;
      left -= more;
    }
    return left == 0;
  }

  // A plan of the dealt segments; where one does not fit after all (layers differ), it gets less and the rest is dealt
  // again.
  bool Lay(std::vector<Share>& shares, SegmentPlan& plan) const {
    for (int repair = 0; repair < kRepairsMax; ++repair) {
      if (!Distribute(shares)) return false;
      plan.devices.clear();
      plan.starts.clear();
      std::size_t at = 0, misfit = shares.size();
      for (std::size_t i = 0; i < shares.size(); ++i) {
        plan.devices.push_back(shares[i].device);
        plan.starts.push_back(at);
        if (!sizes_.Fits(shares[i].device, at, at + shares[i].dealt)) misfit = i;
        at += shares[i].dealt;
      }
      if (misfit == shares.size()) return true;
      shares[misfit].most = shares[misfit].dealt - 1;
    }
    return false;
  }

  // The cost of the best way found to deal layers to `order`; remembers the plan.
  double Deal(const Order& order) {
    if (order.size() < space_.stages_min || order.size() > space_.stages_max ||
        !space_.input.devices[order[0]].may_be_head) {
      return kInfinity;
    }
    work_ += static_cast<std::int64_t>(order.size());
    std::vector<Share> shares = SharesOf(order);
    const double least = LeastPace(shares);
    if (least == kInfinity) return kInfinity;
    double best = kInfinity;
    for (const double factor : kPaces) {
      for (Share& share : shares) share.most = CountAt(share, least * factor, sizes_.segments());
      SegmentPlan plan;
      if (!Lay(shares, plan)) continue;
      plan.cost = CostOf(sizes_, PricesOf(order.size()), plan);
      best = std::min(best, plan.cost);
      Keep(plan);
    }
    return best;
  }

  void Keep(const SegmentPlan& plan) {
    SegmentPlan& known = best_[plan.devices.size()];
    if (known.devices.empty() || plan.cost < known.cost * kBetter) known = plan;
  }

  // --- Which devices, in which order ---------------------------------------------------------------------------------

  double HopOf(std::size_t stages, std::size_t from, std::size_t to) const {
    return PricesOf(stages).link_sum(from, to);
  }

  // `device` where it lengthens the way least; not before the head if it may not be one.
  Order Insert(const Order& order, std::size_t device) const {
    if (order.empty()) return {device};
    const std::size_t stages = std::min(order.size() + 1, space_.stages_max);
    std::size_t best_at = order.size();
    double best = kInfinity;
    for (std::size_t at = space_.input.devices[device].may_be_head ? 0 : 1; at <= order.size(); ++at) {
      double longer = 0;
      if (at > 0) longer += HopOf(stages, order[at - 1], device);
      if (at < order.size()) longer += HopOf(stages, device, order[at]);
      if (at > 0 && at < order.size()) longer -= HopOf(stages, order[at - 1], order[at]);
      if (longer < best) {
        best = longer;
        best_at = at;
      }
    }
    Order longer = order;
    longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(best_at), device);
    return longer;
  }

  // The first devices by several measures, as few as hold the model and some more.
  std::vector<Order> Starts() const {
    const Relaxation& relaxed = relaxed_.back();
    std::vector<Order> starts;
    const auto add = [&](auto key) {
      Order sorted(space_.devices());
      std::iota(sorted.begin(), sorted.end(), std::size_t{0});
      std::sort(sorted.begin(), sorted.end(),
                [&](std::size_t a, std::size_t b) { return std::pair(key(a), a) < std::pair(key(b), b); });
      double held = 0;
      std::size_t enough = 0;
      const double need = sizes_.memory(0, sizes_.segments()) + sizes_.last_extra();
      while (enough < sorted.size() && (held < need || enough < space_.stages_min)) {
        held += relaxed.capacity(sorted[enough++]);
      }
      for (std::size_t count = enough; count <= std::min(sorted.size(), space_.stages_max);
           count = std::max(count + 1, count * 5 / 4)) {
        Order order;
        for (std::size_t i = 0; i < count; ++i) order = Insert(order, sorted[i]);
        starts.push_back(std::move(order));
        if (!space_.depends_on_stages() && count >= enough + 2) break;
      }
    };
    add([&](std::size_t d) { return relaxed.full_density(d); });
    add([&](std::size_t d) { return -relaxed.capacity(d); });
    add([&](std::size_t d) { return relaxed.pace_density(d); });
    return starts;
  }

  // Steps to better neighbours until there is none or the work is done.
  void Improve(Order order) {
    double cost = Deal(order);
    bool better = true;
    while (better && work_ < work_max_) {
      better = Step(order, cost, Additions(order)) || Step(order, cost, Removals(order)) ||
               Step(order, cost, Moves(order)) || Step(order, cost, Replacements(order));
    }
  }

  bool Step(Order& order, double& cost, const std::vector<Order>& neighbours) {
    const Order* best = nullptr;
    for (const Order& neighbour : neighbours) {
      if (work_ >= work_max_) break;
      const double found = Deal(neighbour);
      if (found < cost * kBetter) {
        cost = found;
        best = &neighbour;
      }
    }
    if (best == nullptr) return false;
    order = Order(*best);
    return true;
  }

  std::vector<Order> Additions(const Order& order) const {
    std::vector<Order> found;
    if (order.size() >= space_.stages_max) return found;
    for (std::size_t d = 0; d < space_.devices(); ++d) {
      if (std::find(order.begin(), order.end(), d) == order.end()) found.push_back(Insert(order, d));
    }
    return found;
  }

  static std::vector<Order> Removals(const Order& order) {
    std::vector<Order> found;
    for (std::size_t i = 0; order.size() > 1 && i < order.size(); ++i) {
      found.push_back(order);
      found.back().erase(found.back().begin() + static_cast<std::ptrdiff_t>(i));
    }
    return found;
  }

  // One device to another place: the head and the last stage cost differently, and links do.
  static std::vector<Order> Moves(const Order& order) {
    std::vector<Order> found;
    for (std::size_t from = 0; from < order.size(); ++from) {
      for (std::size_t to = 0; to < order.size(); ++to) {
        if (to == from || (order.size() > 16 && to != 0 && to + 1 != order.size())) continue;
        Order moved = order;
        moved.erase(moved.begin() + static_cast<std::ptrdiff_t>(from));
        moved.insert(moved.begin() + static_cast<std::ptrdiff_t>(to), order[from]);
        found.push_back(std::move(moved));
      }
    }
    return found;
  }

  std::vector<Order> Replacements(const Order& order) const {
    std::vector<Order> found;
    for (std::size_t i = 0; i < order.size(); ++i) {
      for (std::size_t d = 0; d < space_.devices(); ++d) {
        if (std::find(order.begin(), order.end(), d) != order.end()) continue;
        Order replaced = order;
        replaced[i] = d;
        found.push_back(std::move(replaced));
      }
    }
    return found;
  }

  // Segments from one stage to another, those between shifted, while that is cheaper.
  void Polish(SegmentPlan& plan) const {
    if (plan.devices.size() < 2) return;
    const PlanPrices& prices = PricesOf(plan.devices.size());
    bool better = true;
    for (int round = 0; better && round < kRepairsMax; ++round) {
      better = false;
      for (std::size_t from = 0; from < plan.devices.size(); ++from) {
        for (std::size_t to = 0; to < plan.devices.size(); ++to) {
          if (from == to) continue;
          SegmentPlan moved = plan;
          for (std::size_t i = std::min(from, to) + 1; i <= std::max(from, to); ++i) {
            moved.starts[i] += from < to ? std::size_t(-1) : std::size_t{1};
          }
          if (!IsPlan(moved)) continue;
          moved.cost = CostOf(sizes_, prices, moved);
          if (moved.cost >= plan.cost * kBetter) continue;
          plan = std::move(moved);
          better = true;
        }
      }
    }
  }

  bool IsPlan(const SegmentPlan& plan) const {
    for (std::size_t i = 0; i < plan.devices.size(); ++i) {
      const std::size_t end = i + 1 < plan.devices.size() ? plan.starts[i + 1] : sizes_.segments();
      if (end <= plan.starts[i] || end > sizes_.segments() || !sizes_.Fits(plan.devices[i], plan.starts[i], end)) {
        return false;
      }
    }
    return true;
  }

  const SearchSpace& space_;
  const PlanSizes& sizes_;
  const Relaxation::LinkShares shares_of_one_;  // at any pace
  const std::vector<LikelyWay> likely_;
  std::vector<Relaxation> relaxed_;
  PlansByStages best_;
  std::int64_t work_ = 0, work_max_ = kWorkMax;
};

}  // namespace

SearchSpace MakeSearchSpace(const PlanInput& input, const PlanSizes& sizes) {
  SearchSpace space{input, sizes, {}, 1, std::min(input.devices.size(), sizes.segments())};
  if (input.policy.stages_max > 0) {
    space.stages_max = std::min(space.stages_max, static_cast<std::size_t>(input.policy.stages_max));
  }
  space.stages_min = static_cast<std::size_t>(std::max(input.policy.stages_min, 1));
  space.prices.resize(space.stages_max + 1);
  for (std::size_t k = 0; k <= space.stages_max; ++k) {
    if (!space.depends_on_stages()) {
      space.prices[k].emplace_back(input);
      continue;
    }
    for (const StreamGroups& groups : GroupingsOf(input.workload, std::max<std::size_t>(k, 1))) {
      space.prices[k].emplace_back(input, groups);
    }
  }
  return space;
}

double CostOf(const SearchSpace& space, const SegmentPlan& plan) {
  double best = kInfinity;
  for (const PlanPrices& prices : space.prices[plan.devices.size()]) {
    best = std::min(best, CostOf(space.sizes, prices, plan));
  }
  return best;
}

PlansByStages SearchBounded(const SearchSpace& space) { return Bounded(space).Run(); }

}  // namespace shoal
