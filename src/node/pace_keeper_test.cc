// Throttling is told soon, noise never, and an idle device is forgiven.
#include "node/pace_keeper.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

class PaceTest : public testing::Test {
 protected:
  // One window in which the stage worked a second at `share` of its speed.
  bool Window(double share, double work_s = 1) {
    now_ += PaceKeeper::kWindowUs;
    expected_ += work_s;
    measured_ += work_s / share;
    keeper_.Observe("m 1 0", expected_, measured_);
    return keeper_.Tick(now_);
  }
  void Idle(int windows) {
    for (int i = 0; i < windows; ++i) {
      now_ += PaceKeeper::kWindowUs;
      keeper_.Observe("m 1 0", expected_, measured_);
      keeper_.Tick(now_);
    }
  }
  PaceKeeper keeper_;
  TimeUs now_ = 5'000'000;
  double expected_ = 0, measured_ = 0;
};

TEST_F(PaceTest, FullSpeedIsNoNews) {
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(Window(i % 2 == 0 ? 1.1 : 0.92));
  EXPECT_EQ(keeper_.pace(), 1);
}

TEST_F(PaceTest, AThirdIsToldWithinThreeWindowsAndSoIsTheReturn) {
  Window(1);
  Window(1);
  int windows = 0;
  while (!Window(1.0 / 3) && windows < 10) ++windows;
  EXPECT_LE(windows, 2);
  EXPECT_NEAR(keeper_.pace(), 0.33, 0.02);
  windows = 0;
  while (!Window(1) && windows < 10) ++windows;
  EXPECT_LE(windows, 2);
  EXPECT_NEAR(keeper_.pace(), 1, 0.02);
}

TEST_F(PaceTest, OneSlowWindowIsNoNews) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(Window(1));
    EXPECT_FALSE(Window(1));
    EXPECT_FALSE(Window(0.2));
  }
}

TEST_F(PaceTest, TooLittleWorkIsGatheredOverWindows) {
  Window(1);
  bool told = false;
  for (int i = 0; i < 40; ++i) told = Window(0.5, PaceKeeper::kWindowWorkMin_s / 4) || told;
  EXPECT_TRUE(told);
  EXPECT_NEAR(keeper_.pace(), 0.5, 0.05);
}

TEST_F(PaceTest, AnIdleDeviceIsTrustedAgain) {
  for (int i = 0; i < 6; ++i) Window(0.25);
  ASSERT_NEAR(keeper_.pace(), 0.25, 0.02);
  Idle(50);
  EXPECT_NEAR(keeper_.pace(), 0.25, 0.02) << "not at once";
  Idle(600);
  EXPECT_EQ(keeper_.pace(), 1);
}

TEST_F(PaceTest, AStageThatIsReplacedStartsAnew) {
  Window(1);
  Window(1);
  expected_ = measured_ = 0;  // the same name: counters begin again
  EXPECT_FALSE(Window(1));
  EXPECT_FALSE(Window(1));
  EXPECT_EQ(keeper_.pace(), 1);
}

TEST_F(PaceTest, WhatARationHoldsBackIsNotSlower) {
  keeper_.SetRation(0.4);
  for (const double share : {1.0, 0.9, 0.6, 0.42, 0.8}) {
    for (int i = 0; i < 4; ++i) EXPECT_FALSE(Window(share)) << share;
  }
  EXPECT_EQ(keeper_.pace(), 1);
  for (int i = 0; i < 6; ++i) Window(0.2);  // half of what the ration explains
  EXPECT_NEAR(keeper_.pace(), 0.5, 0.02);
  for (int i = 0; i < 6; ++i) Window(1.5);
  EXPECT_NEAR(keeper_.pace(), 1.5, 0.05);
}

TEST_F(PaceTest, TheWindowInWhichTheRationChangesDoesNotCount) {
  Window(1);
  Window(1);
  keeper_.SetRation(0.25);
  keeper_.SetRation(1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(Window(0.25));  // ended by the change, begun by it
    EXPECT_FALSE(Window(1));
  }
  EXPECT_EQ(keeper_.pace(), 1);
}

TEST_F(PaceTest, ALowerFrequencyIsToldAtOnceAndWhatStagesTakeCorrectsIt) {
  Window(1);
  Window(1);
  EXPECT_FALSE(keeper_.Cap(1));
  EXPECT_FALSE(keeper_.Cap(0.95));  // no news
  EXPECT_TRUE(keeper_.Cap(0.5));
  EXPECT_EQ(keeper_.pace(), 0.5);
  EXPECT_FALSE(keeper_.Cap(0.5));
  // Memory does not get slower with the cores.
  for (int i = 0; i < 5; ++i) Window(0.7);
  EXPECT_NEAR(keeper_.pace(), 0.7, 0.05);
  EXPECT_FALSE(keeper_.Cap(1));  // that it is faster again is measured
  for (int i = 0; i < 5; ++i) Window(1);
  EXPECT_NEAR(keeper_.pace(), 1, 0.05);
}

}  // namespace
}  // namespace shoal
