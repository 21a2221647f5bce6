// What is kept of stages that hold different lengths; and against trying everything.
#include "schedule/keep_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/rng.h"

namespace shoal {
namespace {

using testing::ElementsAre;

std::vector<StageHolding> Holdings(const std::vector<Position>& lengths, Position sent_from = 0) {
  std::vector<StageHolding> stages;
  for (const Position length : lengths) stages.push_back({length, std::min(sent_from, length), 10});
  return stages;
}

TEST(KeepPlanTest, ALostStageIsFilledFromTheLogOfTheOneBefore) {
  EXPECT_THAT(PlanKeep(Holdings({1000, 0, 1000}), 1000, 64).keep, ElementsAre(1000, 0, 1000));
  EXPECT_THAT(PlanKeep(Holdings({1000, 0, 0, 1000}), 1000, 64).keep, ElementsAre(1000, 0, 0, 1000));
  EXPECT_THAT(PlanKeep(Holdings({0, 1000, 1000}), 1000, 64).keep, ElementsAre(0, 1000, 1000));
  EXPECT_THAT(PlanKeep(Holdings({0, 1000, 0}), 1000, 64).keep, ElementsAre(0, 1000, 0));
}

TEST(KeepPlanTest, WhereTheLogIsGoneTheStageBeforeComputesAgain) {
  EXPECT_THAT(PlanKeep(Holdings({1000, 0, 1000}, 200), 1000, 64).keep, ElementsAre(0, 0, 1000));
  std::vector<StageHolding> stages = Holdings({1000, 1000, 0, 1000});
  stages[1].sent_from = 1;
  EXPECT_THAT(PlanKeep(stages, 1000, 64).keep, ElementsAre(1000, 0, 0, 1000));
  // What is lacked begins where the log does.
  EXPECT_THAT(PlanKeep(Holdings({1000, 200, 1000}, 200), 1000, 64).keep, ElementsAre(1000, 200, 1000));
}

// A row or two are computed faster with the next ones on all stages than alone on one.
TEST(KeepPlanTest, ALittleMissingIsNotWorthMicroBatchesOfItsOwn) {
  EXPECT_THAT(PlanKeep(Holdings({1000, 999, 999}), 1001, 64).keep, ElementsAre(999, 999, 999));
  EXPECT_THAT(PlanKeep(Holdings({7, 7, 7}), 9, 64).keep, ElementsAre(7, 7, 7));
}

// Every choice of lengths, priced by the rules in the header.
double Cheapest(const std::vector<StageHolding>& stages, Position rows, std::int32_t batch_rows,
                const std::vector<Position>& lengths, std::vector<Position>& keep) {
  const std::size_t k = keep.size();
  if (k == stages.size()) {
    std::vector<StageHolding> kept = stages;
    for (std::size_t i = 0; i < k; ++i) kept[i].length = keep[i];
    // The price of exactly this choice: no stage can keep less where it is all there is, nor more.
    double cost = 0;
    for (std::size_t i = 0; i < k; ++i) {
      cost += (rows - keep[i]) * (stages[i].layers + (i == 0 ? 0.0 : 1.0));
      if (i == 0 || keep[i] == keep[i - 1]) continue;
      if (keep[i] < keep[i - 1] && stages[i - 1].sent_from > keep[i]) return 1e18;
      const StageHolding& alone = keep[i] < keep[i - 1] ? stages[i] : stages[i - 1];
      cost += (std::abs(keep[i] - keep[i - 1]) + batch_rows - 1) / batch_rows * 4.0 * alone.layers;
    }
    return cost;
  }
  double best = 1e18;
  for (const Position length : lengths) {
    if (length > stages[k].length) continue;
    keep.push_back(length);
    best = std::min(best, Cheapest(stages, rows, batch_rows, lengths, keep));
    keep.pop_back();
  }
  return best;
}

TEST(KeepPlanTest, NothingIsCheaper) {
  Rng rng(4);
  for (int i = 0; i < 3000; ++i) {
    const auto rows = static_cast<Position>(1 + rng.Below(300));
    std::vector<StageHolding> stages(1 + rng.Below(5));
    std::vector<Position> lengths = {0};
    for (StageHolding& stage : stages) {
      stage.length = rng.Below(3) == 0 ? 0 : static_cast<Position>(rng.Below(rows + 1));
      stage.sent_from = rng.Below(2) == 0 ? 0 : static_cast<Position>(rng.Below(stage.length + 1));
      stage.layers = static_cast<std::int32_t>(1 + rng.Below(12));
      lengths.push_back(stage.length);
    }
    const auto batch_rows = static_cast<std::int32_t>(1 + rng.Below(64));
    const KeepPlan plan = PlanKeep(stages, rows, batch_rows);
    std::vector<Position> keep;
    ASSERT_DOUBLE_EQ(plan.cost, Cheapest(stages, rows, batch_rows, lengths, keep)) << "case " << i;
    for (std::size_t k = 0; k < stages.size(); ++k) {
      ASSERT_LE(plan.keep[k], stages[k].length);
      if (k == 0 || plan.keep[k] >= plan.keep[k - 1]) continue;
      ASSERT_LE(stages[k - 1].sent_from, plan.keep[k]);
    }
    ASSERT_LE(plan.cost, FillCost(stages, 0, rows));
  }
}

}  // namespace
}  // namespace shoal
