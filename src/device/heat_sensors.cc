// https://docs.kernel.org/driver-api/thermal/sysfs-api.html, https://docs.kernel.org/admin-guide/pm/cpufreq.html
#include "device/heat_sensors.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "device/power_facts.h"

namespace shoal {
namespace {

constexpr const char* kThermal = "/sys/class/thermal/";
constexpr int kTripsMax = 16;                                  // of a zone
constexpr double kTripCelsiusMin = 30, kTripCelsiusMax = 150;  // a trip point outside is switched off

// The lowest trip point at which the system slows something down ("active" ones start fans).
std::optional<double> LowestTrip(const SystemFiles& files, const std::string& zone) {
  std::optional<double> lowest;
  for (int i = 0; i < kTripsMax; ++i) {
    const std::string trip = zone + "/trip_point_" + std::to_string(i);
    const auto type = files.ReadLine(trip + "_type");
    if (!type) break;
    if (*type != "passive" && *type != "hot") continue;
    const auto celsius = ReadCelsius(files, trip + "_temp");
    if (!celsius || *celsius < kTripCelsiusMin || *celsius > kTripCelsiusMax) continue;
    if (!lowest || *celsius < *lowest) lowest = celsius;
  }
  return lowest;
}

}  // namespace

bool IsProcessorHeat(const std::string& zone_type) {
  std::string type = zone_type;
  std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::array kOthers{"batt",  "bms",  "charg", "chg", "usb", "wlan", "wifi", "wireless", "modem", "mdm",
                               "mmw",   "pmic", "pm8",   "pmi", "bcl", "ibat", "vbat", "soc-lvl",  "cam",   "flash",
                               "video", "pa-",  "pa_",   "-pa", "sdr", "nvme", "disk", "rf"};
  return std::none_of(kOthers.begin(), kOthers.end(),
                      [&](const char* other) { return type.find(other) != std::string::npos; });
}

HeatSensors::HeatSensors(SystemFiles files, const std::vector<int>& cpus) : files_(std::move(files)) {
  std::vector<Zone> without_trip;
  for (const std::string& name : files_.List(kThermal)) {
    if (!name.starts_with("thermal_zone")) continue;
    const std::string zone = kThermal + name;
    const auto type = files_.ReadLine(zone + "/type");
    if (!type || !IsProcessorHeat(*type) || !ReadCelsius(files_, zone + "/temp")) continue;
    const auto trip = LowestTrip(files_, zone);
    (trip ? zones_ : without_trip).push_back({zone + "/temp", trip});
  }
  // Those that say when it gets slower first.
  for (Zone& zone : without_trip) zones_.push_back(std::move(zone));
  if (zones_.size() > kHeatZonesMax) zones_.resize(kHeatZonesMax);
  for (const int cpu : cpus) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cpufreq";
    const auto highest = files_.ReadNumber(folder + "/cpuinfo_max_freq");
    if (highest.value_or(0) == 0 || !files_.ReadNumber(folder + "/scaling_max_freq")) continue;
    limits_.push_back({folder + "/scaling_max_freq", static_cast<double>(*highest)});
  }
}

HeatReading HeatSensors::Read() const {
  HeatReading reading;
  for (const Zone& zone : zones_) {
    const auto celsius = ReadCelsius(files_, zone.temperature);
    if (!celsius) continue;
    if (!reading.celsius || *celsius > *reading.celsius) reading.celsius = celsius;
    if (zone.trip && (!reading.headroom || *zone.trip - *celsius < *reading.headroom)) {
      reading.headroom = *zone.trip - *celsius;
    }
  }
  // What could be read and cannot now is of a core that was taken offline.
  double shares = 0;
  for (const Limit& limit : limits_) {
    const auto allowed = files_.ReadNumber(limit.allowed);
    shares += allowed ? std::min(1.0, static_cast<double>(*allowed) / limit.highest) : 0;
  }
  if (shares > 0) reading.cap = shares / static_cast<double>(limits_.size());
  return reading;
}

}  // namespace shoal
