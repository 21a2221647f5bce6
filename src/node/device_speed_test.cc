// What is kept of a measurement, and when it no longer holds.
#include "node/device_speed.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/check.h"
#include "base/test_folder.h"
#include "node/speed_keeper.h"

namespace shoal {
namespace {

DeviceSpeed Speed() {
  DeviceSpeed speed;
  speed.quantization = "Q4_0";
  speed.cpus = {0, 1};
  speed.matrix = {10e9, 2e9, 5e-6, "CPU_REPACK"};
  speed.memory_bytes_s = 12e9;
  speed.groups = {{"performance", {0, 1}, 12e9}};
  return speed;
}

TEST(SpeedJson, ComesBackAsItWas) {
  const ModelSpeed model{
      0xfedcba9876543210, {1}, {2e-5, 10e9, 6e9, 4e9, 3e9, 1e9, 5e9, 20e9, 15e9, 9e9, 6e9, 4e9, 3e-4}};
  const KnownSpeeds all = ParseSpeedJson(SpeedJson({{Speed()}, {model}}, "a chip"), "a chip");
  ASSERT_EQ(all.models.size(), 1U);
  EXPECT_EQ(all.models[0].fingerprint, model.fingerprint);
  EXPECT_EQ(all.models[0].cpus, model.cpus);
  EXPECT_EQ(all.models[0].speed, model.speed);
  const std::vector<DeviceSpeed>& read = all.devices;
  ASSERT_EQ(read.size(), 1U);
  EXPECT_EQ(read[0].quantization, "Q4_0");
  EXPECT_EQ(read[0].cpus, (std::vector<int>{0, 1}));
  EXPECT_DOUBLE_EQ(read[0].matrix.rows_bytes_s, 2e9);
  EXPECT_EQ(read[0].matrix.layout, "CPU_REPACK");
  ASSERT_EQ(read[0].groups.size(), 1U);
  EXPECT_DOUBLE_EQ(read[0].groups[0].bytes_s, 12e9);
}

TEST(SpeedJson, OfAModelOnADeviceBesideTheCpuIsOfThatDeviceAlone) {
  const MeasuredStageSpeed figures{2e-5, 10e9, 6e9, 4e9, 3e9, 1e9, 5e9, 20e9, 15e9, 9e9, 6e9, 4e9, 3e-4};
  const KnownSpeeds all = ParseSpeedJson(SpeedJson({{}, {{7, {1}, figures, "vulkan | a driver"}}}, "a chip"), "a chip");
  EXPECT_EQ(all.Of(7, {1}), nullptr);
  EXPECT_EQ(all.Of(7, {1}, "vulkan | another driver"), nullptr);
  ASSERT_NE(all.Of(7, {1}, "vulkan | a driver"), nullptr);
  EXPECT_EQ(all.Of(7, {1}, "vulkan | a driver")->speed, figures);
}

TEST(SpeedJson, OfAnotherDeviceOrDamagedIsNothing) {
  const auto count = [](const std::string& text, const std::string& chip) {
    const KnownSpeeds known = ParseSpeedJson(text, chip);
    return known.devices.size() + known.models.size();
  };
  const std::string text =
      SpeedJson({{Speed()}, {{1, {0}, {1e-5, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e-4}}}}, "a chip");
  EXPECT_EQ(count(text, "a chip"), 2U);
  EXPECT_EQ(count(text, "another chip"), 0U);
  EXPECT_EQ(count(text.substr(0, text.size() / 2), "a chip"), 0U);
  EXPECT_EQ(count("", "a chip"), 0U);
  EXPECT_EQ(count(R"({"version":6,"fingerprint":"a chip","speeds":[{"quantization":"Q4_0"},7],)"
                  R"("stages":[{"model":1,"cpus":[0],"pass_s":1},{"model":"x"},7]})",
                  "a chip"),
            0U);
}

TEST(SpeedJson, FieldsOfAnotherTypeCountAsAbsent) {
  const std::string whole = SpeedJson({{Speed()}, {}}, "a chip");
  const auto with = [&](const std::string& field, const std::string& other) {
    const std::size_t at = whole.find(field);
    SHOAL_CHECK(at != std::string::npos);
    return ParseSpeedJson(std::string(whole).replace(at, field.size(), other), "a chip").devices;
  };
  for (const char* other : {"7", "null", "[]", "{}", "true", "-1e300"}) {
    const std::vector<DeviceSpeed> layout = with("\"CPU_REPACK\"", other), kind = with("\"performance\"", other);
    ASSERT_EQ(layout.size(), 1U) << other;
    EXPECT_EQ(layout[0].matrix.layout, "") << other;
    ASSERT_EQ(kind.size(), 1U) << other;
    ASSERT_EQ(kind[0].groups.size(), 1U) << other;
    EXPECT_EQ(kind[0].groups[0].kind, "") << other;
    EXPECT_TRUE(with("\"Q4_0\"", other).empty()) << other;
  }
}

TEST(SaveSpeeds, KeepsTheOldFileWhereANewOneCannotBeWritten) {
  const TestFolder folder;
  const std::string home = folder.path() + "/home", path = home + "/speed.json";
  const DeviceProfile profile;
  ASSERT_TRUE(SaveSpeeds(home, profile, {{Speed()}, {}}).ok());
  EXPECT_EQ(LoadSpeeds(home, profile).devices.size(), 1U);
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));  // as any file of a home
  std::filesystem::create_directories(path + ".new/in the way");
  EXPECT_EQ(SaveSpeeds(home, profile, {}).error().code, ErrorCode::kIo);
  EXPECT_EQ(LoadSpeeds(home, profile).devices.size(), 1U);
}

