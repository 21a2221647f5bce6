// One function a check.
#include "device/health.h"

#if defined(__linux__) && !defined(__ANDROID__)
#include <sys/timex.h>
#endif

#include <algorithm>
#include <cstdio>

#include "base/units.h"

namespace shoal {
namespace {

constexpr double kHotCelsius = 85;  // phones throttle their cores from about here on
constexpr int kBatteryLowPercent = 20;
constexpr std::uint64_t kMemoryLow = kGiB;
constexpr int kPhantomApi = 31;         // Android 12 brought the phantom process killer
constexpr const char* kPort = "48100";  // the node's default port

struct Seen {
  const DeviceProfile& profile;
  const SystemFiles& files;
  const CommandRunner& run;
  bool is_android() const { return profile.os == "android"; }
  std::optional<std::string> Run(const std::vector<std::string>& command) const {
    return run ? run(command) : std::nullopt;
  }
};

HealthCheck Ok(const char* name, const std::string& found) { return {name, HealthState::kOk, found, ""}; }
HealthCheck Problem(const char* name, const std::string& found, const std::string& advice) {
  return {name, HealthState::kProblem, found, advice};
}
HealthCheck Unknown(const char* name, const std::string& found, const std::string& advice) {
  return {name, HealthState::kUnknown, found, advice};
}

std::string Number(double value, const char* unit) {
  char text[48];
  std::snprintf(text, sizeof text, "%.0f%s", value, unit);
  return text;
}

HealthCheck CheckCores(const Seen& seen) {
  constexpr const char* kName = "cores";
  std::vector<int> denied, offline;
  bool known = false;
  for (const Core& core : seen.profile.topology.cores) {
    known |= core.allowed.has_value();
    if (!core.online) offline.push_back(core.cpu);
    if (core.online && core.allowed == false) denied.push_back(core.cpu);
  }
  if (!denied.empty()) {
    return Problem(kName, "the system keeps this process off cores " + CpuListText(denied),
                   seen.is_android() ? "bring Termux to the foreground or take its wake lock: Android gives background "
                                       "processes the slow cores only"
                                     : "start it outside that cpuset or without taskset");
  }
  if (!offline.empty()) {
    const std::string found = "cores " + CpuListText(offline) + " are offline";
    // Of PCs it is mostly the second thread of each core, turned off on purpose.
    if (seen.profile.topology.architecture == CpuArchitecture::kX86)
      return Ok(kName, found + ", all others may be used");
    return Problem(kName, found, "they come back as the device cools or is charged");
  }
  if (!known) return Unknown(kName, "which cores this process may use cannot be read", "");
  return Ok(kName, "all " + std::to_string(seen.profile.topology.cores.size()) + " may be used");
}

HealthCheck CheckMemory(const Seen& seen) {
  constexpr const char* kName = "memory";
  const auto& available = seen.profile.memory.available_bytes;
  if (!available) return Unknown(kName, "what is free cannot be read", "");
  if (*available >= kMemoryLow) return Ok(kName, "free: " + FormatBytes(*available));
  return Problem(kName, "only " + FormatBytes(*available) + " are free",
                 "end other programs; a small model's layers need 1 GiB");
}

HealthCheck CheckHeat(const Seen& seen) {
  constexpr const char* kName = "heat";
  const auto hottest = seen.profile.power.hottest();
  if (!hottest)
    return Unknown(kName, "no temperature can be read",
                   "if it slows down after minutes, it is hot: take off the case, do not charge it fast");
  if (*hottest < kHotCelsius) return Ok(kName, "the hottest part has " + Number(*hottest, " C"));
  return Problem(kName, "a part has " + Number(*hottest, " C"), "let it cool: it computes slower when hot");
}

HealthCheck CheckBattery(const Seen& seen) {
  constexpr const char* kName = "battery";
  const PowerFacts& power = seen.profile.power;
  if (power.batteries.empty()) {
    if (power.has_supplies && !seen.is_android()) return Ok(kName, "there is none");
    return Unknown(kName, "no battery can be read",
                   seen.is_android() ? "install the app Termux:API and its package: pkg install termux-api" : "");
  }
  const Battery& battery = power.batteries.front();
  if (!battery.percent) return Unknown(kName, "its charge cannot be read", "");
  const std::string found = "charge " + std::to_string(*battery.percent) + " %" +
                            (!battery.charging   ? ""
                             : *battery.charging ? ", charging"
                                                 : ", not charging");
  if (*battery.percent > kBatteryLowPercent || battery.charging == true || power.on_mains == true)
    return Ok(kName, found);
  return Problem(kName, found, "plug it in: a node on an empty battery leaves without a word");
}

HealthCheck CheckBatteryOptimisation(const Seen& seen) {
  constexpr const char* kName = "battery optimisation";
  if (!seen.is_android()) return Ok(kName, "not an Android system");
  return Unknown(
      kName, "an app cannot ask",
      "Settings > Apps > Termux > Battery > Unrestricted, and what the maker adds to that (dontkillmyapp.com)");
}

HealthCheck CheckWakeLock(const Seen& seen) {
  constexpr const char* kName = "wake lock";
  if (seen.is_android())
    return Unknown(kName, "an app cannot ask",
                   "run termux-wake-lock before shoal up; the notification of Termux then says so");
  if (seen.profile.power.batteries.empty() && seen.profile.power.has_supplies) {
    return Ok(kName, "not needed without a battery");
  }
  return Unknown(kName, "a laptop sleeps when it is idle or its lid is shut",
                 "systemd-inhibit --what=sleep:handle-lid-switch shoal up; on macOS: caffeinate -i shoal up");
}

HealthCheck CheckPhantomKiller(const Seen& seen) {
  constexpr const char* kName = "phantom process killer";
  if (!seen.is_android()) return Ok(kName, "not an Android system");
  const std::string advice = "once, over adb: settings put global settings_enable_monitor_phantom_procs false";
  if (seen.profile.android_api && *seen.profile.android_api < kPhantomApi) return Ok(kName, "this Android has none");
  const auto answer = seen.Run({"settings", "get", "global", "settings_enable_monitor_phantom_procs"});
  const std::string value = answer ? std::string(Trim(*answer)) : "";
  if (value == "false" || value == "0") return Ok(kName, "it is off");
  if (value == "true" || value == "1" || value == "null")
    return Problem(kName, "it is on and may kill what runs in Termux", advice);
  return Unknown(kName, "the setting cannot be read", advice);
}

HealthCheck CheckWifi(const Seen& seen) {
  constexpr const char* kName = "Wi-Fi power save";
  if (seen.is_android())
    return Unknown(kName, "an app cannot ask",
                   "keep the screen on or Wi-Fi busy if round trips rise to 100 ms and more; shoal status shows them");
  std::string wireless;
  for (const std::string& name : seen.files.List("/sys/class/net")) {
    if (seen.files.Exists("/sys/class/net/" + name + "/wireless")) wireless = name;
  }
  if (wireless.empty()) {
    if (!seen.files.Exists("/sys/class/net")) return Unknown(kName, "network interfaces cannot be read", "");
    return Ok(kName, "no Wi-Fi");
  }
  const auto answer = seen.Run({"iw", "dev", wireless, "get", "power_save"});
  if (answer && answer->find("Power save: off") != std::string::npos) return Ok(kName, "off on " + wireless);
  const std::string advice = "sudo iw dev " + wireless + " set power_save off";
  if (answer && answer->find("Power save: on") != std::string::npos) {
    return Problem(kName, "on for " + wireless + ": a token waits up to 100 ms at every hop", advice);
  }
  return Unknown(kName, wireless + " does not say", advice);
}

HealthCheck CheckFirewall(const Seen& seen) {
  constexpr const char* kName = "firewall";
  const std::string port = kPort;
  if (const auto ufw = seen.files.Read("/etc/ufw/ufw.conf"); ufw && ufw->find("ENABLED=yes") != std::string::npos) {
    return Unknown(kName, "ufw is on; its rules are for root to read",
                   "sudo ufw allow " + port + "/tcp; sudo ufw allow " + port + "/udp; sudo ufw allow 5353/udp");
  }
  const auto state = seen.Run({"firewall-cmd", "--state"});
  if (state && Trim(*state) == "running") {
    const auto ports = seen.Run({"firewall-cmd", "--list-ports"});
    const bool open =
        ports && ports->find(port + "/tcp") != std::string::npos && ports->find(port + "/udp") != std::string::npos;
    if (open) return Ok(kName, "firewalld lets port " + port + " through");
    return Problem(kName, "firewalld is on and does not list port " + port,
                   "sudo firewall-cmd --permanent --add-port=" + port + "/tcp --add-port=" + port +
                       "/udp --add-service=mdns && sudo firewall-cmd --reload");
  }
  const auto rules = seen.Run({"nft", "list", "ruleset"});
  if (rules && rules->find("policy drop") != std::string::npos) {
    return Unknown(kName, "nftables drops by default", "let port " + port + " (TCP and UDP) and UDP 5353 in");
  }
  if (rules) return Ok(kName, "no rule that drops by default");
  return Unknown(kName, "neither ufw nor firewalld; other rules are for root to read",
                 "if nodes do not find this one: let port " + port + " (TCP and UDP) and UDP 5353 in");
}

HealthCheck CheckClock(std::optional<bool> synchronized) {
  constexpr const char* kName = "clock";
  if (!synchronized)
    return Unknown(kName, "the system does not say whether it follows a time server",
                   "certificates have dates: a clock years off locks a node out");
  if (*synchronized) return Ok(kName, "it follows a time server");
  return Problem(kName, "it follows no time server",
                 "timedatectl set-ntp true; certificates have dates, a clock years off locks a node out");
}

HealthCheck CheckGovernor(const Seen& seen) {
  constexpr const char* kName = "CPU governor";
  const std::string folder = "/sys/devices/system/cpu/cpu0/cpufreq";
  const auto governor = seen.files.ReadLine(folder + "/scaling_governor");
  if (!governor) return Unknown(kName, "it cannot be read", "");
  const std::string driver = seen.files.ReadLine(folder + "/scaling_driver").value_or("");
  // Drivers with states of their own call their balanced mode powersave.
  const bool own_states = driver == "intel_pstate" || driver.starts_with("amd-pstate");
  if (*governor != "powersave" || own_states) return Ok(kName, *governor);
  return Problem(kName, "powersave: the cores stay at their lowest frequency",
                 "sudo cpupower frequency-set -g schedutil");
}

}  // namespace

const char* HealthStateName(HealthState state) {
  switch (state) {
    case HealthState::kOk: return "ok";
    case HealthState::kProblem: return "problem";
    case HealthState::kUnknown: break;
  }
  return "unknown";
}

std::optional<bool> ClockIsSynchronized() {
#if defined(__linux__) && !defined(__ANDROID__)  // Android kills an app for this call, even where it only asks
  timex state{};
  const int status = ::adjtimex(&state);
  if (status < 0) return std::nullopt;
  return status != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
#else
  return std::nullopt;
#endif
}

std::vector<HealthCheck> CheckHealth(const DeviceProfile& profile, const SystemFiles& files, const CommandRunner& run,
                                     std::optional<bool> clock_synchronized) {
  const Seen seen{profile, files, run};
  return {CheckCores(seen),
          CheckMemory(seen),
          CheckHeat(seen),
          CheckBattery(seen),
          CheckGovernor(seen),
          CheckBatteryOptimisation(seen),
          CheckWakeLock(seen),
          CheckPhantomKiller(seen),
          CheckWifi(seen),
          CheckFirewall(seen),
          CheckClock(clock_synchronized)};
}

}  // namespace shoal
