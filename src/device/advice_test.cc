// Advice and checks for made-up devices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/units.h"
#include "device/advice.h"
#include "device/health.h"
#include "device/test_cores.h"

namespace shoal {
namespace {

DeviceProfile Phone() {
  DeviceProfile profile;
  profile.os = "android";
  profile.android_api = 34;
  profile.topology = PhoneTopology();
  profile.topology.architecture = CpuArchitecture::kArm64;
  profile.topology.instruction_sets = InstructionSets{"fp16", "dotprod", "i8mm"};
  profile.memory = {11 * kGiB, 6 * kGiB, std::nullopt, std::nullopt, std::nullopt};
  return profile;
}

TEST(AdviseDevice, APhone) {
  const DeviceAdvice advice = AdviseDevice(Phone());
  EXPECT_EQ(advice.variant.name, "armv8.6_0");
  EXPECT_EQ(advice.prefill_cpus, (std::vector<int>{7, 2, 3, 4, 5, 6}));
  EXPECT_EQ(advice.decode_cpus, advice.prefill_cpus);
  EXPECT_EQ(advice.largest_model, "4B");  // 4.8 GiB: 8B needs 5.4
  EXPECT_NEAR(advice.largest_model_bytes, 2.9 * static_cast<double>(kGiB), 1e7);
  EXPECT_EQ(advice.cluster_model, "14B");  // 9.6 of 9.6 GiB
  EXPECT_THAT(advice.threads_why, testing::HasSubstr("efficiency cores stay out (2)"));
}

TEST(AdviseDevice, ManyCoresDecodeOnFewer) {
  DeviceProfile profile = Phone();
  for (Core& core : profile.topology.cores) core.id = CoreId{0x51, 0, 0x001, 0};
  profile.topology.groups = GroupCores(profile.topology.cores, {});
  const DeviceAdvice advice = AdviseDevice(profile);
  EXPECT_EQ(advice.prefill_cpus.size(), 8U);
  EXPECT_EQ(advice.decode_cpus.size(), 6U);
}

TEST(AdviseDevice, NothingKnownNothingSaid) {
  const DeviceAdvice advice = AdviseDevice(DeviceProfile{});
  EXPECT_EQ(advice.variant.name, "");
  EXPECT_TRUE(advice.decode_cpus.empty());
  EXPECT_EQ(advice.quantization, "");
  EXPECT_EQ(advice.largest_model, "");
  EXPECT_THAT(advice.memory_why, testing::HasSubstr("cannot be read"));
}

HealthCheck Find(const std::vector<HealthCheck>& checks, const std::string& name) {
  const auto at = std::find_if(checks.begin(), checks.end(), [&](const HealthCheck& c) { return c.name == name; });
  return at == checks.end() ? HealthCheck{"absent: " + name, HealthState::kUnknown, "", ""} : *at;
}

TEST(CheckHealth, APhoneInTheBackground) {
  DeviceProfile profile = Phone();
  for (Core& core : profile.topology.cores) core.allowed = core.cpu < 2;
  profile.power.batteries = {{"battery", 12, false, 31.0}};
  profile.power.zones = {{"cpu", 91.0}};
  profile.memory.available_bytes = 500 * kMiB;
  const CommandRunner run = [](const std::vector<std::string>& command) -> std::optional<std::string> {
    return command.front() == "settings" ? std::optional<std::string>("null\n") : std::nullopt;
  };
  const auto checks = CheckHealth(profile, SystemFiles("/nowhere"), run, false);
  for (const char* name : {"cores", "memory", "heat", "battery", "phantom process killer", "clock"}) {
    const HealthCheck check = Find(checks, name);
    EXPECT_EQ(check.state, HealthState::kProblem) << name << ": " << check.found;
    EXPECT_FALSE(check.advice.empty()) << name;
  }
  for (const char* name : {"battery optimisation", "wake lock", "Wi-Fi power save"}) {
    EXPECT_EQ(Find(checks, name).state, HealthState::kUnknown) << name;
    EXPECT_FALSE(Find(checks, name).advice.empty()) << "what cannot be read is for the person to look at";
  }
}

TEST(CheckHealth, WhatIsInOrderIsOk) {
  DeviceProfile profile = Phone();
  profile.power.batteries = {{"battery", 80, true, 31.0}};
  profile.power.zones = {{"cpu", 40.0}};
  const CommandRunner run = [](const std::vector<std::string>& command) -> std::optional<std::string> {
    return command.front() == "settings" ? std::optional<std::string>("false\n") : std::nullopt;
  };
  const auto checks = CheckHealth(profile, SystemFiles("/nowhere"), run, true);
  for (const char* name : {"cores", "memory", "heat", "battery", "phantom process killer", "clock"}) {
    EXPECT_EQ(Find(checks, name).state, HealthState::kOk) << name;
  }
}

TEST(CheckHealth, NothingReadableIsUnknownAndNoProblem) {
  for (const HealthCheck& check : CheckHealth(DeviceProfile{}, SystemFiles("/nowhere"), nullptr, std::nullopt)) {
    EXPECT_NE(check.state, HealthState::kProblem) << check.name;
  }
}

}  // namespace
}  // namespace shoal
