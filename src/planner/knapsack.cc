// cost[last][count][held]: the least for `count` of the items so far that hold `held` pieces, without a last one among
// them and with one. An item adds 1 to `most` pieces; the best of a window of predecessors is kept as the window moves.
#include "planner/knapsack.h"

#include <algorithm>
#include <cstdint>

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Table {
 public:
  Table(const std::vector<KnapsackItem>& items, std::size_t pieces, std::size_t items_max)
      : items_(items), pieces_(pieces), items_max_(items_max), window_(pieces + 1) {
    const std::size_t states = (items_max + 1) * (pieces + 1);
    for (const int with_last : {0, 1}) {
      cost_[with_last].assign(states, kInfinity);
      took_[with_last].assign(items.size() * states, {});
    }
    cost_[0][0] = 0;
  }

  std::vector<KnapsackSet> Run() {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const KnapsackItem& item = items_[i];
      const std::size_t most = std::max(item.most, item.most_last);
      // Larger counts first: they build on what was before this item.
      for (std::size_t count = most > 0 ? std::min(i + 1, items_max_) : 0; count > 0; --count) {
        const std::size_t held_most = std::min(held_most_, pieces_);
        Take(i, count, item.there, item.most, 1, 1, held_most);
        Take(i, count, item.there_last, item.most_last, 0, 1, held_most);
        Take(i, count, item.there, item.most, 0, 0, held_most);
      }
      held_most_ += most;
    }
    std::vector<KnapsackSet> sets(items_max_ + 1);
    for (std::size_t k = 1; k <= items_max_; ++k) {
      sets[k].cost = cost_[1][At(k, pieces_)];
      if (sets[k].cost < kInfinity) sets[k].items = ItemsOf(k);
    }
    return sets;
  }

 private:
  struct Took {
    std::uint16_t pieces = 0;  // 0: the item is not in it
    bool as_last = false;
  };
  std::size_t At(std::size_t count, std::size_t held) const { return count * (pieces_ + 1) + held; }

  // Item `i` with 1 to `most` pieces on top of sets of count - 1 (`from` 1: that have a last one; 0: that have none).
  void Take(std::size_t i, std::size_t count, double there, std::size_t most, int from, int to, std::size_t held_most) {
    if (most == 0) return;
    const double per_piece = items_[i].per_piece;
    const double* const known = &cost_[from][At(count - 1, 0)];
    double* const next = &cost_[to][At(count, 0)];
    Took* const took = &took_[to][i * cost_[0].size() + At(count, 0)];
    // Predecessors by what they cost but for the pieces up to here, least first, in window_[first, last).
    std::size_t first = 0, last = 0;
    for (std::size_t held = 1; held <= std::min(held_most + most, pieces_); ++held) {
      if (held - 1 <= held_most && known[held - 1] < kInfinity) {
        const double value = known[held - 1] - per_piece * static_cast<double>(held - 1);
        while (last > first && window_[last - 1].value >= value) --last;
        window_[last++] = {value, held - 1};
      }
      while (first < last && window_[first].held + most < held) ++first;
      if (first == last) continue;
      const double cost = window_[first].value + per_piece * static_cast<double>(held) + there;
      if (cost >= next[held]) continue;
      next[held] = cost;
      took[held] = {static_cast<std::uint16_t>(held - window_[first].held), from != to};
    }
  }

  std::vector<std::size_t> ItemsOf(std::size_t count) const {
    std::vector<std::size_t> found;
    std::size_t held = pieces_;
    int with_last = 1;
    for (std::size_t i = items_.size(); i-- > 0 && count > 0;) {
      const Took took = took_[with_last][i * cost_[0].size() + At(count, held)];
      if (took.pieces == 0) continue;
      --count;
      held -= took.pieces;
      found.push_back(i);
      if (!took.as_last) continue;
      with_last = 0;
      std::swap(found.front(), found.back());
    }
    return found;
  }

  const std::vector<KnapsackItem>& items_;
  const std::size_t pieces_, items_max_;
  std::size_t held_most_ = 0;    // by all items so far
  std::vector<double> cost_[2];  // [items_max + 1, pieces + 1]
  std::vector<Took> took_[2];    // [items] times as many: what the item added when it was added last
  struct Predecessor {
    double value = 0;
    std::size_t held = 0;
  };
  std::vector<Predecessor> window_;
};

}  // namespace

std::vector<KnapsackSet> CheapestSets(const std::vector<KnapsackItem>& items, std::size_t pieces,
                                      std::size_t items_max) {
  items_max = std::min(items_max, items.size());
  if (items_max == 0 || pieces == 0 || pieces > kKnapsackPiecesMax) return std::vector<KnapsackSet>(items_max + 1);
  return Table(items, pieces, items_max).Run();
}

}  // namespace shoal
