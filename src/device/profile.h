// What this device is, as far as an unprivileged process can see: cores, instruction sets, memory, heat, battery.
//
// Nothing here is guessed: what cannot be read is empty. The root folder is "" on a device and a recorded tree in
// tests; programs are run (getprop, termux-battery-status) only where the caller gives a runner. Takes some
// milliseconds, up to kCommandTimeMax for each program.
#pragma once

#include <string>

#include "device/command.h"
#include "device/memory_facts.h"
#include "device/power_facts.h"
#include "device/system_files.h"
#include "device/topology.h"

namespace shoal {

struct DeviceProfile {
  std::string os;                  // "linux", "android", "darwin"; empty: unknown
  std::string machine;             // uname's: "aarch64", "x86_64"; empty: unknown
  std::optional<int> android_api;  // 34: Android 14
  Topology topology;
  MemoryFacts memory;
  PowerFacts power;
  std::optional<double> cpu_quota;  // cores' worth of time that control groups grant; empty: no limit

  // Online CPUs this process may use, one a physical core, fastest first. All online ones if it is unknown which are
  // allowed.
  std::vector<int> UsableCpus() const;
  // Those of prime and performance cores alone; all usable ones if nothing says which is which.
  std::vector<int> FastCpus() const;
};

DeviceProfile ReadDeviceProfile(const SystemFiles& files, const CommandRunner& run);
// This device.
DeviceProfile ReadDeviceProfile();

// One JSON object; what is unknown is null.
std::string DeviceProfileJson(const DeviceProfile& profile);

}  // namespace shoal
