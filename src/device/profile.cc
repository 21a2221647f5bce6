// Puts the parts together; asks uname, Android's properties, macOS's sysctl for the rest.
#include "device/profile.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cctype>

#include "device/cpu_ration.h"
#include "device/known_chips.h"
#include "device/system_values.h"

namespace shoal {
namespace {

// A file that every Android system has and no other.
constexpr const char* kAndroidMark = "/system/build.prop";

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string Property(const CommandRunner& run, const char* name) {
  const auto output = run ? run({"getprop", name}) : std::nullopt;
  return output ? std::string(Trim(*output)) : "";
}

void AskAndroid(const CommandRunner& run, DeviceProfile& profile) {
  if (const auto api = ParseSystemNumber(Property(run, "ro.build.version.sdk")); api && *api < 1000) {
    profile.android_api = static_cast<int>(*api);
  }
  if (profile.topology.chip.empty()) {
    const std::string model = Property(run, "ro.soc.model");
    const KnownChip* chip = FindChip(model + " " + Property(run, "ro.board.platform"));
    profile.topology.chip = chip != nullptr ? chip->name : model;
  }
  if (profile.topology.board.empty()) {
    profile.topology.board =
        std::string(Trim(Property(run, "ro.product.manufacturer") + " " + Property(run, "ro.product.model")));
  }
}

// Apple's performance levels, fastest first: Apple, "Determining system capabilities" (hw.perflevelN, hw.optional.arm).
void AskMac(Topology& topology) {
  topology.chip = SystemText("machdep.cpu.brand_string").value_or("");
  topology.board = SystemText("hw.model").value_or("");
  const bool arm = SystemValue("hw.optional.arm64").value_or(0) == 1;
  topology.architecture = arm ? CpuArchitecture::kArm64 : CpuArchitecture::kX86;
  int cpu = 0;
  const auto levels = std::min<std::uint64_t>(SystemValue("hw.nperflevels").value_or(1), 4);
  for (std::uint64_t level = 0; level < levels; ++level) {
    const std::string prefix = "hw.perflevel" + std::to_string(level);
    const auto count = SystemValue((prefix + ".physicalcpu").c_str());
    CoreGroup group;
    group.kind = level == 0 ? CoreKind::kPerformance : CoreKind::kEfficiency;
    group.name = SystemText((prefix + ".name").c_str()).value_or("");
    const auto cores = std::min<std::uint64_t>(count.value_or(SystemValue("hw.physicalcpu").value_or(1)), 256);
    for (std::uint64_t i = 0; i < cores; ++i) {
      topology.cores.push_back({});
      topology.cores.back().cpu = cpu;
      topology.cores.back().name = group.name;
      group.cpus.push_back(cpu++);
    }
    topology.groups.push_back(std::move(group));
  }
  if (!arm) return;
  constexpr const char* kSets[][2] = {
      {"fp16", "hw.optional.arm.FEAT_FP16"}, {"dotprod", "hw.optional.arm.FEAT_DotProd"},
      {"i8mm", "hw.optional.arm.FEAT_I8MM"}, {"bf16", "hw.optional.arm.FEAT_BF16"},
      {"sme", "hw.optional.arm.FEAT_SME"},   {"sme2", "hw.optional.arm.FEAT_SME2"},
  };
  topology.instruction_sets.emplace();
  for (const auto& [name, key] : kSets) {
    if (SystemValue(key).value_or(0) == 1) topology.instruction_sets->insert(name);
  }
}

bool IsUsable(const Core& core) {
  return core.online && core.allowed.value_or(true) && core.sibling.value_or(core.cpu) == core.cpu;
}

std::vector<int> CpusOf(const DeviceProfile& profile, bool fast_only) {
  std::vector<int> cpus;
  for (const CoreGroup& group : profile.topology.groups) {
    if (fast_only && group.kind == CoreKind::kEfficiency) continue;
    for (const int cpu : group.cpus) {
      const auto core = std::find_if(profile.topology.cores.begin(), profile.topology.cores.end(),
                                     [&](const Core& c) { return c.cpu == cpu; });
      if (core != profile.topology.cores.end() && IsUsable(*core)) cpus.push_back(cpu);
    }
  }
  return cpus;
}

}  // namespace

std::vector<int> DeviceProfile::UsableCpus() const { return CpusOf(*this, false); }

std::vector<int> DeviceProfile::FastCpus() const {
  std::vector<int> fast = CpusOf(*this, true);
  return fast.empty() ? UsableCpus() : fast;
}

DeviceProfile ReadDeviceProfile(const SystemFiles& files, const CommandRunner& run) {
  DeviceProfile profile;
  profile.topology = ReadTopology(files);
  profile.memory = ReadMemoryFacts(files);
  profile.power = ReadPowerFacts(files, run);
  profile.cpu_quota = CpuQuota(files.root());
  if (files.is_live()) {
    utsname system{};
    if (::uname(&system) == 0) {
      profile.os = Lower(system.sysname);
      profile.machine = system.machine;
    }
    if (profile.os == "darwin") AskMac(profile.topology);
  } else if (files.Exists("/proc/cpuinfo")) {
    profile.os = "linux";
    if (profile.topology.architecture == CpuArchitecture::kArm64) profile.machine = "aarch64";
    if (profile.topology.architecture == CpuArchitecture::kX86) profile.machine = "x86_64";
  }
  if (files.Exists(kAndroidMark)) {
    profile.os = "android";
    AskAndroid(run, profile);
  }
  return profile;
}

DeviceProfile ReadDeviceProfile() { return ReadDeviceProfile(SystemFiles(), RunCommand); }

}  // namespace shoal
