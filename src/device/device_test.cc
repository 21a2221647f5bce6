// The parsers on what is odd and on what is hostile; commands; this machine.
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cstring>

#include "base/test_folder.h"
#include "device/command.h"
#include "device/cpu_affinity.h"
#include "device/cpuinfo.h"
#include "device/instruction_sets.h"
#include "device/known_chips.h"
#include "device/power_facts.h"
#include "device/profile.h"
#include "device/system_files.h"

namespace shoal {
namespace {

TEST(ParseCpuList, ReadsAndWrites) {
  EXPECT_EQ(ParseCpuList("0-3,5,7-8\n"), (std::vector<int>{0, 1, 2, 3, 5, 7, 8}));
  EXPECT_EQ(ParseCpuList(" "), std::vector<int>{});
  for (const char* bad : {"a", "1-", "-1", "3-1", "0-999999999", "1,", "0x3", "99999999999999999999"}) {
    EXPECT_FALSE(ParseCpuList(bad)) << bad;
  }
  EXPECT_EQ(CpuListText({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
  EXPECT_EQ(CpuListText({}), "");
}

TEST(ParseNumbers, WholeTextOnly) {
  EXPECT_EQ(ParseSystemNumber(" 0x41fd4e0\n"), 0x41fd4e0U);
  EXPECT_FALSE(ParseSystemNumber("12 kB"));
  EXPECT_FALSE(ParseSystemNumber("-1"));
  EXPECT_EQ(ParseSystemInteger("-5000"), -5000);
  EXPECT_EQ(ParseCacheSize("48K"), 48U << 10);
  EXPECT_EQ(ParseCacheSize("32M"), 32U << 20);
  EXPECT_FALSE(ParseCacheSize("99999999999999M"));
  EXPECT_FALSE(ParseCacheSize(""));
}

TEST(ParseCpuInfo, OldAndroidNamesTheKindFirst) {
  const CpuInfo info = ParseCpuInfo(
      "Processor\t: AArch64 Processor rev 14 (aarch64)\nprocessor\t: 0\nCPU implementer\t: 0x51\nCPU part\t: 0x805\n"
      "\nprocessor\t: 7\nFeatures\t: fp asimddp\nHardware\t: Qualcomm Technologies, Inc SM8250\n");
  ASSERT_EQ(info.cpus.size(), 2U);
  EXPECT_EQ(info.cpus[0].core->part, 0x805U);
  EXPECT_TRUE(info.cpus[0].features.empty());
  EXPECT_EQ(info.cpus[1].cpu, 7);
  EXPECT_FALSE(info.cpus[1].core);
  EXPECT_EQ(info.hardware, "Qualcomm Technologies, Inc SM8250");
}

TEST(ParseCpuInfo, HostileTextSizesNothing) {
  EXPECT_TRUE(ParseCpuInfo("processor : 99999999\nCPU part : 0xd4e\n").cpus.empty());
  std::string many;
  for (int i = 0; i < 5000; ++i) many += "processor : 1\n";
  EXPECT_EQ(ParseCpuInfo(many).cpus.size(), static_cast<std::size_t>(kCpusMax));
  EXPECT_FALSE(ParseCpuInfo("processor : 0\nCPU part : 0xfffff\n").cpus[0].core);
}

TEST(DecodeMidr, Fields) {
  const auto id = DecodeMidr(0x411fd4e0);
  ASSERT_TRUE(id);
  EXPECT_EQ(*id, (CoreId{0x41, 1, 0xd4e, 0}));
  EXPECT_STREQ(FindCore(*id)->name, "Cortex-X3");
  EXPECT_FALSE(DecodeMidr(0));
}

TEST(FindChip, WholeWordsOnly) {
  EXPECT_STREQ(FindChip("Qualcomm Technologies, Inc SM8650")->name, "Snapdragon 8 Gen 3");
  EXPECT_STREQ(FindChip(std::string_view("google,ZUMA HUSKY\0google,ZUMA", 29))->name, "Google Tensor G3");
  EXPECT_EQ(FindChip("qcom,sm86501"), nullptr);
  EXPECT_EQ(FindChip(""), nullptr);
}

TEST(InstructionSets, HwcapsSayTheSameAsWords) {
  const InstructionSets words =
      InstructionSetsOf(CpuArchitecture::kArm64, {"fp", "asimdhp", "asimddp", "i8mm", "bf16"});
  EXPECT_EQ(words, (InstructionSets{"fp16", "dotprod", "i8mm", "bf16"}));
  EXPECT_EQ(InstructionSetsOfHwcap(1U << 10 | 1U << 20, 1U << 13 | 1U << 14), words);
  EXPECT_EQ(InstructionSetsOf(CpuArchitecture::kX86, {"avx512f", "avx2"}), InstructionSets{"avx2"})
      << "half of AVX-512 is none";
}

TEST(ParseAuxv, FindsBoth) {
  const std::uint64_t pairs[] = {16, 0x1234, 26, 0x5678, 0, 0};
  std::string bytes(sizeof pairs, 0);
  std::memcpy(bytes.data(), pairs, sizeof pairs);
  EXPECT_EQ(ParseAuxv(bytes)->hwcap, 0x1234U);
  EXPECT_EQ(ParseAuxv(bytes)->hwcap2, 0x5678U);
  EXPECT_FALSE(ParseAuxv(bytes.substr(0, 15)));
}

TEST(BestCpuVariant, SmeNeedsSve) {
  EXPECT_EQ(BestCpuVariant(CpuArchitecture::kArm64, {"dotprod", "fp16", "i8mm", "sve", "sve2", "sme"}).name,
            "armv9.2_2");
  EXPECT_EQ(BestCpuVariant(CpuArchitecture::kArm64, {"dotprod", "fp16", "i8mm", "sme"}).name, "armv8.6_0");
  EXPECT_EQ(BestCpuVariant(CpuArchitecture::kUnknown, {}).name, "");
}

// What drivers say of a battery that is discharged: kernel.org, ABI/testing/sysfs-class-power.
class BatteryDraw : public testing::Test {
 protected:
  std::optional<double> Drawn(const std::vector<std::pair<const char*, const char*>>& files) {
    const TestFolder folder;
    folder.Write("/sys/class/power_supply/BAT0/type", "Battery\n");
    for (const auto& [name, text] : files) folder.Write(std::string("/sys/class/power_supply/") + name, text);
    return ReadSupplyFacts(SystemFiles(folder.path()), nullptr).drawn_w();
  }
};

TEST_F(BatteryDraw, IsPowerOrCurrentTimesVoltage) {
  EXPECT_NEAR(*Drawn({{"BAT0/status", "Discharging\n"}, {"BAT0/power_now", "7250000\n"}}), 7.25, 1e-9);
  // Some drivers count what goes out of it below zero.
  for (const char* current : {"812000\n", "-812000\n"}) {
    const auto drawn = Drawn({{"BAT0/status", "Discharging\n"},
                              {"BAT0/power_now", "0\n"},
                              {"BAT0/current_now", current},
                              {"BAT0/voltage_now", "3850000\n"}});
    EXPECT_NEAR(*drawn, 0.812 * 3.85, 1e-9);
  }
}

TEST_F(BatteryDraw, IsUnknownWhereItIsNotWhatTheDeviceTakes) {
  const std::pair<const char*, const char*> power{"BAT0/power_now", "7250000\n"}, out{"BAT0/status", "Discharging\n"};
  EXPECT_FALSE(Drawn({power})) << "nothing says which way";
  EXPECT_FALSE(Drawn({power, {"BAT0/status", "Charging\n"}}));
  EXPECT_FALSE(Drawn({power, out, {"AC/type", "Mains\n"}, {"AC/online", "1\n"}}));
  EXPECT_FALSE(Drawn({power, out, {"BAT1/type", "Battery\n"}, {"BAT1/status", "Discharging\n"}}))
      << "the other one does not tell";
  EXPECT_FALSE(Drawn({out}));
  EXPECT_FALSE(Drawn({out, {"BAT0/current_now", "812000\n"}}));
  EXPECT_FALSE(Drawn({out, {"BAT0/current_now", "812\n"}, {"BAT0/voltage_now", "3850000\n"}})) << "milliamperes";
  EXPECT_FALSE(Drawn({out, {"BAT0/power_now", "9000000000000\n"}}));
  EXPECT_TRUE(Drawn({power, out, {"pen/type", "Battery\n"}, {"pen/scope", "Device\n"}})) << "not of this device";
}

TEST(ParseTermuxBattery, TellsPowerWhereTheAppIsNewEnough) {
  const auto watts = [](const char* more) {
    return ParseTermuxBattery(std::string(R"({"percentage":60,"status":"DISCHARGING")") + more + "}")->battery.watts;
  };
  EXPECT_NEAR(*watts(R"(,"current":-650000,"voltage":4000)"), 2.6, 1e-9);
  EXPECT_FALSE(watts(R"(,"current":-650000)"));
  EXPECT_FALSE(watts(R"(,"current":"x","voltage":4000)"));
  EXPECT_FALSE(watts(R"(,"current":0,"voltage":4000)"));
}

TEST(ParseTermuxBattery, RefusesWhatIsNotOne) {
  EXPECT_FALSE(ParseTermuxBattery("[]"));
  EXPECT_FALSE(ParseTermuxBattery("{}"));
  EXPECT_FALSE(ParseTermuxBattery("termux-battery-status: not found"));
  const auto odd = ParseTermuxBattery(R"({"percentage":4000,"status":"CHARGING","temperature":"hot"})");
  ASSERT_TRUE(odd);
  EXPECT_FALSE(odd->battery.percent);
  EXPECT_FALSE(odd->battery.celsius);
  EXPECT_EQ(odd->battery.charging, true);
}

TEST(RunCommand, TakesWhatIsPrinted) {
  EXPECT_EQ(RunCommand({"printf", "a b"}), "a b");
  EXPECT_FALSE(RunCommand({"false"}));
  EXPECT_FALSE(RunCommand({"shoal-no-such-program"}));
  EXPECT_FALSE(RunCommand({}));
}

TEST(RunCommand, EndsWhatPrintsWithoutEnd) { EXPECT_FALSE(RunCommand({"yes"})); }

// termux-battery-status is a script, and without the app Termux:API its program waits for ever.
TEST(RunCommand, LeavesNothingOfAScriptThatTakesTooLong) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);  // whoever runs holds an end of it
  const std::string script = "sleep 1000 & sleep 1000; :";
  EXPECT_FALSE(RunCommandFor({"sh", "-c", script}, std::chrono::milliseconds(300)));
  ::close(ends[1]);
  pollfd wait{ends[0], POLLIN, 0};
  EXPECT_EQ(::poll(&wait, 1, 10'000), 1) << "a process is left";
  ::close(ends[0]);
}

#if defined(__linux__)
TEST(ReadDeviceProfile, ThisMachineHasCoresAndMemory) {
  const DeviceProfile profile = ReadDeviceProfile();
  EXPECT_FALSE(profile.topology.cores.empty());
  EXPECT_FALSE(profile.UsableCpus().empty());
  ASSERT_TRUE(profile.memory.total_bytes);
  EXPECT_GT(*profile.memory.total_bytes, profile.memory.available_bytes.value_or(0));
  std::vector<int> allowed;
  for (const Core& core : profile.topology.cores) {
    if (core.allowed == true) allowed.push_back(core.cpu);
  }
  EXPECT_EQ(allowed, AllowedCpus()) << "what /proc says is what the system grants";
}
#endif

}  // namespace
}  // namespace shoal
