// What a device takes from its battery or the mains, as a table says: the energy objective of the planner needs it.
//
// Nobody measures it here: without root no system says what a computation takes. Figures are of whole devices, screen
// off, from published measurements, each named; what stands for a whole kind of device is an estimate and says so.
#pragma once

#include <string>

#include "device/profile.h"

namespace shoal {

struct DevicePower {
  double idle_w = 0;    // awake and on the network
  double active_w = 0;  // more than that while its fast cores compute
  bool estimated = true;
  std::string source;  // for people
};

// Pure.
DevicePower PowerOf(const DeviceProfile& profile);

// Runs on its battery now, as far as is known.
bool IsOnBattery(const PowerFacts& power);

}  // namespace shoal
