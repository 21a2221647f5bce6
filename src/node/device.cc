// uname, sysconf, and the memory that engine/ knows how to find. Speeds are measured elsewhere (node/device_speed.h).
#include "node/device.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "device/available_memory.h"
#include "device/power_table.h"
#include "device/profile.h"
#include "engine/cpu_kernels.h"

namespace shoal {
namespace {

constexpr double kMemoryShare = 0.8;  // of what is free at the start: the rest is the system's

}  // namespace

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && name[0] != 0 ? name : "node";
}

DeviceFacts MeasureDevice(std::uint64_t memory_bytes_max) {
  DeviceFacts facts;
  utsname system{};
  if (::uname(&system) == 0) {
    facts.os = system.sysname;
    facts.arch = system.machine;
    if (const auto& kernels = LoadedCpuKernels(); kernels.ok() && !kernels->file.empty()) {
      facts.arch += "/" + kernels->variant;
    }
    std::transform(facts.os.begin(), facts.os.end(), facts.os.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  }
  const DeviceProfile profile = ReadDeviceProfile(SystemFiles(), nullptr);
  const DevicePower power = PowerOf(profile);
  facts.idle_w = power.idle_w;
  facts.active_w = power.active_w;
  facts.on_battery = IsOnBattery(profile.power);
  facts.cores = static_cast<std::int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  facts.memory_bytes =
      static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  facts.memory_free_bytes = AvailableMemory().value_or(facts.memory_bytes / 2);
  facts.memory_budget_bytes =
      memory_bytes_max > 0 ? memory_bytes_max
                           : static_cast<std::uint64_t>(static_cast<double>(facts.memory_free_bytes) * kMemoryShare);
  return facts;
}

}  // namespace shoal
