// What is in the table comes with its source; what is not is an estimate and says so.
#include "device/power_table.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

TEST(PowerTable, AKnownChipHasWhatWasPublished) {
  DeviceProfile profile;
  profile.os = "linux";
  profile.topology.chip = "Broadcom BCM2711 (Raspberry Pi 4)";
  const DevicePower power = PowerOf(profile);
  EXPECT_FALSE(power.estimated);
  EXPECT_DOUBLE_EQ(power.idle_w, 2.7);
  EXPECT_DOUBLE_EQ(power.active_w, 3.7);
  EXPECT_NE(power.source.find("pidramble.com"), std::string::npos);
}

TEST(PowerTable, OthersAreEstimatedByTheirKind) {
  DeviceProfile phone, laptop, desktop;
  phone.os = "android";
  phone.topology.chip = "Snapdragon 865";
  laptop.os = desktop.os = "linux";
  laptop.power.batteries.push_back({"BAT0", 80, false, {}});
  for (const DeviceProfile* profile : {&phone, &laptop, &desktop}) {
    const DevicePower power = PowerOf(*profile);
    EXPECT_TRUE(power.estimated);
    EXPECT_FALSE(power.source.empty());
    EXPECT_GT(power.idle_w, 0);
    EXPECT_GT(power.active_w, 0);
  }
  EXPECT_LT(PowerOf(phone).idle_w, PowerOf(laptop).idle_w);
  EXPECT_LT(PowerOf(laptop).idle_w, PowerOf(desktop).idle_w);
}

TEST(PowerTable, OnBatteryIsWhatHasOneAndIsNotFed) {
  PowerFacts power;
  EXPECT_FALSE(IsOnBattery(power)) << "there is none";
  power.batteries.push_back({"battery", 50, {}, {}});
  EXPECT_TRUE(IsOnBattery(power));
  power.on_mains = true;
  EXPECT_FALSE(IsOnBattery(power));
  power.on_mains.reset();
  power.batteries[0].charging = true;
  EXPECT_FALSE(IsOnBattery(power));
}

}  // namespace
}  // namespace shoal
