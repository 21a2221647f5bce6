// A low battery is told, a charged one and an unknown one never.
#include "node/battery_guard.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

PowerFacts Of(std::optional<int> percent, std::optional<bool> charging, std::optional<bool> on_mains = {}) {
  PowerFacts facts;
  facts.batteries.push_back({"battery", percent, charging, {}});
  facts.on_mains = on_mains;
  return facts;
}

TEST(BatteryGuard, DrainsBelowTheFloorAndComesBackWhenItCharges) {
  BatteryGuard guard(15);
  EXPECT_FALSE(guard.Update(Of(60, false)));
  EXPECT_EQ(guard.percent(), 60);
  EXPECT_FALSE(guard.Update(Of(15, false)));  // once may be a slip
  EXPECT_TRUE(guard.Update(Of(14, false)));
  EXPECT_EQ(guard.reason(), "its battery is at 14 % and not charging");
  EXPECT_FALSE(guard.Update(Of(16, false)));  // not enough to go back and forth
  EXPECT_TRUE(guard.Update(Of(16, true)));
  EXPECT_EQ(guard.reason(), "");
}

TEST(BatteryGuard, ComesBackWellAboveTheFloor) {
  BatteryGuard guard(15);
  guard.Update(Of(10, false));
  guard.Update(Of(10, false));
  EXPECT_NE(guard.reason(), "");
  EXPECT_TRUE(guard.Update(Of(20, false)));
  EXPECT_EQ(guard.reason(), "");
}

TEST(BatteryGuard, WhatIsUnknownNeverDrains) {
  BatteryGuard guard(15);
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(guard.Update(PowerFacts{}));
    EXPECT_FALSE(guard.Update(Of(std::nullopt, false)));
    EXPECT_FALSE(guard.Update(Of(3, std::nullopt)));  // whether it charges is not known
    EXPECT_FALSE(guard.Update(Of(3, false, true)));   // kept at 3 % by a charger
    EXPECT_FALSE(guard.Update(Of(3, std::nullopt, true)));
  }
}

TEST(BatteryGuard, NoFloorNeverDrains) {
  BatteryGuard guard(0);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(guard.Update(Of(0, false)));
}

}  // namespace
}  // namespace shoal
