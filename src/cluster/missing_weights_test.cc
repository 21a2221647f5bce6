// A cluster that has lost the last copy of some layers: it says so at once, tries nothing in vain, and goes on when
// they are back.
#include <gtest/gtest.h>

#include "cluster/cluster.h"
#include "cluster/pump_test.h"

namespace shoal {
namespace {

class MissingWeightsTest : public testing::Test {
 protected:
  // Of a model of six layers.
  static HeldWeights Held(std::int32_t first, std::int32_t last) {
    return {{{first, last}}, true, first == 0, last == 6, 100};
  }
  // A node for each; all know the model.
  void Nodes(const std::vector<HeldWeights>& held) {
    for (const HeldWeights& one : held) {
      pump.Add([&](ClusterOptions& options) { options.facts.models.front().held = one; });
    }
    pump.MeetAll();
    ASSERT_TRUE(pump.Until([&] { return pump.Agree(); }, 10 * kSecond));
  }
  // Its first half runs on node 0, its second on node 1, each of which has its layers alone; nobody keeps a copy.
  void Halves() {
    ASSERT_NO_FATAL_FAILURE(Nodes({Held(0, 3), Held(3, 6), {}}));
    PlaceRequest request;
    request.nodes = {TestId(0), TestId(1)};
    request.ranges = {{0, 3}, {3, 6}};
    request.options.standby = 0;
    const Status placed = pump.Place(2, request);
    ASSERT_TRUE(placed.ok()) << placed.error().message;
  }
  void NowHolds(int node, const HeldWeights& held) {
    ClusterOptions& options = pump.Of(node).options;
    options.facts.models.front().held = held;
    pump.At(node).SetSelfFacts(pump.now, options.facts);
  }
  std::optional<PlacementView> At(int n) { return pump.At(n).placement("m"); }
  bool Runs() { return At(2) && !At(2)->broken; }
  Pump pump;
};

TEST_F(MissingWeightsTest, WhatIsOnNoDiskIsNotPlaced) {
  ASSERT_NO_FATAL_FAILURE(Nodes({Held(0, 3), Held(4, 6), {}}));
  const Status placed = pump.Place(2, {});
  ASSERT_FALSE(placed.ok());
  EXPECT_EQ(placed.error().code, ErrorCode::kNotFound);
  EXPECT_NE(placed.error().message.find("layer 3 of 'm'"), std::string::npos) << placed.error().message;
  EXPECT_EQ(pump.Of(0).loads + pump.Of(1).loads + pump.Of(2).loads, 0);
  NowHolds(2, Held(3, 4));
  EXPECT_TRUE(pump.Place(2, {}).ok());
}

TEST_F(MissingWeightsTest, TheLossOfTheLastCopyIsSaidWithWhoHadItAndItComesBack) {
  ASSERT_NO_FATAL_FAILURE(Halves());
  const Epoch first = At(2)->record.epoch;
  pump.Crash(1);
  for (const int node : {0, 2}) {
    ASSERT_TRUE(pump.Until([&] { return At(node)->hopeless; }, 20 * kSecond)) << At(node)->reason;
    for (const char* words : {"layers 3-5 and the output head of 'm'", "'n1'", "not here now"}) {
      EXPECT_NE(At(node)->reason.find(words), std::string::npos) << At(node)->reason;
    }
  }
  pump.Run(30 * kSecond);
  EXPECT_TRUE(At(2)->hopeless);
  EXPECT_EQ(At(2)->record.epoch, first);
  EXPECT_EQ(pump.Of(0).loads + pump.Of(1).loads + pump.Of(2).loads, 2) << "nothing is tried in vain";
  pump.Restart(1);
  ASSERT_TRUE(pump.Until([&] { return Runs() && At(2)->record.epoch > first; }, 30 * kSecond)) << At(2)->reason;
  EXPECT_TRUE(At(2)->reason.empty()) << At(2)->reason;
  EXPECT_EQ(pump.wrong, "");
}

TEST_F(MissingWeightsTest, WhoGetsTheLayersElsewhereIsEnough) {
  ASSERT_NO_FATAL_FAILURE(Halves());
  pump.Crash(1);
  ASSERT_TRUE(pump.Until([&] { return At(0)->hopeless && At(2)->hopeless; }, 20 * kSecond));
  NowHolds(2, Held(3, 6));  // somebody copied the file there
  ASSERT_TRUE(pump.Until([&] { return Runs(); }, 5 * kSecond)) << At(2)->reason;
  EXPECT_EQ(At(2)->record.stages[1].node, TestId(2));
}

TEST_F(MissingWeightsTest, OtherModelsThatComeAndGoAreNoReasonToTryAgain) {
  ASSERT_NO_FATAL_FAILURE(Halves());
  NowHolds(2, Held(3, 6));
  ASSERT_TRUE(pump.Until([&] { return pump.Agree(); }));
  pump.load = [](int, const PlacementRecord&) { return Status(Error{ErrorCode::kIo, "no"}); };
  pump.Crash(1);
  const auto tries_of_a_minute = [&](const std::function<void(int)>& each_second) {
    const int before = pump.Of(0).loads + pump.Of(2).loads;
    for (int i = 0; i < 60; ++i) {
      each_second(i);
      pump.Run(kSecond);
    }
    return pump.Of(0).loads + pump.Of(2).loads - before;
  };
  (void)tries_of_a_minute([](int) {});
  const int usual = tries_of_a_minute([](int) {});
  const int with_others = tries_of_a_minute([&](int i) {
    MemberFacts facts = pump.Of(2).options.facts;
    facts.models.push_back(facts.models.front());
    facts.models.back().name = "other";
    facts.models.back().fingerprint = 78;
    facts.models.back().held = Held(0, 1 + i % 5);
    pump.At(2).SetSelfFacts(pump.now, facts);
  });
  const int with_its_own = tries_of_a_minute([&](int i) { NowHolds(2, Held(2 + i % 2, 6)); });
  EXPECT_LE(with_others, usual + 1) << "it waits longer each time";
  EXPECT_GT(with_its_own, usual) << "that may help";
}

TEST_F(MissingWeightsTest, WhatRunsNeedsNoDisk) {
  ASSERT_NO_FATAL_FAILURE(Halves());
  NowHolds(0, {});  // its file was taken away
  NowHolds(2, Held(3, 6));
  ASSERT_TRUE(pump.Until([&] { return pump.Agree(); }));
  pump.Crash(1);
  ASSERT_TRUE(pump.Until([&] { return Runs() && At(2)->record.stages[1].node == TestId(2); }, 20 * kSecond));
  EXPECT_EQ(At(2)->record.stages[0].node, TestId(0));
  EXPECT_EQ(pump.Of(0).loads, 1);
}

TEST_F(MissingWeightsTest, ACopyThatIsKeptNeedsNoDisk) {
  ASSERT_NO_FATAL_FAILURE(Nodes({Held(0, 3), Held(3, 6), {}}));
  PlaceRequest request;
  request.nodes = {TestId(0), TestId(1)};
  request.ranges = {{0, 3}, {3, 6}};
  ASSERT_TRUE(pump.Place(2, request).ok());
  ASSERT_TRUE(pump.Until([&] { return At(2)->survives.size() == 2; }, 20 * kSecond));
  pump.Crash(1);
  bool hopeless = false;
  ASSERT_TRUE(pump.Until(
      [&] {
        hopeless = hopeless || At(2)->hopeless;
        return Runs() && !At(2)->record.Has(TestId(1));
      },
      20 * kSecond));
  EXPECT_FALSE(hopeless) << "it was never without a way on";
}

}  // namespace
}  // namespace shoal
