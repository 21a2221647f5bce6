// Where a local search over many devices may begin: sets chosen as if layers were equal pieces and every device paid
// its shares of links whatever its neighbours are (knapsack.h), then put in an order whose links are short.
//
// For the throughput of k stages, pace and sum should meet: sets are made for paces from where the relaxation of k
// stages has them meet. Numbers of stages are tried in the order of that relaxation's cost.
#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "planner/knapsack.h"
#include "planner/relaxation.h"
#include "planner/search.h"

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBisections = 14;
constexpr std::size_t kCountsTried = 5;  // numbers of stages, for throughput
constexpr double kSlowerPaces[] = {1.0, 1.025, 1.06};
constexpr int kLatencyPaces = 12;
constexpr double kLatencyPaceRatio = 1.15;
constexpr std::size_t kMoreThanUsed = 4;  // stages beyond what the relaxation uses, for latency
constexpr std::size_t kOrdersMax = 24;
constexpr int kTourRoundsMax = 8;

using Order = std::vector<std::size_t>;

// A set of devices that looks good, for its number of stages.
struct Candidate {
  double cost = kInfinity;
  std::size_t prices = 1;  // of plans of so many stages
  Order devices;
};

// Devices as items of a knapsack, under the prices for a number of stages.
class Items {
 public:
  Items(const PlanSizes& sizes, const PlanPrices& prices, const Relaxation::LinkShares& shares, std::size_t devices)
      : sizes_(sizes), prices_(prices) {
    const auto segments = static_cast<double>(sizes.segments());
    const double memory = sizes.memory(0, sizes.segments()) / segments;
    const double weights = sizes.weights(0, sizes.segments()) / segments;
    const double kv = sizes.kv(0, sizes.segments()) / segments;
    cheapest_last_ = kInfinity;
    for (std::size_t d = 0; d < devices; ++d) {
      const StagePrice& sum = prices.sum(d);
      const StagePrice& pace = prices.pace(d);
      KnapsackItem item;
      item.there = sum.fixed + shares.out[d] + shares.in[d];
      item.there_last = sum.fixed + sum.last + shares.back[d];
      item.per_piece = sum.weight * weights + sum.kv * kv;
      items_.push_back(item);
      rooms_.push_back((sizes.room(d) - sizes.sent_extra()) / memory);
      rooms_last_.push_back((sizes.room(d) - sizes.last_extra()) / memory);
      paces_.push_back(pace.weight * weights + pace.kv * kv);
      cheapest_last_ = std::min(cheapest_last_, sum.last);
    }
  }

  const std::vector<KnapsackItem>& At(double pace) {
    for (std::size_t d = 0; d < items_.size(); ++d) {
      const StagePrice& price = prices_.pace(d);
      items_[d].most = Count(rooms_[d], (pace - price.fixed) / paces_[d]);
      items_[d].most_last = Count(rooms_last_[d], (pace - price.fixed - price.last) / paces_[d]);
    }
    return items_;
  }

  // Whether the `count` largest hold everything at this pace.
  bool Hold(double pace, std::size_t count) {
    std::vector<std::size_t> most;
    for (const KnapsackItem& item : At(pace)) most.push_back(item.most);
    const std::size_t taken = std::min(count, most.size());
    const auto middle = most.begin() + static_cast<std::ptrdiff_t>(taken);
    std::partial_sort(most.begin(), middle, most.end(), std::greater<>());
    return std::accumulate(most.begin(), middle, std::size_t{0}) >= sizes_.segments();
  }

  // The least sum at this pace, pieces and devices divisible.
  double LeastSum(double pace) { return Relaxed(pace).first; }
  // And how many devices that takes.
  std::size_t UsedAt(double pace) { return Relaxed(pace).second; }

  double pace_most() const {
    return *std::max_element(paces_.begin(), paces_.end()) * static_cast<double>(sizes_.segments()) * 2;
  }

 private:
  std::pair<double, std::size_t> Relaxed(double pace) {
    std::vector<std::pair<double, double>> fills;  // price of a piece, pieces
    for (const KnapsackItem& item : At(pace)) {
      const auto most = static_cast<double>(item.most);
      if (item.most > 0) fills.emplace_back(item.per_piece + std::max(item.there, 0.0) / most, most);
    }
    std::sort(fills.begin(), fills.end());
    double left = static_cast<double>(sizes_.segments()), sum = cheapest_last_;
    std::size_t used = 0;
    for (const auto& [price, pieces] : fills) {
      const double taken = std::min(left, pieces);
      sum += taken * price;
      left -= taken;
      ++used;
      if (left <= 0) return {sum, used};
    }
    return {kInfinity, items_.size()};
  }

