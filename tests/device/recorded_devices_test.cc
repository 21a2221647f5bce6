// What real systems are, read from recorded trees: chips, groups of cores, instruction sets, memory, what is unknown.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "device/profile.h"
#include "recorded_tree.h"

namespace shoal {
namespace {

std::string PathOf(const std::string& name) { return std::string(SHOAL_RECORDED_DEVICES) + "/" + name + ".tree"; }

DeviceProfile ReadRecorded(const std::string& name) {
  const RecordedTree tree(PathOf(name));
  return ReadDeviceProfile(SystemFiles(tree.root()), nullptr);
}

struct Expected {
  const char* file;
  const char* os;
  const char* chip;
  std::vector<const char*> groups;  // "kind name cpus"
  const char* variant;
  std::vector<int> fast_cpus;
};

// Where the chip is "", nothing that an app may read names it: the cores still say what they are.
const Expected kExpected[] = {
    {"snapdragon-865",
     "android",
     "Snapdragon 865",
     {"prime Cortex-A77 7", "performance Cortex-A77 4-6", "efficiency Kryo 4xx Silver 0-3"},
     "armv8.2_2",
     {7, 4, 5, 6}},
    {"snapdragon-888",
     "android",
     "Snapdragon 888",
     {"prime Cortex-X1 7", "performance Cortex-A78 4-6", "efficiency Cortex-A55 0-3"},
     "armv8.2_2",
     {7, 4, 5, 6}},
    {"snapdragon-888-offline", "android", "Snapdragon 888", {"performance Cortex-A55 0"}, "armv8.2_2", {0}},
    {"snapdragon-8-gen-1",
     "android",
     "",
     {"prime Cortex-X2 7", "performance Cortex-A710 4-6", "efficiency Cortex-A510 0-3"},
     "armv8.6_1",
     {7, 4, 5, 6}},
    // A background process: none of the fast cores is allowed, so its fast cores are the little ones it has.
    {"snapdragon-8-gen-2",
     "android",
     "",
     {"prime Cortex-X3 7", "performance Cortex-A715 3-4", "performance Cortex-A710 5-6", "efficiency Cortex-A510 0-2"},
     "armv8.6_0",
     {0, 1, 2}},
    {"snapdragon-8-gen-3",
     "android",
     "",
     {"prime Cortex-X4 7", "performance Cortex-A720 2-6", "efficiency Cortex-A520 0-1"},
     "armv8.6_0",
     {7, 2, 3, 4, 5, 6}},
    // Two cores are faster, and nothing in the recording says which: one group, not a guess.
    {"snapdragon-8-elite", "android", "", {"performance Oryon 0-7"}, "armv8.6_0", {0, 1, 2, 3, 4, 5, 6, 7}},
    {"dimensity-9300",
     "android",
     "",
     {"prime Cortex-X4 4-7", "performance Cortex-A720 0-3"},
     "armv8.6_0",
     {4, 5, 6, 7, 0, 1, 2, 3}},
    {"exynos-2400",
     "android",
     "",
     {"prime Cortex-X4 9", "performance Cortex-A720 4-8", "efficiency Cortex-A520 0-3"},
     "armv8.6_2",
     {9, 4, 5, 6, 7, 8}},
    {"tensor-g3",
     "android",
     "",
     {"prime Cortex-X3 8", "performance Cortex-A715 4-7", "efficiency Cortex-A510 0-3"},
     "armv8.6_2",
     {8, 4, 5, 6, 7}},
    {"pixel-4a",
     "android",
     "Snapdragon 730 family",
     {"performance Kryo 4xx Gold 6-7", "efficiency Kryo 4xx Silver 0-5"},
     "armv8.2_2",
     {6, 7}},
    {"raspberry-pi-4",
     "linux",
     "Broadcom BCM2711 (Raspberry Pi 4)",
     {"performance Cortex-A72 0-3"},
     "armv8.0_1",
     {0, 1, 2, 3}},
    {"raspberry-pi-5",
     "linux",
     "Broadcom BCM2712 (Raspberry Pi 5)",
     {"performance Cortex-A76 0-3"},
     "armv8.2_2",
     {0, 1, 2, 3}},
    {"apple-m1-asahi",
     "linux",
     "Apple M1",
     {"performance Firestorm (M1) 4-7", "efficiency Icestorm (M1) 0-3"},
     "armv8.2_2",
     {4, 5, 6, 7}},
    {"i7-1360p",
     "linux",
     "13th Gen Intel(R) Core(TM) i7-1360P",
     {"performance 13th Gen Intel(R) Core(TM) i7-1360P 0-7", "efficiency 13th Gen Intel(R) Core(TM) i7-1360P 8-15"},
     "alderlake",
     {0, 2, 4, 6}},
    {"cloud-x86", "linux", "AMD EPYC", {"unknown AMD EPYC 0-1"}, "zen4", {0, 1}},
    {"nothing-readable", "android", "", {}, "", {}},
};

class RecordedDevice : public testing::TestWithParam<Expected> {};

TEST_P(RecordedDevice, IsWhatItIs) {
  const Expected& expected = GetParam();
  const DeviceProfile profile = ReadRecorded(expected.file);
  EXPECT_EQ(profile.os, expected.os);
  EXPECT_EQ(profile.topology.chip, expected.chip);
  std::vector<std::string> groups;
  for (const CoreGroup& group : profile.topology.groups) {
    groups.push_back(CoreKindName(group.kind) + std::string(" ") + group.name + " " + CpuListText(group.cpus));
  }
  EXPECT_THAT(groups, testing::ElementsAreArray(expected.groups));
  const InstructionSets sets = profile.topology.instruction_sets.value_or(InstructionSets{});
  EXPECT_EQ(BestCpuVariant(profile.topology.architecture, sets).name, expected.variant);
  EXPECT_EQ(profile.FastCpus(), expected.fast_cpus);
}

TEST_P(RecordedDevice, ItsJsonIsReadable) {
  const DeviceProfile profile = ReadRecorded(GetParam().file);
  const auto json = nlohmann::json::parse(DeviceProfileJson(profile));
  EXPECT_EQ(json["groups"].size(), profile.topology.groups.size());
  EXPECT_EQ(json["memory"]["total_bytes"].is_null(), !profile.memory.total_bytes.has_value());
}

INSTANTIATE_TEST_SUITE_P(All, RecordedDevice, testing::ValuesIn(kExpected), [](const auto& one) {
  std::string name = one.param.file;
  std::erase(name, '-');
  return name;
});

TEST(RecordedDevices, EveryFileHereIsExpected) {
  std::set<std::string> files, expected;
  for (const auto& entry : std::filesystem::directory_iterator(SHOAL_RECORDED_DEVICES)) {
    if (entry.path().extension() == ".tree") files.insert(entry.path().stem().string());
  }
  for (const Expected& one : kExpected) expected.insert(one.file);
  EXPECT_EQ(files, expected);
}

TEST(RecordedDevices, OfflineCoresAreThereAndOffline) {
  const DeviceProfile profile = ReadRecorded("snapdragon-888-offline");
  ASSERT_EQ(profile.topology.cores.size(), 8U);
  EXPECT_TRUE(profile.topology.cores[0].online);
  for (int cpu = 1; cpu < 8; ++cpu) {
    const Core& core = profile.topology.cores[static_cast<std::size_t>(cpu)];
    EXPECT_FALSE(core.online);
    EXPECT_FALSE(core.id) << "what an offline core is cannot be read";
  }
}

TEST(RecordedDevices, AnotherCpusetIsSeen) {
  const DeviceProfile profile = ReadRecorded("snapdragon-8-gen-2");
  EXPECT_EQ(profile.topology.cores[2].allowed, true);
  EXPECT_EQ(profile.topology.cores[7].allowed, false);
  EXPECT_FALSE(ReadRecorded("snapdragon-8-gen-3").topology.cores[7].allowed) << "not recorded, so not known";
}

TEST(RecordedDevices, CapacitiesAndFrequencies) {
  const DeviceProfile profile = ReadRecorded("pixel-4a");
  EXPECT_EQ(profile.topology.groups[0].capacity, 1024U);
  EXPECT_EQ(profile.topology.groups[1].capacity, 492U);
  EXPECT_EQ(profile.topology.groups[0].max_khz, 2208000U);
  EXPECT_FALSE(ReadRecorded("snapdragon-8-gen-1").topology.groups[0].max_khz);
}

TEST(RecordedDevices, MemoryWithTheLimitOfAGroup) {
  const MemoryFacts memory = ReadRecorded("cloud-x86").memory;
  EXPECT_EQ(memory.limit_bytes, 4 * kGiB);
  EXPECT_EQ(memory.available_bytes, 4 * kGiB - kGiB / 2);  // half of the GiB used is file pages
  const MemoryFacts pi = ReadRecorded("raspberry-pi-5").memory;
  EXPECT_EQ(pi.total_bytes, 8243200 * kKiB);
  EXPECT_EQ(pi.swap_free_bytes, 102384 * kKiB);
  EXPECT_FALSE(pi.limit_bytes);
  EXPECT_FALSE(ReadRecorded("pixel-4a").memory.available_bytes) << "not recorded, so not known";
}

TEST(RecordedDevices, CachesOnce) {
  const Topology topology = ReadRecorded("cloud-x86").topology;
  ASSERT_EQ(topology.caches.size(), 7U);  // L1d, L1i, L2 of each core, and one L3
  EXPECT_EQ(topology.caches.back().level, 2);
  const auto shared = std::count_if(topology.caches.begin(), topology.caches.end(),
                                    [](const Cache& cache) { return cache.cpus.size() == 2; });
  EXPECT_EQ(shared, 1);
}

TEST(RecordedDevices, HeatAndBattery) {
  EXPECT_DOUBLE_EQ(ReadRecorded("raspberry-pi-5").power.hottest().value(), 34.2);
  const PowerFacts denied = ReadRecorded("pixel-4a").power;
  EXPECT_TRUE(denied.zones.empty());
  EXPECT_FALSE(denied.has_supplies);
  EXPECT_FALSE(denied.on_mains);
  EXPECT_FALSE(denied.drawn_w());
}

TEST(RecordedDevices, AndroidSaysWhatItIsThroughPrograms) {
  const RecordedTree tree(PathOf("snapdragon-8-gen-3"));
  const CommandRunner run = [](const std::vector<std::string>& command) -> std::optional<std::string> {
    if (command == std::vector<std::string>{"getprop", "ro.soc.model"}) return "SM8650\n";
    if (command == std::vector<std::string>{"getprop", "ro.build.version.sdk"}) return "34\n";
    if (command == std::vector<std::string>{"termux-battery-status"}) {
      return R"({"health":"GOOD","percentage":81,"plugged":"UNPLUGGED","status":"DISCHARGING","temperature":31.4,)"
             R"("current":-512000,"voltage":4000})";
    }
    return std::nullopt;
  };
  const DeviceProfile profile = ReadDeviceProfile(SystemFiles(tree.root()), run);
  EXPECT_EQ(profile.topology.chip, "Snapdragon 8 Gen 3");
  EXPECT_EQ(profile.android_api, 34);
  ASSERT_EQ(profile.power.batteries.size(), 1U);
  EXPECT_EQ(profile.power.batteries[0].percent, 81);
  EXPECT_EQ(profile.power.batteries[0].charging, false);
  EXPECT_EQ(profile.power.on_mains, false);
  EXPECT_NEAR(*profile.power.drawn_w(), 2.048, 1e-9);
}

}  // namespace
}  // namespace shoal
