// uname, sysconf, and the memory that engine/ knows how to find. Speeds are measured elsewhere (node/device_speed.h).
#include "node/device.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <thread>

#include "device/available_memory.h"
#include "device/power_table.h"
#include "device/profile.h"
#include "engine/cpu_kernels.h"
#include "identity/certificate.h"

namespace shoal {
namespace {

constexpr double kMemoryShare = 0.8;  // of what is free at the start: the rest is the system's
constexpr std::string_view kNobodysNames[] = {"localhost", "localhost.localdomain", "android", "(none)"};
constexpr std::string_view kNamesOfMany[] = {"raspberrypi", "orangepi", "debian", "ubuntu", "fedora", "archlinux"};
constexpr std::size_t kDigits = 4;

}  // namespace

std::string NodeName(const std::string& host, const std::string& board, const NodeId& id) {
  const auto is_one_of = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), host) != std::end(names);
  };
  const bool nobodys = host.empty() || is_one_of(kNobodysNames);
  if (!nobodys && !is_one_of(kNamesOfMany)) return host;
  std::string name = nobodys ? board.empty() ? "node" : board : host;
  std::replace(name.begin(), name.end(), ' ', '-');
  return name.substr(0, kNodeNameBytesMax - kDigits - 1) + "-" + ShortHex(id).substr(0, kDigits);
}

std::string NodeName(const NodeId& id) {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = 0;
  const std::string name = NodeName(host, "", id);
  return name == host ? name : NodeName(host, ReadDeviceProfile().topology.board, id);
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