  std::size_t Count(double room, double by_pace) const {
    const double count = std::min({room, by_pace, static_cast<double>(sizes_.segments())}) + 1e-9;
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }

  const PlanSizes& sizes_;
  const PlanPrices& prices_;
  std::vector<KnapsackItem> items_;
  std::vector<double> rooms_, rooms_last_, paces_;  // pieces that fit, and as the last; seconds of the pace for one
  double cheapest_last_ = 0;
};

// The least pace at which so many devices hold everything; infinite if they never do.
double LeastPace(Items& items, std::size_t count) {
  double low = 0, high = items.pace_most();
  if (!items.Hold(high, count)) return kInfinity;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    (items.Hold(middle, count) ? high : low) = middle;
  }
  return high;
}

// Of plans of `stages` stages by `prices`, which are those of `items`.
LikelyWay Promise(Items items, const PlanPrices& prices, std::size_t stages, std::size_t way) {
  double low = LeastPace(items, stages);
  if (low == kInfinity) return {way, kInfinity, kInfinity};
  const auto meets = [&](double pace) { return prices.Cost(items.LeastSum(pace), 0) <= prices.Cost(0, pace); };
  double high = low;
  while (!meets(high) && high < items.pace_most()) high = std::max(high * 2, 1e-9);
  for (int i = 0; i < kBisections && high > low * 1.001; ++i) {
    const double middle = (low + high) / 2;
    (meets(middle) ? high : low) = middle;
  }
  return {way, prices.Cost(0, high), high};
}

class SetStarts {
 public:
  SetStarts(const SearchSpace& space, const Relaxation::LinkShares& shares, const std::vector<LikelyWay>& likely)
      : space_(space), sizes_(space.sizes), shares_(shares), likely_(likely) {}

  std::vector<Order> Run() {
    space_.depends_on_stages() ? ForThroughput() : ForLatency();
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
    std::vector<Order> orders;
    std::vector<Order> known;
    for (Candidate& candidate : found_) {
      std::sort(candidate.devices.begin(), candidate.devices.end());
      if (std::find(known.begin(), known.end(), candidate.devices) != known.end()) continue;
      known.push_back(candidate.devices);
      if (auto order = TourOf(candidate)) orders.push_back(*std::move(order));
      if (orders.size() >= kOrdersMax) break;
    }
    return orders;
  }

 private:
  const PlanPrices& PricesOf(std::size_t stages) const { return space_.prices[stages][likely_[stages].way]; }
  Items ItemsOf(const PlanPrices& prices) const { return {sizes_, prices, shares_, space_.devices()}; }

  void Keep(const PlanPrices& prices, std::size_t k, const KnapsackSet& set, double pace) {
    if (set.items.empty() || k < space_.stages_min || k < 2) return;
    found_.push_back({prices.Cost(set.cost, pace), k, set.items});
  }

  void ForLatency() {
    const PlanPrices& prices = space_.prices[1].front();
    Items items = ItemsOf(prices);
    double pace = LeastPace(items, space_.stages_max);
    for (int i = 0; i < kLatencyPaces && pace < kInfinity; ++i, pace *= kLatencyPaceRatio) {
      const std::size_t used = items.UsedAt(pace);
      const std::size_t count = std::min(space_.stages_max, used + kMoreThanUsed);
      const auto sets = CheapestSets(items.At(pace), sizes_.segments(), count);
      for (std::size_t k = 2; k < sets.size(); ++k) Keep(prices, k, sets[k], pace);
    }
  }

  void ForThroughput() {
    std::vector<std::size_t> counts;  // of stages
    for (std::size_t k = std::max<std::size_t>(space_.stages_min, 2); k <= space_.stages_max; ++k) {
      if (likely_[k].cost < kInfinity) counts.push_back(k);
    }
    std::stable_sort(counts.begin(), counts.end(),
                     [&](std::size_t a, std::size_t b) { return likely_[a].cost < likely_[b].cost; });
    if (counts.size() > kCountsTried) counts.resize(kCountsTried);
    for (const std::size_t k : counts) {
      Items items = ItemsOf(PricesOf(k));
      for (const double slower : kSlowerPaces) {
        const double pace = likely_[k].pace * slower;
        const auto sets = CheapestSets(items.At(pace), sizes_.segments(), k);
        if (sets.size() > k) Keep(PricesOf(k), k, sets[k], pace);
      }
    }
  }

