// A node that wakes from a freeze which the others did not wait out: it hears of it, says so, and is back.
#include <gtest/gtest.h>

#include <algorithm>

#include "cluster/cluster.h"
#include "cluster/pump_test.h"

namespace shoal {
namespace {

class WakingTest : public testing::Test {
 protected:
  int Said(int node, const std::string& words) {
    const std::vector<std::string>& notes = pump.Of(node).notes;
    return static_cast<int>(std::count_if(notes.begin(), notes.end(),
                                          [&](const auto& note) { return note.find(words) != std::string::npos; }));
  }
  Pump pump;
};

TEST_F(WakingTest, SaysThatItWasGivenUpAndWhatItDropsAndRejoins) {
  for (int i = 0; i < 3; ++i) pump.Add();
  pump.MeetAll();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 10 * kSecond));
  PlaceRequest request;
  request.nodes = {TestId(1), TestId(2)};
  ASSERT_TRUE(pump.Place(0, request).ok());
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree() && pump.At(2).placement("m"); }));
  const Epoch stale = pump.At(2).placement("m")->record.epoch;

  pump.Of(2).frozen = true;
  ASSERT_TRUE(pump.Until([&] { return pump.StateOf(0, 2) == MemberState::kDead; }));
  ASSERT_TRUE(pump.Until([&] { return pump.At(0).placement("m")->record.epoch > stale; }));
  EXPECT_FALSE(pump.At(0).placement("m")->record.Has(TestId(2)));
  EXPECT_TRUE(pump.At(2).MayServe("m", stale)) << "it does not know yet";

  pump.Of(2).frozen = false;
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); })) << "it is back, without anybody's help";
  EXPECT_EQ(Said(2, "the others had given this node up: it says that it is here"), 1);
  EXPECT_EQ(Said(2, "'m' was placed without this node: its stages here are out of date and dropped"), 1);
  EXPECT_EQ(Said(0, "given this node up") + Said(1, "given this node up"), 0);
  EXPECT_FALSE(pump.At(2).MayServe("m", stale));
  EXPECT_TRUE(pump.Of(2).active.empty() && pump.Of(2).loaded.empty());
  EXPECT_EQ(pump.wrong, "");
}

TEST_F(WakingTest, AShortOneIsNobodysNews) {
  for (int i = 0; i < 3; ++i) pump.Add();
  pump.MeetAll();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 10 * kSecond));
  pump.Of(2).frozen = true;
  pump.Run(kSecond);
  pump.Of(2).frozen = false;
  pump.Run(5 * kSecond);
  EXPECT_TRUE(pump.AllAlive() && pump.Agree());
  EXPECT_EQ(Said(2, "given this node up"), 0);
}

}  // namespace
}  // namespace shoal
