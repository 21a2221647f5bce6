// Reads the tree; groups cores by what is known of them.
//
// The rule for efficiency cores: in-order designs beside out-of-order ones; else below 45 % of the best capacity; else
// below 60 % of the best frequency. Frequency alone misleads: an in-order core may clock higher than a big one.
// https://docs.kernel.org/scheduler/sched-capacity.html
#include "device/topology.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "device/cpu_affinity.h"
#include "device/known_chips.h"

namespace shoal {
namespace {

constexpr std::uint32_t kEfficiencyCapacityPercent = 45;
constexpr std::uint64_t kEfficiencyFrequencyPercent = 60;
constexpr int kCacheIndexesMax = 8;

std::string CpuFolder(int cpu) { return "/sys/devices/system/cpu/cpu" + std::to_string(cpu); }

std::optional<std::vector<int>> ReadCpuList(const SystemFiles& files, const std::string& path) {
  const auto line = files.ReadLine(path);
  return line ? ParseCpuList(*line) : std::nullopt;
}

// Which CPUs there are: what the kernel says is present; else whoever has an entry or a folder.
std::vector<int> PresentCpus(const SystemFiles& files, const CpuInfo& info) {
  if (const auto present = ReadCpuList(files, "/sys/devices/system/cpu/present"); present && !present->empty()) {
    return *present;
  }
  std::set<int> cpus;
  for (const CpuInfoEntry& entry : info.cpus) cpus.insert(entry.cpu);
  for (const std::string& name : files.List("/sys/devices/system/cpu")) {
    if (!name.starts_with("cpu")) continue;
    const auto cpu = ParseSystemNumber(std::string_view(name).substr(3));
    if (cpu && *cpu < kCpusMax) cpus.insert(static_cast<int>(*cpu));
  }
  return {cpus.begin(), cpus.end()};
}

void ReadCore(const SystemFiles& files, Core& core) {
  const std::string folder = CpuFolder(core.cpu);
  if (const auto midr = files.ReadNumber(folder + "/regs/identification/midr_el1")) {
    if (const auto id = DecodeMidr(*midr)) core.id = id;
  }
  if (const auto capacity = files.ReadNumber(folder + "/cpu_capacity");
      capacity && *capacity > 0 && *capacity <= 1024) {
    core.capacity = static_cast<std::uint32_t>(*capacity);
  }
  if (const auto khz = files.ReadNumber(folder + "/cpufreq/cpuinfo_max_freq"); khz && *khz > 0) core.max_khz = khz;
  for (const char* list : {"/topology/core_cpus_list", "/topology/thread_siblings_list"}) {
    const auto siblings = ReadCpuList(files, folder + list);
    if (!siblings || siblings->size() < 2) continue;
    core.sibling = siblings->front();
    break;
  }
  if (core.id && core.name.empty()) {
    if (const KnownCore* known = FindCore(*core.id)) core.name = known->name;
  }
}

std::vector<Core> ReadCores(const SystemFiles& files, const CpuInfo& info) {
  const auto online = ReadCpuList(files, "/sys/devices/system/cpu/online");
  std::optional<std::vector<int>> allowed;
  if (const auto status = files.Read("/proc/self/status")) {
    constexpr std::string_view kKey = "Cpus_allowed_list:";
    const std::size_t at = status->find(kKey);
    if (at != std::string::npos) {
      const std::string_view rest = std::string_view(*status).substr(at + kKey.size());
      allowed = ParseCpuList(rest.substr(0, rest.find('\n')));
    }
  }
  const auto has = [](const std::vector<int>& cpus, int cpu) {
    return std::find(cpus.begin(), cpus.end(), cpu) != cpus.end();
  };
  std::vector<Core> cores;
  for (const int cpu : PresentCpus(files, info)) {
    Core core;
    core.cpu = cpu;
    const auto entry =
        std::find_if(info.cpus.begin(), info.cpus.end(), [&](const CpuInfoEntry& e) { return e.cpu == cpu; });
    if (entry != info.cpus.end()) {
      core.id = entry->core;
      core.name = entry->model_name;
    }
    core.online = online ? has(*online, cpu) : entry != info.cpus.end() || info.cpus.empty();
    if (allowed) core.allowed = has(*allowed, cpu);
    ReadCore(files, core);
    cores.push_back(std::move(core));
  }
  return cores;
}

std::vector<Cache> ReadCaches(const SystemFiles& files, const std::vector<Core>& cores) {
  std::vector<Cache> caches;
  std::set<std::tuple<int, std::string, std::vector<int>>> seen;
  for (const Core& core : cores) {
    for (int index = 0; index < kCacheIndexesMax; ++index) {
      const std::string folder = CpuFolder(core.cpu) + "/cache/index" + std::to_string(index);
      const auto level = files.ReadNumber(folder + "/level");
      const auto size = files.ReadLine(folder + "/size");
      const auto bytes = size ? ParseCacheSize(*size) : std::nullopt;
      if (!level || *level > 8 || !bytes) continue;
      Cache cache{static_cast<int>(*level), files.ReadLine(folder + "/type").value_or(""), *bytes,
                  ReadCpuList(files, folder + "/shared_cpu_list").value_or(std::vector<int>{core.cpu})};
      if (seen.insert({cache.level, cache.type, cache.cpus}).second) caches.push_back(std::move(cache));
    }
  }
  return caches;
}

CpuArchitecture ArchitectureOf(const CpuInfo& info) {
  for (const CpuInfoEntry& entry : info.cpus) {
    if (entry.core) return CpuArchitecture::kArm64;
    if (!entry.model_name.empty() || !info.vendor.empty()) return CpuArchitecture::kX86;
  }
  return CpuArchitecture::kUnknown;
}

// A thread may run on any core, so only what all of them have counts.
std::optional<InstructionSets> CommonSets(const SystemFiles& files, CpuArchitecture architecture, const CpuInfo& info) {
  std::optional<InstructionSets> common;
  for (const CpuInfoEntry& entry : info.cpus) {
    // Under an emulator the file may be of another architecture: the host's.
    if (entry.features.empty() || (architecture == CpuArchitecture::kArm64 && !entry.core)) continue;
    const InstructionSets sets = InstructionSetsOf(architecture, entry.features);
    if (!common) {
      common = sets;
    } else {
      std::erase_if(*common, [&](const std::string& name) { return sets.count(name) == 0; });
    }
  }
  if (common || architecture == CpuArchitecture::kX86) return common;
  const auto auxv = files.Read("/proc/self/auxv");
  const auto hwcaps = auxv ? ParseAuxv(*auxv) : std::nullopt;
  if (!hwcaps) return std::nullopt;
  return InstructionSetsOfHwcap(hwcaps->hwcap, hwcaps->hwcap2);
}

void NameChip(const SystemFiles& files, const CpuInfo& info, Topology& topology) {
  std::string text = info.hardware;
  for (const char* path : {"/proc/device-tree/compatible", "/sys/devices/soc0/machine"}) {
    text += " " + files.Read(path).value_or("");
  }
  if (const KnownChip* chip = FindChip(text)) topology.chip = chip->name;
  if (topology.chip.empty() && topology.architecture == CpuArchitecture::kX86 && !info.cpus.empty()) {
    topology.chip = info.cpus.front().model_name;
  }
  topology.board = info.model;
  if (topology.board.empty()) topology.board = files.ReadLine("/proc/device-tree/model").value_or("");
}

CoreClass ClassOf(const Core& core) {
  const KnownCore* known = core.id ? FindCore(*core.id) : nullptr;
  return known != nullptr ? known->core_class : CoreClass::kUnknown;
}

// What the groups of a system are told apart by.
struct Best {
  bool out_of_order = false;
  std::uint32_t capacity = 0;
  std::uint64_t khz = 0;
};

CoreKind KindOf(const Core& core, const Best& best, const std::vector<int>& efficiency_cpus) {
  if (!efficiency_cpus.empty()) {
    const bool listed = std::find(efficiency_cpus.begin(), efficiency_cpus.end(), core.cpu) != efficiency_cpus.end();
    return listed ? CoreKind::kEfficiency : CoreKind::kPerformance;
  }
  const CoreClass core_class = ClassOf(core);
  if (core_class != CoreClass::kUnknown) {
    return core_class == CoreClass::kLittle && best.out_of_order ? CoreKind::kEfficiency : CoreKind::kPerformance;
  }
  if (best.capacity > 0 && core.capacity) {
    return *core.capacity * 100 < best.capacity * kEfficiencyCapacityPercent ? CoreKind::kEfficiency
                                                                             : CoreKind::kPerformance;
  }
  if (best.khz > 0 && core.max_khz) {
    return *core.max_khz * 100 < best.khz * kEfficiencyFrequencyPercent ? CoreKind::kEfficiency
                                                                        : CoreKind::kPerformance;
  }
  return CoreKind::kUnknown;
}

}  // namespace

const char* CoreKindName(CoreKind kind) {
  switch (kind) {
    case CoreKind::kEfficiency: return "efficiency";
    case CoreKind::kPerformance: return "performance";
    case CoreKind::kPrime: return "prime";
    case CoreKind::kUnknown: break;
  }
  return "unknown";
}

bool Topology::has_smt() const {
  return std::any_of(cores.begin(), cores.end(), [](const Core& core) { return core.sibling.has_value(); });
}

std::vector<CoreGroup> GroupCores(const std::vector<Core>& cores, const std::vector<int>& efficiency_cpus) {
  Best best;
  for (const Core& core : cores) {
    if (!core.online) continue;
    const CoreClass core_class = ClassOf(core);
    best.out_of_order |= core_class == CoreClass::kBig || core_class == CoreClass::kPrime;
    best.capacity = std::max(best.capacity, core.capacity.value_or(0));
    best.khz = std::max(best.khz, core.max_khz.value_or(0));
  }
  // The fastest first: by kind, then by design, capacity and frequency as far as they are known.
  using Key = std::tuple<CoreKind, CoreClass, std::uint32_t, std::uint64_t, std::string>;
  std::map<Key, CoreGroup, std::greater<>> groups;
  for (const Core& core : cores) {
    if (!core.online) continue;
    const CoreKind kind = KindOf(core, best, efficiency_cpus);
    CoreGroup& group = groups[{kind, ClassOf(core), core.capacity.value_or(0), core.max_khz.value_or(0), core.name}];
    group.kind = kind;
    group.name = core.name;
    group.capacity = core.capacity;
    group.max_khz = core.max_khz;
    group.cpus.push_back(core.cpu);
  }
  std::vector<CoreGroup> sorted;
  int fast = 0;
  for (auto& [key, group] : groups) {
    fast += group.kind == CoreKind::kPerformance ? 1 : 0;
    sorted.push_back(std::move(group));
  }
  if (fast > 1) sorted.front().kind = CoreKind::kPrime;
  return sorted;
}

Topology ReadTopology(const SystemFiles& files) {
  const CpuInfo info = ParseCpuInfo(files.Read("/proc/cpuinfo").value_or(""));
  Topology topology;
  topology.architecture = ArchitectureOf(info);
  topology.cores = ReadCores(files, info);
  if (topology.architecture == CpuArchitecture::kUnknown &&
      std::any_of(topology.cores.begin(), topology.cores.end(), [](const Core& core) { return core.id.has_value(); })) {
    topology.architecture = CpuArchitecture::kArm64;
  }
#if defined(__aarch64__)
  if (files.is_live()) topology.architecture = CpuArchitecture::kArm64;
#endif
  topology.groups =
      GroupCores(topology.cores, ReadCpuList(files, "/sys/devices/cpu_atom/cpus").value_or(std::vector<int>{}));
  topology.caches = ReadCaches(files, topology.cores);
  topology.instruction_sets = CommonSets(files, topology.architecture, info);
  NameChip(files, info, topology);
  return topology;
}

}  // namespace shoal
