// Layers over devices by speed, links and memory.
#include "cluster/split.h"

#include <gtest/gtest.h>

#include "base/units.h"

namespace shoal {
namespace {

ModelShape Shape(std::int32_t layers, std::uint64_t bytes, std::uint64_t output) {
  ModelShape shape;
  shape.layer_bytes.assign(static_cast<std::size_t>(layers), bytes);
  shape.kv_bytes.assign(static_cast<std::size_t>(layers), 1);
  shape.output_bytes = output;
  for (std::int32_t cut = 1; cut < layers; ++cut) shape.cuts.push_back(cut);
  return shape;
}

// A device that was measured at `speed` GB/s; 0: not measured, one core.
SplitDevice Device(int number, std::uint64_t memory, double speed) {
  SplitDevice device;
  device.name = "d" + std::to_string(number);
  device.memory_bytes = memory;
  device.facts.cores = 1;
  if (speed > 0) {
    device.facts.memory_bytes_s = speed * 1e9;
    device.facts.speeds = {{"Q4_0", speed * 1e9, speed * 3e8, 1e-9}};
  }
  return device;
}

const PlaceOptions kNoContext = [] {
  PlaceOptions options;
  options.context_tokens = 1;
  return options;
}();

SplitInput Input(ModelShape shape, std::vector<SplitDevice> devices, std::int32_t stages = 0,
                 std::vector<LayerRange> ranges = {}) {
  SplitInput input;
  input.shape = std::move(shape);
  input.quantization = "Q4_0";
  input.devices = std::move(devices);
  input.links.assign(input.devices.size() * input.devices.size(), {1e-5, 1e9});
  input.stages = stages;
  input.ranges = std::move(ranges);
  input.options = kNoContext;
  return input;
}

Result<Split> Cut(ModelShape shape, std::vector<SplitDevice> devices, std::int32_t stages = 0,
                  std::vector<LayerRange> ranges = {}) {
  return SplitModel(Input(std::move(shape), std::move(devices), stages, std::move(ranges)));
}

TEST(StageBytes, CountsWeightsCacheAndHead) {
  PlaceOptions options;
  options.context_tokens = 10;
  EXPECT_EQ(StageBytes(Shape(4, 100, 50), {0, 2}, options), 2 * (100U + 10));
  EXPECT_EQ(StageBytes(Shape(4, 100, 50), {2, 4}, options), 2 * (100U + 10) + 50);
  options.kv_type = KvType::kQ8_0;
  EXPECT_LT(StageBytes(Shape(4, 100, 50), {0, 2}, options), 2 * (100U + 10));
}

TEST(StageBytes, CountsTheHiddenStatesThatAStageKeeps) {
  PlaceOptions options;
  options.context_tokens = 10;
  ModelShape shape = Shape(4, 100, 50);
  shape.n_embd = 64;
  EXPECT_GE(StageBytes(shape, {0, 2}, options), 2 * (100U + 10) + 10 * 64 * 2);
  EXPECT_EQ(StageBytes(shape, {2, 4}, options), 2 * (100U + 10) + 50) << "the last stage sends none";
}

TEST(StageBytes, NothingOfLayersThatTheModelDoesNotHave) {
  EXPECT_EQ(StageBytes(Shape(4, 100, 50), {2, 5}, {}), 0U);
  EXPECT_EQ(StageBytes(Shape(4, 100, 50), {4, 1024}, {}), 0U);
  EXPECT_EQ(StageBytes({}, {0, 1}, {}), 0U);
}

TEST(SplitModel, SharesBySpeed) {
  const auto split = Cut(Shape(12, kMiB, 0), {Device(1, kGiB, 3), Device(2, kGiB, 1)});
  ASSERT_TRUE(split.ok()) << split.error().message;
  ASSERT_EQ(split->stages.size(), 2U);
  EXPECT_EQ(split->stages[0].layers, (LayerRange{0, 9}));
  EXPECT_EQ(split->stages[1].layers, (LayerRange{9, 12}));
  EXPECT_TRUE(split->forecast.measured);
  EXPECT_GT(split->forecast.tokens_s_many, split->forecast.tokens_s);
}

TEST(SplitModel, EqualDevicesShareEquallyInTheOrderGiven) {
  const auto split = Cut(Shape(12, kMiB, 0), {Device(1, kGiB, 0), Device(2, kGiB, 0), Device(3, kGiB, 0)});
  ASSERT_TRUE(split.ok()) << split.error().message;
  ASSERT_EQ(split->stages.size(), 3U);
  for (std::int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(split->stages[static_cast<std::size_t>(i)].device, i);
    EXPECT_EQ(split->stages[static_cast<std::size_t>(i)].layers, (LayerRange{4 * i, 4 * i + 4}));
  }
  EXPECT_FALSE(split->forecast.measured);
  EXPECT_NE(split->forecast.reason.find("not measured: d1, d2, d3"), std::string::npos) << split->forecast.reason;
}

TEST(SplitModel, RespectsMemory) {
  const auto split = Cut(Shape(12, 100, 0), {Device(1, 250, 9), Device(2, 10000, 1)});
  ASSERT_TRUE(split.ok()) << split.error().message;
  ASSERT_EQ(split->stages.size(), 2U);
  for (const SplitStage& stage : split->stages) { EXPECT_EQ(stage.layers.count(), stage.device == 0 ? 2 : 10); }
}

TEST(SplitModel, LeavesOutADeviceThatHoldsNoLayer) {
  const auto split = Cut(Shape(4, 100, 0), {Device(1, 10, 1), Device(2, 1000, 1), Device(3, 1000, 1)});
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->stages.size(), 2U);
  EXPECT_EQ(split->stages[0].device, 1);
  EXPECT_EQ(split->stages[1].device, 2);
}

TEST(SplitModel, CutsOnlyWhereAllowed) {
  ModelShape shape = Shape(12, 100, 0);
  shape.cuts = {4, 8};
  const auto split = Cut(shape, {Device(1, 9999, 1), Device(2, 9999, 1)});
  ASSERT_TRUE(split.ok());
  EXPECT_TRUE(split->stages[1].layers.first == 4 || split->stages[1].layers.first == 8);
  EXPECT_FALSE(Cut(shape, {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, {{0, 5}, {5, 12}}).ok());
}

TEST(SplitModel, AModelThatCannotBeCutRunsWhole) {
  ModelShape shape = Shape(12, 100, 0);
  shape.cuts.clear();
  const auto split = Cut(shape, {Device(1, 100, 1), Device(2, 9999, 1)});
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->stages.size(), 1U);
  EXPECT_EQ(split->stages[0].device, 1) << "the one it fits on";
}

TEST(SplitModel, TakesRangesAsWritten) {
  const std::vector<LayerRange> ranges{{0, 1}, {1, 12}};
  const auto split = Cut(Shape(12, 100, 0), {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, ranges);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->stages[1].layers, ranges[1]);
  EXPECT_GT(split->forecast.tokens_s, 0);
  for (const std::vector<LayerRange>& wrong :
       std::vector<std::vector<LayerRange>>{{{0, 5}}, {{0, 5}, {6, 12}}, {{0, 13}}, {{1, 12}}, {{0, 0}, {0, 12}}}) {
    EXPECT_EQ(Cut(Shape(12, 100, 0), {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, wrong).error().code,
              ErrorCode::kInvalidArgument);
  }
}

TEST(SplitModel, NamedDevicesKeepTheirOrder) {
  SplitInput input = Input(Shape(12, kMiB, 0), {Device(1, kGiB, 1), Device(2, kGiB, 9)});
  input.in_order = true;
  for (PlanLink& link : input.links) link.latency_s = 0.1;
  const auto split = SplitModel(input);
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->stages.size(), 2U);
  EXPECT_EQ(split->stages[0].device, 0);
}

TEST(SplitModel, FastestMayLeaveDevicesOutAndSpreadSaysWhatThatWouldBring) {
  SplitInput input = Input(Shape(12, kMiB, 0), {Device(1, kGiB, 9), Device(2, kGiB, 1), Device(3, kGiB, 1)});
  for (PlanLink& link : input.links) link.latency_s = 0.05;
  const auto spread = SplitModel(input);
  ASSERT_TRUE(spread.ok());
  EXPECT_EQ(spread->stages.size(), 3U);
  EXPECT_NE(spread->forecast.reason.find("d1 alone would"), std::string::npos) << spread->forecast.reason;
  input.goal = PlaceGoal::kLatency;
  const auto fastest = SplitModel(input);
  ASSERT_TRUE(fastest.ok());
  ASSERT_EQ(fastest->stages.size(), 1U);
  EXPECT_EQ(fastest->stages[0].device, 0);
  EXPECT_GT(fastest->forecast.tokens_s, spread->forecast.tokens_s);
}

// `status` holds it against what prompts take, which is told as of the same length.
TEST(ForecastOf, TheFirstTokenIsOfTheSamePromptHoweverShortTheContext) {
  SplitInput input = Input(Shape(12, kMiB, 0), {Device(1, kGiB, 3), Device(2, kGiB, 1)});
  const std::vector<SplitStage> stages{{0, {0, 9}}, {1, {9, 12}}};
  input.options.context_tokens = 4096;
  const auto usual = ForecastOf(input, stages);
  ASSERT_TRUE(usual.ok()) << usual.error().message;
  for (const std::int32_t context : {16, 256, 600}) {
    input.options.context_tokens = context;
    const auto little = ForecastOf(input, stages);
    ASSERT_TRUE(little.ok()) << little.error().message;
    EXPECT_NEAR(little->first_token_s, usual->first_token_s, 0.01 * usual->first_token_s) << context;
  }
}

// A member may say anything: once such a forecast ended the node that told it to others.
TEST(ForecastOf, CanBeToldWhateverMembersSayOfThemselves) {
  const auto can_be_told = [](double value) { return value >= 0 && value <= kBytesPerSecondMax; };
  for (const double speed : {5e-324, 1e-300, 1e-30, 1.0, kBytesPerSecondMax}) {
    SplitDevice odd = Device(1, kGiB, 1);
    odd.facts.memory_bytes_s = speed;
    odd.facts.speeds = {{"Q4_0", speed, speed, 0}};
    const SplitInput input = Input(Shape(12, kMiB, 0), {odd, Device(2, kGiB, 1)});
    const auto forecast = ForecastOf(input, {{0, {0, 9}}, {1, {9, 12}}});
    ASSERT_TRUE(forecast.ok() || speed < 1e-300) << forecast.error().message;
    if (!forecast.ok()) continue;  // refused
    for (const double value : {forecast->first_token_s, forecast->tokens_s, forecast->tokens_s_many}) {
      EXPECT_TRUE(can_be_told(value)) << value << " of " << speed;
    }
  }
}

TEST(SplitModel, TheLeastEnergyIsAGoal) {
  SplitInput input = Input(Shape(12, kMiB, 0), {Device(1, kGiB, 9), Device(2, kGiB, 6)});
  for (PlanLink& link : input.links) link.latency_s = 0.05;
  input.goal = PlaceGoal::kEnergy;
  EXPECT_EQ(SplitModel(input).error().code, ErrorCode::kInvalidArgument) << "nobody says what they take";
  input.devices[0].facts.idle_w = 30;
  input.devices[0].facts.active_w = 60;
  input.devices[1].facts.idle_w = 0.5;
  input.devices[1].facts.active_w = 4;
  const auto split = SplitModel(input);
  ASSERT_TRUE(split.ok()) << split.error().message;
  ASSERT_EQ(split->stages.size(), 1U);
  EXPECT_EQ(split->stages[0].device, 1);
  EXPECT_NE(split->forecast.reason.find("J a token"), std::string::npos) << split->forecast.reason;
  EXPECT_NE(split->forecast.reason.find("not measured"), std::string::npos) << split->forecast.reason;
  const auto judged = ForecastOf(input, split->stages);
  ASSERT_TRUE(judged.ok());
  EXPECT_NE(judged->reason.find("d2 alone takes"), std::string::npos) << judged->reason;
}

TEST(SplitModel, SlowLinksGoWhereTheyHurtLeast) {
  // From 1 to 2 and 2 to 3 is slow; 1 and 3 are near each other, and 2 is near nobody but on the way back.
  SplitInput input = Input(Shape(12, kMiB, 0), {Device(1, kGiB, 1), Device(2, kGiB, 1), Device(3, kGiB, 1)});
  const auto link = [&](std::size_t from, std::size_t to) -> PlanLink& { return input.links[from * 3 + to]; };
  link(0, 1).latency_s = link(1, 2).latency_s = link(2, 0).latency_s = 0.2;
  const auto split = SplitModel(input);
  ASSERT_TRUE(split.ok());
  for (std::size_t i = 0; i < 3; ++i) {
    const SplitStage &stage = split->stages[i], &next = split->stages[(i + 1) % 3];
    EXPECT_LT(link(static_cast<std::size_t>(stage.device), static_cast<std::size_t>(next.device)).latency_s, 0.1);
  }
}

TEST(SplitModel, SaysWhatIsMissing) {
  EXPECT_EQ(Cut(Shape(4, 100, 0), {}).error().code, ErrorCode::kNotFound);
  const auto small = Cut(Shape(4, 1000, 0), {Device(1, 1000, 1), Device(2, 1000, 1)});
  ASSERT_FALSE(small.ok());
  EXPECT_EQ(small.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(small.error().message.find("missing"), std::string::npos);
  EXPECT_EQ(Cut(Shape(4, 1, 0), {Device(1, 1000, 1)}, 2).error().code, ErrorCode::kInvalidArgument);
}

TEST(SplitModel, EverySplitOfRandomDevicesCoversTheModelAndFits) {
  int fitted = 0;
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    const ModelShape shape = Shape(1 + static_cast<std::int32_t>(seed % 40), 100 + seed % 7, seed % 300);
    std::vector<SplitDevice> devices;
    for (std::uint32_t i = 0; i < 1 + seed % 9; ++i) {
      devices.push_back(Device(static_cast<int>(i), (seed * 7919 + i * 104729) % 5000, (seed + i) % 5));
    }
    SplitInput input = Input(shape, devices);
    input.goal = static_cast<PlaceGoal>(seed % 3);
    input.steps_max = 3000;
    const auto split = SplitModel(input);
    if (!split.ok()) continue;
    ++fitted;
    std::int32_t next = 0;
    for (const SplitStage& stage : split->stages) {
      EXPECT_EQ(stage.layers.first, next);
      EXPECT_GT(stage.layers.count(), 0);
      EXPECT_LE(StageBytes(shape, stage.layers, kNoContext),
                devices[static_cast<std::size_t>(stage.device)].memory_bytes);
      next = stage.layers.last;
    }
    EXPECT_EQ(next, shape.layers());
    const auto again = SplitModel(input);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->forecast, split->forecast);
  }
  EXPECT_GT(fitted, 100);
}

}  // namespace
}  // namespace shoal
