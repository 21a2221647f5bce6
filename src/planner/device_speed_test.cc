// What measured stages, passes of several rows and rations come to in seconds.
#include "planner/device_speed.h"

#include <gtest/gtest.h>

#include "planner/cost_model.h"

namespace shoal {
namespace {

// 1 GB/s in all things but those named.
MeasuredStageSpeed Speed() {
  return {1e-4, 1e9, 0.8e9, 0.625e9, 0.5e9, 0.1e9, 1e9, 4e9, 2e9, 0.625e9, 0.4e9, 0.25e9, 3e-4};
}

TEST(BytePrices, GoThroughWhatWasMeasured) {
  const BytePrices prices(MeasuredDevice(Speed()));
  EXPECT_DOUBLE_EQ(prices.Weights(1), 1e-9);
  EXPECT_DOUBLE_EQ(prices.Weights(2), 1.25e-9);
  EXPECT_DOUBLE_EQ(prices.Weights(4), 1.6e-9);
  EXPECT_DOUBLE_EQ(prices.Weights(6), 1.8e-9);
  EXPECT_DOUBLE_EQ(prices.Weights(kGroupRows), 2e-9);
  EXPECT_DOUBLE_EQ(prices.Weights(kPassRows), 10e-9);
  EXPECT_DOUBLE_EQ(prices.Weights(1000), 10e-9);
  EXPECT_DOUBLE_EQ(prices.Output(1), 0.5e-9);
  EXPECT_DOUBLE_EQ(prices.Output(1.5), 1.05e-9);
  EXPECT_DOUBLE_EQ(prices.Output(2), 1.6e-9);
  EXPECT_DOUBLE_EQ(prices.Output(4), 2.5e-9);
  EXPECT_DOUBLE_EQ(prices.Output(kGroupRows), 4e-9);
  EXPECT_GT(prices.Output(2 * kGroupRows), 7e-9) << "each further row costs as much";
  EXPECT_DOUBLE_EQ(BytePrices(MeasuredDevice(Speed(), 0.5)).Weights(1), 2e-9);
}

TEST(BytePrices, MoreRowsNeverCostLessWhateverWasMeasured) {
  MeasuredStageSpeed noisy = Speed();
  noisy.pair_bytes_s = 2e9;  // two rows faster than one, four slower than eight
  noisy.quad_bytes_s = 0.3e9;
  noisy.output_pair_bytes_s = 0.1e9;
  const BytePrices prices(MeasuredDevice(noisy));
  for (double rows = 1; rows < 70; rows += 0.5) {
    EXPECT_LE(prices.Weights(rows), prices.Weights(rows + 0.5)) << rows;
    EXPECT_LE(prices.Output(rows), prices.Output(rows + 0.5)) << rows;
  }
}

TEST(BytePrices, WithoutFewRowsALineFromOneRowToEight) {
  MeasuredStageSpeed speed = Speed();
  speed.pair_bytes_s = speed.quad_bytes_s = speed.output_pair_bytes_s = speed.output_quad_bytes_s = 0;
  const BytePrices prices(MeasuredDevice(speed));
  EXPECT_NEAR(prices.Weights(4.5), 1.5e-9, 1e-15);
  EXPECT_NEAR(prices.Output(4.5), 2.25e-9, 1e-15);
}

TEST(BytePrices, WithoutAGroupALineFromOneRowToMany) {
  PlanDevice device;
  device.decode_bytes_s = 1e9;
  device.prefill_bytes_s = 0.1e9;
  device.kv_bytes_s = 1e9;
  const BytePrices prices(device);
  EXPECT_NEAR(prices.Weights(32.5), 5.5e-9, 1e-15);
  EXPECT_DOUBLE_EQ(prices.Output(1), 1e-9);
  EXPECT_LT(prices.kv_many, prices.kv);
}

TEST(SecondsOf, IsWhatThePassesOfAPlanCost) {
  const PlanDevice device = MeasuredDevice(Speed());
  const BytePrices prices(device);
  const StageLoad load{1e6, 1e3, 2e6};
  PassCounts counts;  // passes of 1, 5 and 64 rows; the first two with an output for each row
  counts.passes = 3;
  counts.rows = {2, 4, 1 + 4, kPassRows - kGroupRows};
  counts.kv_rows = 6 * 100;
  counts.kv_many_rows = 64 * 100;
  counts.output_passes = 2;
  counts.output_rows = {1, 2, 1, 0};
  const double expected = 3 * 1e-4 + 1e6 * (prices.Weights(1) + prices.Weights(5) + prices.Weights(kPassRows)) +
                          1e3 * (600 * 1e-9 + 6400 * 0.25e-9) + 2e6 * (prices.Output(1) + prices.Output(5));
  EXPECT_NEAR(SecondsOf(device, load, counts), expected, expected * 1e-12);
}

TEST(UnderRation, LongWorkTakesSoMuchLonger) {
  const PlanDevice device = UnderRation(MeasuredDevice(Speed()), 0.5);
  EXPECT_EQ(device.ration, 0.5);
  EXPECT_DOUBLE_EQ(BytePrices(device).Weights(kPassRows), 20e-9);
  EXPECT_DOUBLE_EQ(BytePrices(device).Output(1), 1e-9);
  const StageLoad load{1e6, 1e3, 2e6};
  PassCounts counts;
  counts.passes = counts.output_passes = 2;
  counts.rows = {1, 2, 2, 0};
  counts.kv_rows = 100;
  const PlanDevice whole = MeasuredDevice(Speed());
  EXPECT_GT(whole.token_s, 0);
  // Its network threads live on the same ration.
  EXPECT_DOUBLE_EQ(SecondsOf(device, load, counts),
                   2 * (SecondsOf(whole, load, counts) + counts.passes * whole.token_s));
  EXPECT_DOUBLE_EQ(UnderRation(whole, 1).pass_overhead_s, whole.pass_overhead_s);
}

PlanInput TwoStages(double ration) {
  PlanInput input;
  input.model.layer_bytes.assign(2, 1'000'000);
  input.model.kv_bytes.assign(2, 0);
  input.model.cuts = {1};
  PlanDevice device;
  device.memory_bytes = 1ULL << 30;
  device.decode_bytes_s = device.prefill_bytes_s = device.kv_bytes_s = 1e9;
  input.devices = {device, device};
  input.devices[1].ration = ration;
  input.links.assign(4, {0, 1e12});
  return input;
}

TEST(Predict, ShortWorkDoesNotFeelARationUntilItTakesAllOfIt) {
  const std::vector<PlanStage> both = {{0, {0, 1}}, {1, {1, 2}}};
  const auto token_s = [&](double ration) { return 1 / JudgePlan(TwoStages(ration), both)->tokens_s; };
  EXPECT_NEAR(token_s(1), 2e-3, 1e-8);
  // The second device's 1 ms is 0.8 ms of work: it waits a millisecond for the first in any case.
  EXPECT_NEAR(token_s(0.8), 1.8e-3, 1e-8);
  // 1 ms of its ration for each token at least.
  EXPECT_NEAR(1 / JudgePlan(TwoStages(0.5), {{1, {0, 2}}})->tokens_s, 2e-3, 1e-8);
}

}  // namespace
}  // namespace shoal
