// https://docs.kernel.org/admin-guide/abi-testing.html (sysfs-class-power), driver-api/thermal/sysfs-api.html
#include "device/power_facts.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

namespace shoal {
namespace {

constexpr std::size_t kZonesMax = 256;
constexpr double kCelsiusMin = -60, kCelsiusMax = 200;  // beyond that a sensor is broken, not hot
constexpr std::size_t kTypeBytesMax = 64;
// Of a device in use: some drivers tell milliamperes where microamperes are due, or nothing but zeros.
constexpr double kWattsMin = 0.05, kWattsMax = 400;

std::optional<double> Plausible(double celsius) {
  return celsius > kCelsiusMin && celsius < kCelsiusMax ? std::optional(celsius) : std::nullopt;
}

std::optional<std::int64_t> ReadInteger(const SystemFiles& files, const std::string& path) {
  const auto line = files.ReadLine(path);
  return line ? ParseSystemInteger(*line) : std::nullopt;
}

// "Charging", "Discharging", "Not charging", "Full", "Unknown".
std::optional<bool> ChargingOf(std::string_view status) {
  if (status == "Charging" || status == "CHARGING") return true;
  if (status == "Discharging" || status == "DISCHARGING" || status == "Not charging" || status == "NOT_CHARGING" ||
      status == "Full" || status == "FULL") {
    return false;
  }
  return std::nullopt;
}

std::optional<int> Percent(std::optional<std::int64_t> value) {
  return value && *value >= 0 && *value <= 100 ? std::optional(static_cast<int>(*value)) : std::nullopt;
}

std::optional<double> PlausibleWatts(double watts) {
  return watts >= kWattsMin && watts <= kWattsMax ? std::optional(watts) : std::nullopt;
}

// power_now (µW) or current_now (µA; below zero in some drivers when it is discharged) times voltage_now (µV).
std::optional<double> ReadWatts(const SystemFiles& files, const std::string& folder) {
  if (const auto power = ReadInteger(files, folder + "/power_now"); power && *power != 0) {
    return PlausibleWatts(std::abs(static_cast<double>(*power)) * 1e-6);
  }
  const auto current = ReadInteger(files, folder + "/current_now"),
             voltage = ReadInteger(files, folder + "/voltage_now");
  if (!current || !voltage) return std::nullopt;
  return PlausibleWatts(std::abs(static_cast<double>(*current)) * 1e-6 * static_cast<double>(*voltage) * 1e-6);
}

void ReadZones(const SystemFiles& files, PowerFacts& facts) {
  for (const std::string& name : files.List("/sys/class/thermal")) {
    if (!name.starts_with("thermal_zone") || facts.zones.size() >= kZonesMax) continue;
    const std::string folder = "/sys/class/thermal/" + name;
    const auto celsius = ReadCelsius(files, folder + "/temp");
    const auto type = files.ReadLine(folder + "/type");
    if (!celsius && !type) continue;
    facts.zones.push_back({type.value_or("").substr(0, kTypeBytesMax), celsius});
  }
}

void ReadSupplies(const SystemFiles& files, PowerFacts& facts) {
  facts.has_supplies = files.Exists("/sys/class/power_supply");
  for (const std::string& name : files.List("/sys/class/power_supply")) {
    const std::string folder = "/sys/class/power_supply/" + name;
    const std::string type = files.ReadLine(folder + "/type").value_or("");
    if (type == "Battery") {
      // A battery of a mouse or a pen is not this device's.
      if (files.ReadLine(folder + "/scope").value_or("") == "Device") continue;
      const auto tenths = ReadInteger(files, folder + "/temp");
      facts.batteries.push_back({name, Percent(ReadInteger(files, folder + "/capacity")),
                                 ChargingOf(files.ReadLine(folder + "/status").value_or("")),
                                 tenths ? Plausible(static_cast<double>(*tenths) / 10) : std::nullopt,
                                 ReadWatts(files, folder)});
    } else if (!type.empty()) {
      const auto online = ReadInteger(files, folder + "/online");
      if (online) facts.on_mains = facts.on_mains.value_or(false) || *online > 0;
    }
  }
}

}  // namespace

std::optional<double> PowerFacts::hottest() const {
  std::optional<double> hottest;
  for (const ThermalZone& zone : zones) {
    if (zone.celsius && (!hottest || *zone.celsius > *hottest)) hottest = zone.celsius;
  }
  return hottest;
}

std::optional<double> PowerFacts::drawn_w() const {
  if (batteries.empty() || on_mains.value_or(false)) return std::nullopt;
  double watts = 0;
  for (const Battery& battery : batteries) {
    if (battery.charging.value_or(true) || !battery.watts) return std::nullopt;
    watts += *battery.watts;
  }
  return watts;
}

std::optional<TermuxBattery> ParseTermuxBattery(std::string_view text) {
  const nlohmann::json root = nlohmann::json::parse(text, nullptr, false);
  if (!root.is_object()) return std::nullopt;
  const auto find = [&](const char* key) { return root.find(key); };
  TermuxBattery found;
  found.battery.name = "battery";
  bool any = false;
  if (const auto at = find("percentage"); at != root.end() && at->is_number_integer()) {
    found.battery.percent = Percent(at->get<std::int64_t>());
    any = true;
  }
  if (const auto at = find("status"); at != root.end() && at->is_string()) {
    found.battery.charging = ChargingOf(at->get_ref<const std::string&>());
    any = true;
  }
  if (const auto at = find("temperature"); at != root.end() && at->is_number()) {
    found.battery.celsius = Plausible(at->get<double>());
  }
  // Microamperes, and millivolts where the app is new enough to tell them.
  const auto current = find("current"), voltage = find("voltage");
  if (current != root.end() && voltage != root.end() && current->is_number() && voltage->is_number()) {
    found.battery.watts =
        PlausibleWatts(std::abs(current->get<double>()) * 1e-6 * std::abs(voltage->get<double>()) * 1e-3);
  }
  if (const auto at = find("plugged"); at != root.end() && at->is_string()) {
    found.plugged = at->get_ref<const std::string&>() != "UNPLUGGED";
  }
  if (!any) return std::nullopt;
  return found;
}

std::optional<double> ReadCelsius(const SystemFiles& files, const std::string& path) {
  const auto milli = ReadInteger(files, path);
  return milli ? Plausible(static_cast<double>(*milli) / 1000) : std::nullopt;
}

PowerFacts ReadPowerFacts(const SystemFiles& files, const CommandRunner& run) {
  PowerFacts facts = ReadSupplyFacts(files, run);
  ReadZones(files, facts);
  return facts;
}

PowerFacts ReadSupplyFacts(const SystemFiles& files, const CommandRunner& run) {
  PowerFacts facts;
  ReadSupplies(files, facts);
  if (!facts.batteries.empty() || !run) return facts;
  const auto output = run({"termux-battery-status"});
  const auto termux = output ? ParseTermuxBattery(*output) : std::nullopt;
  if (!termux) return facts;
  facts.has_supplies = true;
  facts.batteries.push_back(termux->battery);
  if (!facts.on_mains) facts.on_mains = termux->plugged;
  return facts;
}

}  // namespace shoal