TEST(FillSpeeds, StaysWithinWhatMembersMayTell) {
  std::vector<DeviceSpeed> speeds(20, Speed());
  speeds[0].matrix.one_row_bytes_s = 1e300;
  speeds[1].matrix.rows_bytes_s = 0;
  speeds[2].matrix.operation_s = 1e9;
  speeds[3].quantization = std::string(100, 'Q');
  DeviceFacts facts;
  FillSpeeds(speeds, facts);
  EXPECT_EQ(facts.speeds.size(), kSpeedsMax);
  for (const SpeedFacts& speed : facts.speeds) {
    EXPECT_LE(speed.quantization.size(), kQuantizationBytesMax);
    EXPECT_GT(speed.rows_bytes_s, 0);
    EXPECT_LE(speed.one_row_bytes_s, kBytesPerSecondMax);
    EXPECT_LE(speed.operation_s, 1);
  }
  EXPECT_DOUBLE_EQ(facts.memory_bytes_s, 12e9);
  ASSERT_EQ(facts.groups.size(), 1U);
  EXPECT_EQ(facts.groups[0].cores, 2);
  FillSpeeds({}, facts);
  EXPECT_EQ(facts.memory_bytes_s, 0);
  EXPECT_TRUE(facts.speeds.empty() && facts.groups.empty());
}

TEST(RationOf, IsOfTheThreadsThatShareIt) {
  EXPECT_EQ(RationOf(std::nullopt, 4), 1);
  EXPECT_EQ(RationOf(1.5, 2), 0.75);
  EXPECT_EQ(RationOf(4, 2), 1);
  EXPECT_EQ(RationOf(0.5, 0), 1);
}

TEST(FingerprintOf, AQuotaChangesNoMeasurement) {  // which is of cores that compute
  DeviceProfile profile;
  const std::string before = FingerprintOf(profile);
  profile.cpu_quota = 0.5;
  EXPECT_EQ(FingerprintOf(profile), before);
}

TEST(SpeedForPlans, SmallOperationsSlowSmallLayers) {
  ModelInfo large, tiny;
  large.layer_bytes.assign(32, 128U << 20);
  tiny.layer_bytes.assign(32, 1U << 20);
  EXPECT_GT(SpeedForPlans(Speed(), large).decode_bytes_s, 9.5e9);
  EXPECT_LT(SpeedForPlans(Speed(), tiny).decode_bytes_s, 6e9);
}

}  // namespace
}  // namespace shoal
