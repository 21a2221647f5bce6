// How far a device is from being slowed down for its heat: temperatures against the system's trip points, and the
// frequency that its cores are allowed.
//
// From /sys/class/thermal and cpufreq. Zones of a battery, a charger or a radio do not count: the processor is not
// slowed for them. Android denies the zones to apps; then only the frequency is known. What cannot be read is empty.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "device/system_files.h"

namespace shoal {

inline constexpr std::size_t kHeatZonesMax = 24;  // that are read: each may take a millisecond

struct HeatReading {
  std::optional<double> celsius;   // of the hottest zone
  std::optional<double> headroom;  // degrees to the nearest trip point at which the system cools; negative: beyond it
  std::optional<double> cap;       // share of their highest frequency that the cores are allowed; 0 of offline ones
};

class HeatSensors {
 public:
  // Looks which zones and limits there are; `cpus`: the cores that compute. Blocks for some hundred small reads.
  HeatSensors(SystemFiles files, const std::vector<int>& cpus);

  // Blocks for some small reads.
  HeatReading Read() const;
  bool has_any() const { return !zones_.empty() || !limits_.empty(); }

 private:
  struct Zone {
    std::string temperature;     // file
    std::optional<double> trip;  // degrees
  };
  struct Limit {
    std::string allowed;  // file
    double highest = 0;   // kHz
  };

  SystemFiles files_;
  std::vector<Zone> zones_;
  std::vector<Limit> limits_;  // one for each core
};

// Whether a thermal zone of this type tells of the processor, or of the device's skin.
bool IsProcessorHeat(const std::string& zone_type);

}  // namespace shoal