  // The set in an order of short links, with a head that may be one and a last stage that is cheap as such.
  std::optional<Order> TourOf(const Candidate& candidate) const {
    const PlanPrices& prices = PricesOf(candidate.prices);
    const std::size_t devices = space_.devices();
    const auto cost_of = [&](const Order& order) {
      if (!space_.input.devices[order.front()].may_be_head) return kInfinity;
      double cost = prices.way_back(order.back(), order.front()) + prices.sum(order.back()).last;
      for (std::size_t i = 0; i + 1 < order.size(); ++i) cost += prices.link_sum(order[i], order[i + 1]);
      return cost;
    };
    Order order;
    std::vector<bool> in(devices, false);
    // Those that may be head first: the others find a place behind them.
    for (const bool head : {true, false}) {
      for (const std::size_t d : candidate.devices) {
        if (space_.input.devices[d].may_be_head != head) continue;
        if (order.empty() && !head) return std::nullopt;
        InsertBest(order, d, cost_of);
      }
    }
    double cost = cost_of(order);
    for (int round = 0; round < kTourRoundsMax; ++round) {
      const double before = cost;
      for (const std::size_t d : candidate.devices) {
        Order rest = order;
        rest.erase(std::find(rest.begin(), rest.end(), d));
        if (rest.empty() || !space_.input.devices[rest.front()].may_be_head) continue;
        InsertBest(rest, d, cost_of);
        const double found = cost_of(rest);
        if (found >= cost) continue;
        cost = found;
        order = std::move(rest);
      }
      if (cost >= before * (1 - 1e-9)) break;
    }
    return order;
  }

  template <typename CostOf>
  static void InsertBest(Order& order, std::size_t device, const CostOf& cost_of) {
    double best = kInfinity;
    std::size_t best_at = order.size();
    order.insert(order.begin(), device);
    for (std::size_t at = 0;; ++at) {
      const double cost = cost_of(order);
      if (cost < best) {
        best = cost;
        best_at = at;
      }
      if (at + 1 >= order.size()) break;
      std::swap(order[at], order[at + 1]);
    }
    const auto from = order.end() - 1;
    std::rotate(order.begin() + static_cast<std::ptrdiff_t>(best_at), from, order.end());
  }

  const SearchSpace& space_;
  const PlanSizes& sizes_;
  const Relaxation::LinkShares& shares_;
  const std::vector<LikelyWay>& likely_;
  std::vector<Candidate> found_;
};

}  // namespace

std::vector<LikelyWay> LikelyWays(const SearchSpace& space, const Relaxation::LinkShares& shares) {
  std::vector<LikelyWay> likely(space.stages_max + 1);
  if (!space.depends_on_stages()) return likely;
  std::size_t way = 0;
  for (std::size_t k = std::max<std::size_t>(space.stages_min, 1); k <= space.stages_max; ++k) {
    const auto promise = [&](std::size_t one) {
      return Promise(Items(space.sizes, space.prices[k][one], shares, space.devices()), space.prices[k][one], k, one);
    };
    // About as many groups as were best with a stage less; then whichever neighbour is better.
    likely[k] = promise(std::min(way, space.prices[k].size() - 1));
    for (const bool up : {true, false}) {
      const std::size_t first = likely[k].way;
      while (likely[k].cost < kInfinity && (up ? likely[k].way + 1 < space.prices[k].size() : likely[k].way > 0)) {
        const LikelyWay next = promise(up ? likely[k].way + 1 : likely[k].way - 1);
        if (next.cost >= likely[k].cost) break;
        likely[k] = next;
      }
      if (likely[k].way != first) break;
    }
    way = likely[k].way;
  }
  return likely;
}

std::vector<std::vector<std::size_t>> OrdersOfSets(const SearchSpace& space, const Relaxation::LinkShares& shares,
                                                   const std::vector<LikelyWay>& likely) {
  return SetStarts(space, shares, likely).Run();
}

}  // namespace shoal
