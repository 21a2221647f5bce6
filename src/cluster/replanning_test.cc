// Devices that become slower or faster than planned: when a placement moves for it, and when it stays.
#include <gtest/gtest.h>

#include <set>

#include "cluster/cluster.h"
#include "cluster/pump_test.h"

namespace shoal {
namespace {

// Three devices of 10 GB/s with a model whose layers take longer than links do.
class ReplanTest : public testing::Test {
 protected:
  // `held`: of the model on the disk of each node but the first, which has all.
  void Start(std::vector<LayerRange> ranges = {}, std::vector<LayerRange> held = {{0, 30}, {0, 30}}) {
    for (int i = 0; i < 3; ++i) {
      pump.Add([i, &held](ClusterOptions& options) {
        DeviceFacts& device = options.facts.device;
        device.memory_budget_bytes = 100ULL << 30;
        device.memory_bytes_s = 1e10;
        device.speeds = {{"Q4_0", 1e10, 3e9, 1e-6}};
        ModelHolding& model = options.facts.models.front();
        model = TestHolding(30);
        model.quantization = "Q4_0";
        model.shape.layer_bytes.assign(30, 100ULL << 20);
        if (i > 0) model.held.layers = {held[static_cast<std::size_t>(i - 1)]};
      });
    }
    pump.MeetAll();
    ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
    PlaceRequest request;
    request.stages = 3;
    request.ranges = std::move(ranges);
    request.options.standby = 0;
    ASSERT_TRUE(pump.Place(0, request).ok());
    ASSERT_TRUE(pump.Until([&] { return pump.Agree() && At(2); }));
  }
  void Pace(int node, double pace) {
    MemberFacts facts = pump.Of(node).options.facts;
    facts.device.pace = pace;
    pump.At(node).SetSelfFacts(pump.now, facts);
  }
  std::optional<PlacementView> At(int n) { return pump.At(n).placement("m"); }
  Epoch epoch() { return At(0)->record.epoch; }
  std::int32_t LayersOf(int node) {
    std::int32_t count = 0;
    const PlacementRecord record = At(0)->record;
    for (const StagePlace& stage : record.stages) count += stage.node == TestId(node) ? stage.layers.count() : 0;
    return count;
  }
  Pump pump;
};

TEST_F(ReplanTest, AThrottledDeviceGetsFewerLayersSoon) {
  Start();
  EXPECT_EQ(LayersOf(1), 10);
  const Epoch before = epoch();
  Pace(1, 0.33);
  ASSERT_TRUE(pump.Until([&] { return epoch() != before && pump.Agree(); }, 15 * kSecond));
  // Four streams are two groups: of three stages one is idle, so that the way through all of them counts as well.
  EXPECT_NEAR(LayersOf(1), 3, 1);
  EXPECT_EQ(At(0)->record.continues, before) << "what runs goes on";
  EXPECT_NEAR(At(0)->record.stages[0].layers.count(), 14, 1);
}

// Whoever is to have more layers does not have them, and they would take minutes to come.
TEST_F(ReplanTest, LayersThatHaveToBeFetchedAreNotWorthIt) {
  Start({}, {{10, 20}, {20, 30}});
  for (int from = 0; from < 3; ++from) {
    for (int to = 0; to < 3; ++to) {
      if (from != to) pump.At(from).OnThroughput(pump.now, TestId(to), 2'000'000);
    }
  }
  pump.Run(5 * kSecond);
  const Epoch before = epoch();
  ASSERT_EQ(LayersOf(1), 10);
  Pace(1, 0.33);
  pump.Run(60 * kSecond);
  EXPECT_EQ(epoch(), before);
}

TEST_F(ReplanTest, SmallOrShortChangesMoveNothing) {
  Start();
  const Epoch before = epoch();
  for (int i = 0; i < 60; ++i) {
    Pace(1, i % 2 == 0 ? 0.9 : 1.05);
    pump.Run(kSecond);
    Pace(2, 0.3);
    pump.Run(2 * kSecond);
    Pace(2, 1);
    pump.Run(kSecond);
  }
  EXPECT_EQ(epoch(), before);
}

TEST_F(ReplanTest, DevicesThatGoUpAndDownMoveItAtMostAFewTimes) {
  Start();
  std::set<Epoch> epochs;
  for (int i = 0; i < 20; ++i) {  // ten minutes
    Pace(1, i % 2 == 0 ? 0.33 : 1);
    for (int s = 0; s < 30; ++s) {
      pump.Run(kSecond);
      epochs.insert(epoch());
    }
  }
  EXPECT_GT(epochs.size(), 1U);
  EXPECT_LE(epochs.size(), 7U);
}

TEST_F(ReplanTest, WhatWasAskedForByLayersStays) {
  Start({{0, 10}, {10, 20}, {20, 30}});
  const Epoch before = epoch();
  Pace(1, 0.2);
  pump.Run(60 * kSecond);
  EXPECT_EQ(epoch(), before);
}

}  // namespace
}  // namespace shoal
