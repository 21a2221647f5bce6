// Sizes are learned from what they cost, whatever the shape of that cost is.
#include "schedule/decode_groups.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <vector>

namespace shoal {
namespace {

using Us = std::function<std::vector<double>(std::int32_t rows)>;  // of each stage

std::vector<StageTiming> Timings(const std::vector<double>& us) {
  std::vector<StageTiming> timings;
  for (const double one : us) timings.push_back({static_cast<std::uint32_t>(one), 1'000'000, 0});
  return timings;
}

// The size in use after `rounds` micro-batches, each of the size asked for.
std::int32_t Settle(DecodeGroups& groups, std::int32_t decoders, const Us& us, int rounds = 200,
                    std::int32_t rows_max = 64) {
  for (int i = 0; i < rounds; ++i) {
    const std::int32_t rows = groups.Rows(decoders, rows_max);
    EXPECT_GE(rows, 1);
    EXPECT_LE(rows, std::min(decoders, rows_max));
    groups.Learn(rows, Timings(us(rows)));
  }
  return groups.Rows(decoders, rows_max);
}

TEST(DecodeGroups, WeightsThatAreReadOnceFavourOneGroupAStage) {
  DecodeGroups groups(2, 16);
  EXPECT_EQ(Settle(groups, 8, [](std::int32_t rows) { return std::vector<double>{900.0 + rows, 1000.0 + rows}; }), 4);
}

TEST(DecodeGroups, KernelsBestAtOneRowFavourOneRow) {
  DecodeGroups groups(2, 16);
  const Us us = [](std::int32_t rows) {
    const double one = rows == 1 ? 2850 : 2900.0 * rows + 1000;
    return std::vector<double>{one, one};
  };
  EXPECT_EQ(Settle(groups, 8, us), 1);
}

TEST(DecodeGroups, OneHeavyStageMayFavourAllTogether) {
  DecodeGroups groups(2, 16);
  const Us us = [](std::int32_t rows) { return std::vector<double>{100.0 * rows, 50'000.0 + 100 * rows}; };
  EXPECT_EQ(Settle(groups, 8, us), 8);
}

TEST(DecodeGroups, NeverMoreGroupsThanAllowed) {
  DecodeGroups groups(2, 4);
  EXPECT_EQ(Settle(groups, 32, [](std::int32_t rows) { return std::vector<double>{100.0 * rows * rows, 1.0}; }), 8);
}

TEST(DecodeGroups, RowsThatDoNotFitAreNotAskedFor) {
  DecodeGroups groups(1, 16);
  EXPECT_EQ(Settle(
                groups, 8, [](std::int32_t) { return std::vector<double>{1000.0}; }, 200, 3),
            3);
}

TEST(DecodeGroups, ADifferentCostLaterIsFoundOut) {
  DecodeGroups groups(1, 16);
  const Us together = [](std::int32_t) { return std::vector<double>{1000.0}; };
  const Us alone = [](std::int32_t rows) { return std::vector<double>{rows == 1 ? 500.0 : 9000.0}; };
  EXPECT_EQ(Settle(groups, 8, together), 8);
  EXPECT_EQ(Settle(groups, 8, alone, 20'000), 1);
}

TEST(DecodeGroups, AnswersThatGrowAndMomentsOfNoiseChangeNothing) {
  DecodeGroups groups(2, 16);
  int batches = 0;
  const Us us = [&](std::int32_t rows) {
    const double longer = 1 + std::min(++batches, 4000) / 2000.0, held_up = batches % 9 == 8 ? 3 : 1;
    const double one = (rows == 1 ? 3300 : 2950.0 * rows) * longer * held_up;  // one row alone: 3 % more than its share
    return std::vector<double>{one, one};
  };
  ASSERT_EQ(Settle(groups, 8, us, 60), 4);
  std::set<std::int32_t> used;
  for (int i = 0; i < 3000; ++i) {
    used.insert(groups.Rows(8, 64));
    groups.Learn(groups.Rows(8, 64), Timings(us(groups.Rows(8, 64))));
  }
  EXPECT_EQ(used, std::set<std::int32_t>{4});
}

TEST(DecodeGroups, MoreRowsAreNotTriedWhereTheyCannotBeBetter) {
  DecodeGroups groups(2, 16);
  std::set<std::int32_t> used;
  for (int i = 0; i < 100; ++i) {
    const std::int32_t rows = groups.Rows(8, 64);
    used.insert(rows);
    groups.Learn(rows, Timings({1000.0 * rows, 1000.0 * rows}));
  }
  EXPECT_EQ(used, (std::set<std::int32_t>{1, 2, 4}));
}

TEST(DecodeGroups, TimesOfNothingDoNoHarm) {
  DecodeGroups groups(2, 16);
  EXPECT_EQ(Settle(
                groups, 8,
                [](std::int32_t) {
                  return std::vector<double>{0.0, 0.0};
                },
                20'000),
            4);
}

TEST(DecodeGroups, ASizeThatNeverComesBackIsGivenUp) {
  DecodeGroups groups(2, 16);
  std::set<std::int32_t> late;
  for (int i = 0; i < 4000; ++i) {
    const std::int32_t rows = groups.Rows(8, 64);
    if (rows != 8) groups.Learn(rows, Timings({100.0, 100.0}));  // eight never come together
    if (i > 2000) late.insert(rows);
  }
  EXPECT_FALSE(late.contains(8));
}

TEST(DecodeGroups, OneGenerationIsOneRow) {
  DecodeGroups groups(3, 16);
  EXPECT_EQ(groups.Rows(1, 64), 1);
  groups.Learn(1, {});
  EXPECT_EQ(groups.Rows(1, 64), 1);
}

}  // namespace
}  // namespace shoal
