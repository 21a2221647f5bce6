// A limiter that is worse than rests is avoided, one that is not is left alone; and what a device has shown is kept.
#include "node/pacer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace shoal {
namespace {

// A device whose stages always have work. Its limiter takes `cut` of its speed from the 60th second on, for as long as
// it works faster than `sustained` of full speed, and then until it has worked slower than `lets_go` for ten seconds.
class PacerTest : public testing::Test {
 protected:
  void Run(double seconds) {
    for (const double end = now_s_ + seconds; now_s_ < end; now_s_ += 2) {
      const double allowed = 1 / (1 + pacer_.rest());
      const double speed = std::min(allowed, limited_ ? 1 - cut_ : 1);
      hot_s_ = speed > sustained_ ? hot_s_ + 2 : 0;
      calm_s_ = speed < lets_go_ ? calm_s_ + 2 : 0;
      if (hot_s_ >= 60) limited_ = true;
      if (calm_s_ >= 10) limited_ = false;
      if (is_measured_) late_ += 2 * speed;
      if (static_cast<int>(now_s_) % 8 < 4) seen_.work_s += std::exchange(late_, 0);
      seen_.busy_s += 2 * speed;
      seen_.rest_s += 2 * (1 - speed);
      if (knows_cap_) seen_.heat.cap = limited_ ? 1 - cut_ : 1;
      pacer_.Update(static_cast<TimeUs>((now_s_ + 2) * 1e6), seen_);
    }
  }
  double RateIn(double seconds) {
    const double before = seen_.work_s;
    Run(seconds);
    return (seen_.work_s - before) / seconds;
  }

  Pacer pacer_;
  Pacer::Seen seen_;
  double now_s_ = 0, hot_s_ = 0, calm_s_ = 0;
  double sustained_ = 0.8, cut_ = 0.7, lets_go_ = 0.25;
  double late_ = 0;  // work that is told some seconds later
  bool limited_ = false, knows_cap_ = true, is_measured_ = true;
};

TEST_F(PacerTest, ADeviceThatIsNeverLimitedNeverRests) {
  sustained_ = 2;
  Run(3600);
  EXPECT_EQ(pacer_.rest(), 0);
  EXPECT_EQ(seen_.rest_s, 0);
  EXPECT_FALSE(pacer_.known());
}

TEST_F(PacerTest, ALimiterThatCutsDeepIsAvoided) {
  Run(300);
  EXPECT_GT(RateIn(600), 0.6);  // 0.3 without rests
  ASSERT_TRUE(pacer_.known());
  EXPECT_NEAR(pacer_.known()->limited_yield, 0.3, 0.1);
}

TEST_F(PacerTest, ALimiterThatCutsLittleIsLeftAlone) {
  cut_ = 0.15;
  sustained_ = 0.86;
  lets_go_ = 0.8;
  Run(600);
  EXPECT_NEAR(RateIn(600), 0.85, 0.02);
  EXPECT_FALSE(pacer_.known());
}

TEST_F(PacerTest, ALimiterThatNeverLetsGoIsTriedSeldom) {
  lets_go_ = 0;
  Run(120);
  EXPECT_GT(RateIn(1200), 0.3 * 0.9);
}

TEST_F(PacerTest, WithoutAFrequencyItNeverRests) {
  knows_cap_ = false;
  Run(1200);
  EXPECT_EQ(pacer_.rest(), 0);
}

TEST_F(PacerTest, ADeviceThatWasNotMeasuredNeverRests) {
  is_measured_ = false;
  Run(1200);
  EXPECT_EQ(pacer_.rest(), 0);
}

TEST_F(PacerTest, WhatIsKnownIsUsedFromTheStart) {
  pacer_ = Pacer({0, 0.3});
  Run(30);
  ASSERT_GT(RateIn(900), 0.6);
  EXPECT_TRUE(pacer_.known());
}

TEST_F(PacerTest, AJumpOfTheClockIsNoWork) {
  Run(70);
  now_s_ += 3600;
  seen_.work_s += 3600;
  seen_.busy_s += 3600;
  Run(4);
  EXPECT_EQ(pacer_.rest(), 0);
}

TEST(PacingText, IsReadAsItWasWritten) {
  const Pacer::Known known{72, 0.36};
  EXPECT_EQ(ParsePacing(PacingText(known)), known);
  for (const char* bad :
       {"", "limit_celsius", "limit_celsius nan limited_yield 0.5", "limit_celsius 70 limited_yield 0",
        "limit_celsius 900 limited_yield 0.5", "limit_celsius 70 limited_yield 1e999"}) {
    EXPECT_FALSE(ParsePacing(bad)) << bad;
  }
}

}  // namespace
}  // namespace shoal
