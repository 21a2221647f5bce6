// Which readings of a battery say what, and when that is told.
#include "node/draw_meter.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

TEST(DrawMeter, TellsWhatIdleAndComputingTake) {
  DrawMeter meter;
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(meter.Update(std::nullopt, 0)) << "on a charger";
  EXPECT_FALSE(meter.Update(5, 1)) << "what it takes idle is not known";
  EXPECT_FALSE(meter.Update(0.9, 0));
  EXPECT_FALSE(meter.Update(1.1, 0.02));
  EXPECT_EQ(meter.idle_w(), std::nullopt);
  EXPECT_TRUE(meter.Update(1, 0));
  EXPECT_NEAR(*meter.idle_w(), 1, 1e-9);
  EXPECT_FALSE(meter.Update(3, 0.3)) << "neither";
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(meter.Update(4, 0.75));
  EXPECT_EQ(meter.active_w(), std::nullopt);
  EXPECT_TRUE(meter.Update(4, 0.75));
  EXPECT_NEAR(*meter.active_w(), 4, 1e-9);  // 3 W more for three quarters of the time
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(meter.Update(4.1, 0.75)) << "no news";
  bool told = false;
  for (int i = 0; i < 20; ++i) told = meter.Update(7, 1) || told;
  EXPECT_TRUE(told);
  EXPECT_NEAR(*meter.active_w(), 6, 0.6);
  EXPECT_FALSE(meter.Update(std::nullopt, 1));
  EXPECT_TRUE(meter.idle_w() && meter.active_w()) << "what was found stays";
}

}  // namespace
}  // namespace shoal
