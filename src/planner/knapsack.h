// Which of many holders take part: the cheapest sets of exactly one, two, ... that hold so many equal pieces, where one
// of each set is its last, who pays and holds otherwise.
//
// Exact, by dynamic programming over the pieces held. Knows no devices and no order.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

namespace shoal {

inline constexpr std::size_t kKnapsackPiecesMax = 4096;

struct KnapsackItem {
  double there = 0;      // the price of being there at all
  double per_piece = 0;  // and of each piece held
  std::size_t most = 0;  // pieces that it can hold
  double there_last = 0;
  std::size_t most_last = 0;
};

struct KnapsackSet {
  double cost = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> items;  // each holds at least one piece; the last one first
};

// [items_max + 1]: the cheapest set of so many items that holds `pieces` (1 to kKnapsackPiecesMax); infinite where
// there is none. About three times items * items_max * pieces steps.
std::vector<KnapsackSet> CheapestSets(const std::vector<KnapsackItem>& items, std::size_t pieces,
                                      std::size_t items_max);

}  // namespace shoal
