// Against every set of items, every choice of the last one and every way to fill them.
#include "planner/knapsack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "planner/test_instances.h"

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The cheapest filling of these items with all pieces, one each at least; items with the cheapest pieces first.
double Fill(const std::vector<KnapsackItem>& items, const std::vector<std::size_t>& set, std::size_t last,
            std::size_t pieces) {
  double cost = 0;
  std::vector<std::pair<double, std::size_t>> more;
  if (set.size() > pieces) return kInfinity;
  std::size_t left = pieces - set.size();
  for (const std::size_t i : set) {
    const std::size_t most = i == last ? items[i].most_last : items[i].most;
    if (most == 0) return kInfinity;
    cost += (i == last ? items[i].there_last : items[i].there) + items[i].per_piece;
    more.emplace_back(items[i].per_piece, most - 1);
  }
  std::sort(more.begin(), more.end());
  for (const auto& [price, most] : more) {
    const std::size_t taken = std::min(left, most);
    cost += price * static_cast<double>(taken);
    left -= taken;
  }
  return left == 0 ? cost : kInfinity;
}

double CheapestOf(const std::vector<KnapsackItem>& items, std::size_t pieces, std::size_t count) {
  double best = kInfinity;
  for (std::size_t mask = 1; mask < std::size_t{1} << items.size(); ++mask) {
    std::vector<std::size_t> set;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if ((mask >> i & 1) != 0) set.push_back(i);
    }
    if (set.size() != count) continue;
    for (const std::size_t last : set) best = std::min(best, Fill(items, set, last, pieces));
  }
  return best;
}

TEST(CheapestSets, AreTheBest) {
  InstanceRng rng(3);
  int compared = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<KnapsackItem> items(static_cast<std::size_t>(rng.Int(1, 7)));
    for (KnapsackItem& item : items) {
      item.there = rng.Uniform(0, 5);
      item.per_piece = rng.Uniform(0.1, 3);
      item.most = static_cast<std::size_t>(rng.Int(0, 6));
      item.there_last = rng.Uniform(0, 8);
      item.most_last = static_cast<std::size_t>(rng.Int(0, 6));
    }
    const auto pieces = static_cast<std::size_t>(rng.Int(1, 15));
    const std::vector<KnapsackSet> sets = CheapestSets(items, pieces, items.size());
    ASSERT_EQ(sets.size(), items.size() + 1);
    for (std::size_t count = 1; count <= items.size(); ++count) {
      const double best = CheapestOf(items, pieces, count);
      compared += best < kInfinity ? 1 : 0;
      EXPECT_TRUE(sets[count].cost == best || std::abs(sets[count].cost - best) < 1e-9)
          << sets[count].cost << " of " << best;
      EXPECT_EQ(sets[count].items.size(), best < kInfinity ? count : 0);
    }
  }
  EXPECT_GT(compared, 500);
}

TEST(CheapestSets, NothingHoldsTooMuch) {
  const std::vector<KnapsackItem> items = {{1, 1, 2, 1, 2}, {1, 1, 2, 1, 1}};
  const auto sets = CheapestSets(items, 5, 2);
  EXPECT_EQ(sets[1].cost, kInfinity);
  EXPECT_EQ(sets[2].cost, kInfinity);
  EXPECT_TRUE(CheapestSets({}, 5, 3).size() == 1 && CheapestSets(items, 0, 2).size() == 3);
}

}  // namespace
}  // namespace shoal
