// The table, and what kind of device stands for one that is not in it.
#include "device/power_table.h"

#include <algorithm>

namespace shoal {
namespace {

struct KnownPower {
  const char* chip;  // device/known_chips.cc
  double idle_w, active_w;
  bool estimated;
  const char* source;
};

constexpr KnownPower kKnown[] = {
    {"Broadcom BCM2711 (Raspberry Pi 4)", 2.7, 3.7, false,
     "pidramble.com, power consumption: 540 mA idle, 1280 mA with four cores stressed, at 5 V"},
    {"Broadcom BCM2712 (Raspberry Pi 5)", 2.7, 5, true, "between a Raspberry Pi 4 and its power supply's limit"},
    {"Rockchip RK3588", 2.5, 6, true, "boards with it take some 2 to 3 W idle and below 10 W with all cores busy"},
    {"Apple M1", 4.2, 22, false, "AnandTech on the Mac mini: 4.2 W idle, 26.5 W with many threads"},
    {"Apple M2", 4.2, 22, true, "as an M1"},
};

constexpr double kDesktopIdle_w = 10, kDesktopCore_w = 4, kDesktopMost_w = 100;

}  // namespace

DevicePower PowerOf(const DeviceProfile& profile) {
  for (const KnownPower& known : kKnown) {
    if (profile.topology.chip == known.chip) return {known.idle_w, known.active_w, known.estimated, known.source};
  }
  if (profile.os == "android") {
    return {0.5, 5, true,
            "phones run models on their cores with 4 to 8 W (omr.it.com, thermal throttling in mobile LLM)"};
  }
  if (!profile.power.batteries.empty()) return {4, 18, true, "a laptop with its screen off"};
  const bool is_board = profile.topology.architecture == CpuArchitecture::kArm64 && !profile.topology.board.empty();
  if (is_board) return {3, 6, true, "a board with a phone's kind of cores"};
  const auto cores = static_cast<double>(profile.FastCpus().size());
  return {kDesktopIdle_w, std::clamp(cores * kDesktopCore_w, kDesktopCore_w, kDesktopMost_w), true,
          "a small desktop: 10 W idle, 4 W more for each core that computes"};
}

bool IsOnBattery(const PowerFacts& power) {
  if (power.batteries.empty() || power.on_mains.value_or(false)) return false;
  return std::none_of(power.batteries.begin(), power.batteries.end(),
                      [](const Battery& battery) { return battery.charging.value_or(false); });
}

}  // namespace shoal
