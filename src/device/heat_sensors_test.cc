// Temperatures, trip points and frequency limits from made-up trees.
#include "device/heat_sensors.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/test_folder.h"

namespace shoal {
namespace {

class HeatSensorsTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) { folder_.Write(path, text + '\n'); }
  void Zone(int number, const std::string& type, const std::string& temperature) {
    const std::string zone = "/sys/class/thermal/thermal_zone" + std::to_string(number);
    Write(zone + "/type", type);
    Write(zone + "/temp", temperature);
  }
  void Trip(int zone, int number, const std::string& type, const std::string& temperature) {
    const std::string trip =
        "/sys/class/thermal/thermal_zone" + std::to_string(zone) + "/trip_point_" + std::to_string(number);
    Write(trip + "_type", type);
    Write(trip + "_temp", temperature);
  }
  void Core(int cpu, const std::string& highest, const std::string& allowed) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cpufreq";
    Write(folder + "/cpuinfo_max_freq", highest);
    Write(folder + "/scaling_max_freq", allowed);
  }
  HeatReading Read(const std::vector<int>& cpus = {}) { return HeatSensors(SystemFiles(root_), cpus).Read(); }
  const TestFolder folder_;
  const std::string root_ = folder_.path();
};

TEST_F(HeatSensorsTest, NothingIsReadWhereNothingIs) {
  const HeatReading reading = Read({0, 1});
  EXPECT_FALSE(reading.celsius || reading.headroom || reading.cap);
  EXPECT_FALSE(HeatSensors(SystemFiles(root_), {0, 1}).has_any());
}

TEST_F(HeatSensorsTest, TheNearestTripPointThatSlows) {
  Zone(0, "cpu-0-0-usr", "61000");
  Trip(0, 0, "active", "50000");  // a fan
  Trip(0, 1, "passive", "95000");
  Trip(0, 2, "passive", "90000");
  Trip(0, 3, "critical", "110000");
  Zone(1, "skin-therm", "38500");
  Trip(1, 0, "hot", "43000");
  Zone(2, "gpuss-0-usr", "70000");  // no trip points
  const HeatReading reading = Read();
  EXPECT_DOUBLE_EQ(reading.celsius.value_or(0), 70);
  EXPECT_DOUBLE_EQ(reading.headroom.value_or(0), 4.5);
  EXPECT_FALSE(reading.cap);
}

TEST_F(HeatSensorsTest, BatteriesAndBrokenSensorsDoNotCount) {
  Zone(0, "battery", "44000");
  Trip(0, 0, "passive", "45000");
  Zone(1, "pm8998_tz", "60000");
  Zone(2, "x86_pkg_temp", "-273150");
  Zone(3, "acpitz", "nonsense");
  Zone(4, "soc-thermal", "50000");
  Trip(4, 0, "passive", "0");        // switched off
  Trip(4, 1, "passive", "2000000");  // never reached
  const HeatReading reading = Read();
  EXPECT_DOUBLE_EQ(reading.celsius.value_or(0), 50);
  EXPECT_FALSE(reading.headroom);
}

TEST_F(HeatSensorsTest, TheShareThatCoresAreAllowed) {
  Core(4, "2000000", "2000000");
  Core(5, "2000000", "1000000");
  Core(6, "2000000", "3000000");  // allowed more than it can
  Core(7, "2000000", "2000000");
  EXPECT_DOUBLE_EQ(Read({4, 5}).cap.value_or(0), 0.75);
  const HeatSensors sensors(SystemFiles(root_), {6, 7});
  EXPECT_DOUBLE_EQ(sensors.Read().cap.value_or(0), 1);
  std::filesystem::remove_all(root_ + "/sys/devices/system/cpu/cpu7/cpufreq");  // taken offline
  EXPECT_DOUBLE_EQ(sensors.Read().cap.value_or(0), 0.5);
}

}  // namespace
}  // namespace shoal
