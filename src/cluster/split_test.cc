// Layers over devices by speed and memory.
#include "cluster/split.h"

#include <gtest/gtest.h>

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

SplitDevice Device(int number, std::uint64_t memory, double speed) {
  SplitDevice device;
  device.node.bytes[0] = static_cast<std::uint8_t>(number);
  device.memory_bytes = memory;
  device.speed = speed;
  return device;
}

const PlaceOptions kNoContext = [] {
  PlaceOptions options;
  options.context_tokens = 1;
  return options;
}();

TEST(StageBytes, CountsWeightsCacheAndHead) {
  PlaceOptions options;
  options.context_tokens = 10;
  EXPECT_EQ(StageBytes(Shape(4, 100, 50), {0, 2}, options), 2 * (100U + 10));
  EXPECT_EQ(StageBytes(Shape(4, 100, 50), {2, 4}, options), 2 * (100U + 10) + 50);
  options.kv_type = KvType::kQ8_0;
  EXPECT_LT(StageBytes(Shape(4, 100, 50), {0, 2}, options), 2 * (100U + 10));
}

TEST(SplitModel, SharesBySpeed) {
  const auto split = SplitModel(Shape(12, 100, 0), {Device(1, 10000, 3), Device(2, 10000, 1)}, 0, {}, kNoContext);
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->size(), 2U);
  EXPECT_EQ((*split)[0].layers, (LayerRange{0, 9}));
  EXPECT_EQ((*split)[1].layers, (LayerRange{9, 12}));
}

TEST(SplitModel, RespectsMemory) {
  const auto split = SplitModel(Shape(12, 100, 0), {Device(1, 250, 9), Device(2, 10000, 1)}, 0, {}, kNoContext);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ((*split)[0].layers, (LayerRange{0, 2}));
}

TEST(SplitModel, LeavesOutADeviceThatHoldsNoLayer) {
  const auto split =
      SplitModel(Shape(4, 100, 0), {Device(1, 10, 1), Device(2, 1000, 1), Device(3, 1000, 1)}, 0, {}, kNoContext);
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->size(), 2U);
  EXPECT_EQ((*split)[0].device, 1);
  EXPECT_EQ((*split)[1].device, 2);
}

TEST(SplitModel, CutsOnlyWhereAllowed) {
  ModelShape shape = Shape(12, 100, 0);
  shape.cuts = {4, 8};
  const auto split = SplitModel(shape, {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, {}, kNoContext);
  ASSERT_TRUE(split.ok());
  EXPECT_TRUE((*split)[1].layers.first == 4 || (*split)[1].layers.first == 8);
  EXPECT_FALSE(SplitModel(shape, {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, {{0, 5}, {5, 12}}, kNoContext).ok());
}

TEST(SplitModel, AModelThatCannotBeCutRunsWhole) {
  ModelShape shape = Shape(12, 100, 0);
  shape.cuts.clear();
  const auto split = SplitModel(shape, {Device(1, 100, 1), Device(2, 9999, 1)}, 0, {}, kNoContext);
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->size(), 1U);
  EXPECT_EQ((*split)[0].device, 1) << "the one it fits on";
}

TEST(SplitModel, TakesRangesAsWritten) {
  const std::vector<LayerRange> ranges{{0, 1}, {1, 12}};
  const auto split = SplitModel(Shape(12, 100, 0), {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, ranges, kNoContext);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ((*split)[1].layers, ranges[1]);
  for (const std::vector<LayerRange>& wrong :
       std::vector<std::vector<LayerRange>>{{{0, 5}}, {{0, 5}, {6, 12}}, {{0, 13}}, {{1, 12}}, {{0, 0}, {0, 12}}}) {
    EXPECT_EQ(
        SplitModel(Shape(12, 100, 0), {Device(1, 9999, 1), Device(2, 9999, 1)}, 0, wrong, kNoContext).error().code,
        ErrorCode::kInvalidArgument);
  }
}

TEST(SplitModel, SaysWhatIsMissing) {
  const auto none = SplitModel(Shape(4, 100, 0), {}, 0, {}, kNoContext);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  const auto small = SplitModel(Shape(4, 1000, 0), {Device(1, 1000, 1), Device(2, 1000, 1)}, 0, {}, kNoContext);
  EXPECT_EQ(small.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(small.error().message.find("missing"), std::string::npos);
  EXPECT_EQ(SplitModel(Shape(4, 1, 0), {Device(1, 1000, 1)}, 2, {}, kNoContext).error().code,
            ErrorCode::kInvalidArgument);
}

TEST(SplitModel, EverySplitOfRandomDevicesCoversTheModelAndFits) {
  for (std::uint32_t seed = 0; seed < 500; ++seed) {
    const ModelShape shape = Shape(1 + static_cast<std::int32_t>(seed % 40), 100 + seed % 7, seed % 300);
    std::vector<SplitDevice> devices;
    for (std::uint32_t i = 0; i < 1 + seed % 9; ++i) {
      devices.push_back(Device(static_cast<int>(i), (seed * 7919 + i * 104729) % 5000, (seed + i) % 5));
    }
    const auto split = SplitModel(shape, devices, 0, {}, kNoContext);
    if (!split.ok()) continue;
    std::int32_t next = 0;
    for (const SplitStage& stage : *split) {
      EXPECT_EQ(stage.layers.first, next);
      EXPECT_GT(stage.layers.count(), 0);
      EXPECT_LE(StageBytes(shape, stage.layers, kNoContext),
                devices[static_cast<std::size_t>(stage.device)].memory_bytes);
      next = stage.layers.last;
    }
    EXPECT_EQ(next, shape.layers());
  }
}

}  // namespace
}  // namespace shoal
