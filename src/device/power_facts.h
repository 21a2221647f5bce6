// Heat and electricity: thermal zones, batteries, chargers.
//
// From /sys/class/thermal and /sys/class/power_supply; on Android, where apps may not read those, from
// termux-battery-status if Termux:API is installed. Snapshots.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device/command.h"
#include "device/system_files.h"

namespace shoal {

struct ThermalZone {
  std::string type;  // "cpu-0-0-usr", "x86_pkg_temp"
  std::optional<double> celsius;
};

struct Battery {
  std::string name;            // "BAT0"; "battery" of Termux:API
  std::optional<int> percent;  // of its charge
  std::optional<bool> charging;
  std::optional<double> celsius;
  std::optional<double> watts;  // that go out of it or into it now
};

struct PowerFacts {
  std::vector<ThermalZone> zones;
  std::vector<Battery> batteries;         // none found is not the same as none there: see has_supplies
  std::optional<bool> on_mains;           // a charger or a mains supply is online
  bool has_supplies = false;              // the system shows its power supplies (there may be none)
  std::optional<double> hottest() const;  // of the zones
  // What the whole device takes out of its batteries now; empty: it is fed from elsewhere, or one does not tell.
  std::optional<double> drawn_w() const;
};

PowerFacts ReadPowerFacts(const SystemFiles& files, const CommandRunner& run);
// The same without `zones`, each of which may take a millisecond.
PowerFacts ReadSupplyFacts(const SystemFiles& files, const CommandRunner& run);
// Of a file in thousandths of a degree; empty: none, or a sensor that is broken.
std::optional<double> ReadCelsius(const SystemFiles& files, const std::string& path);

// The JSON of termux-battery-status; empty if it is not that. Pure.
// https://wiki.termux.com/wiki/Termux-battery-status
struct TermuxBattery {
  Battery battery;
  std::optional<bool> plugged;
};
std::optional<TermuxBattery> ParseTermuxBattery(std::string_view json);

}  // namespace shoal
