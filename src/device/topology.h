// The cores of a system and the groups they form: prime, performance, efficiency.
//
// From /proc/cpuinfo and /sys/devices/system/cpu, all of which an unprivileged process may read on Linux; on Android
// some of it is denied, and what is denied is empty here. Knows no processes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "device/cpuinfo.h"
#include "device/instruction_sets.h"
#include "device/system_files.h"

namespace shoal {

// Efficiency cores are left to the network: they finish last and everybody waits for them. Of the others the fastest
// group is prime if there is a slower one beside it.
enum class CoreKind : std::uint8_t { kUnknown, kEfficiency, kPerformance, kPrime };
const char* CoreKindName(CoreKind kind);  // "unknown", "efficiency", "performance", "prime"

struct Core {
  int cpu = 0;
  bool online = true;
  std::optional<bool> allowed;  // may this process run on it?
  std::optional<CoreId> id;
  std::string name;                       // "Cortex-X4", or x86's model name; empty: unknown
  std::optional<std::uint32_t> capacity;  // of 1024, relative to the fastest core (the scheduler's own number)
  std::optional<std::uint64_t> max_khz;
  std::optional<int> sibling;  // the lowest CPU of the same physical core, if another thread shares it
};

struct CoreGroup {
  CoreKind kind = CoreKind::kUnknown;
  std::string name;
  std::optional<std::uint32_t> capacity;
  std::optional<std::uint64_t> max_khz;
  std::vector<int> cpus;  // online ones, ascending
};

struct Cache {
  int level = 0;
  std::string type;  // "Data", "Instruction", "Unified"
  std::uint64_t bytes = 0;
  std::vector<int> cpus;  // that share it
};

struct Topology {
  CpuArchitecture architecture = CpuArchitecture::kUnknown;
  std::vector<Core> cores;        // by number
  std::vector<CoreGroup> groups;  // fastest first
  std::vector<Cache> caches;
  std::optional<InstructionSets> instruction_sets;  // that every core has
  std::string chip;                                 // from the table, or x86's model name; empty: unknown
  std::string board;                                // "Raspberry Pi 5 Model B Rev 1.0"; empty: unknown
  bool has_smt() const;
};

// Blocks for some hundred small reads on a system of many cores.
Topology ReadTopology(const SystemFiles& files);

// Groups of what is known of `cores`; pure. `efficiency_cpus`: where the system itself says so (Intel); else from what
// a core is, its capacity, its frequency, in that order.
std::vector<CoreGroup> GroupCores(const std::vector<Core>& cores, const std::vector<int>& efficiency_cpus);

}  // namespace shoal
