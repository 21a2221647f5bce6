// A device that stays hot at rest is told; one that works hard, cools, or was never seen cool is not.
#include "node/heat_guard.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

constexpr double kTrip = 95;

class HeatGuardTest : public testing::Test {
 protected:
  // A reading every two seconds in which the device computed for `share` of the time and changed by `per_second`
  // degrees. True if what is told changed.
  bool Run(double seconds, double celsius, double share = 0, double per_second = 0) {
    bool changed = false;
    for (double at = 0; at < seconds; at += 2) {
      now_ += 2'000'000;
      busy_s_ += 2 * share;
      const double is = celsius + at * per_second;
      changed = guard_.Update(now_, {is, kTrip - is, {}}, busy_s_) || changed;
    }
    return changed;
  }
  bool drains() const { return !guard_.reason().empty(); }

  HeatGuard guard_;
  TimeUs now_ = 1'000'000;
  double busy_s_ = 0;
};

TEST_F(HeatGuardTest, DrainsWhenItStaysHotAtRestAndComesBackWhenItIsCooler) {
  Run(10, 60);
  EXPECT_FALSE(Run(30, kTrip));
  EXPECT_TRUE(guard_.in_doubt());
  EXPECT_TRUE(Run(4, kTrip));
  EXPECT_EQ(guard_.reason(), "it stays hot although it rests: 95 degrees");
  EXPECT_FALSE(Run(600, kTrip - 4));  // not enough to go back and forth
  EXPECT_FALSE(Run(8, kTrip - 6));
  EXPECT_FALSE(Run(2, kTrip));
  EXPECT_FALSE(Run(10, kTrip - 6));
  EXPECT_TRUE(Run(4, kTrip - 6));
  EXPECT_FALSE(drains());
}

TEST_F(HeatGuardTest, OneThatWorksHardIsLeftToItsSystem) {
  Run(10, 60);
  EXPECT_FALSE(Run(600, kTrip + 3, 0.9));
  EXPECT_TRUE(Run(40, kTrip + 3, 0.2));  // nearly all rests, and still
}

TEST_F(HeatGuardTest, OneThatCoolsIsLeftAlone) {
  Run(10, 60);
  Run(600, kTrip + 8, 1);
  EXPECT_FALSE(Run(300, kTrip + 8, 0, -0.05));  // after hard work, at last below the trip point
}

TEST_F(HeatGuardTest, OneColdReadingBeginsAnew) {
  Run(10, 60);
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(Run(28, kTrip + 1));
    EXPECT_FALSE(Run(2, kTrip - 1));
  }
}

TEST_F(HeatGuardTest, ATripPointItWasNeverBelowSaysNothing) { EXPECT_FALSE(Run(600, kTrip + 20)); }

TEST_F(HeatGuardTest, WhatIsUnknownNeverDrains) {
  Run(10, 60);
  for (int i = 0; i < 100; ++i) {
    now_ += 2'000'000;
    EXPECT_FALSE(guard_.Update(now_, {150, {}, {}}, 0));
  }
  EXPECT_TRUE(Run(40, kTrip));
  for (int i = 0; i < 10; ++i) {
    now_ += 2'000'000;
    guard_.Update(now_, {}, 0);
  }
  EXPECT_FALSE(drains());
}

TEST_F(HeatGuardTest, AFreezeIsNoStretchOfHeat) {
  Run(10, 60);
  Run(10, kTrip);
  now_ += 3600'000'000;
  EXPECT_FALSE(Run(2, kTrip));
}

TEST_F(HeatGuardTest, AStageThatEndsIsNoWork) {
  Run(10, 60, 1);
  busy_s_ = 0;
  EXPECT_TRUE(Run(40, kTrip));
}

}  // namespace
}  // namespace shoal
