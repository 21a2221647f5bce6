// `shoal device`: what this machine is and what to do with it. `shoal doctor`: what commonly goes wrong, checked.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/cli/commands.h"
#include "apps/cli/device_bench.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "device/advice.h"
#include "device/health.h"
#include "device/power_table.h"
#include "device/profile.h"
#include "engine/cpu_kernels.h"
#include "offload/seen_devices.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

constexpr const char* kUnknown = "unknown";

std::string OrUnknown(const std::string& text) { return text.empty() ? kUnknown : text; }

std::string Bytes(const std::optional<std::uint64_t>& bytes) { return bytes ? FormatBytes(*bytes) : kUnknown; }

std::string Megahertz(const std::optional<std::uint64_t>& khz) {
  return khz ? std::to_string(*khz / 1000) + " MHz" : kUnknown;
}

std::string SetsText(const std::optional<InstructionSets>& sets) {
  if (!sets) return kUnknown;
  std::string text;
  for (const std::string& set : *sets) text += (text.empty() ? "" : " ") + set;
  return text.empty() ? "the base set only" : text;
}

std::string CpusInOrder(const std::vector<int>& cpus) {
  std::string text;
  for (const int cpu : cpus) text += (text.empty() ? "" : ",") + std::to_string(cpu);
  return text;
}

std::string MemoryText(const MemoryFacts& memory) {
  std::string text = Bytes(memory.total_bytes) + ", free " + Bytes(memory.available_bytes);
  if (memory.limit_bytes) text += ", limited to " + FormatBytes(*memory.limit_bytes) + " by a control group";
  text += ", swap " + Bytes(memory.swap_total_bytes);
  if (memory.swap_total_bytes.value_or(0) == 0 || !memory.swap_free_bytes) return text;
  return text + ", free " + FormatBytes(*memory.swap_free_bytes);
}

// What the system lets this process have of the cores.
std::string GrantText(const DeviceProfile& profile) {
  std::vector<int> allowed;
  bool known = false;
  for (const Core& core : profile.topology.cores) {
    known |= core.allowed.has_value();
    if (core.online && core.allowed == true) allowed.push_back(core.cpu);
  }
  std::string text = known ? "cores " + CpuListText(allowed) : kUnknown;
  char quota[64];
  if (!profile.cpu_quota) return text;
  std::snprintf(quota, sizeof quota, ", the time of %.3g of them by a control group", *profile.cpu_quota);
  return text + quota;
}

// Of those that hold data, each size once: "L1 48 KiB, L2 2.0 MiB, L3 30 MiB".
std::string CachesText(const Topology& topology) {
  std::set<std::pair<int, std::uint64_t>> sizes;
  for (const Cache& cache : topology.caches) {
    if (cache.type != "Instruction") sizes.insert({cache.level, cache.bytes});
  }
  std::string text;
  for (const auto& [level, bytes] : sizes) {
    text += (text.empty() ? "L" : ", L") + std::to_string(level) + " " + FormatBytes(bytes);
  }
  return OrUnknown(text);
}

std::string PowerText(const PowerFacts& power) {
  std::string text;
  for (const Battery& battery : power.batteries) {
    text += (text.empty() ? "" : "; ") + battery.name + " " +
            (battery.percent ? std::to_string(*battery.percent) + " %" : kUnknown);
    if (battery.charging) text += *battery.charging ? ", charging" : ", not charging";
    char heat[32];
    if (battery.celsius) {
      std::snprintf(heat, sizeof heat, ", %.1f C", *battery.celsius);
      text += heat;
    }
  }
  if (text.empty()) text = power.has_supplies ? "no battery" : kUnknown;
  if (power.on_mains) text += *power.on_mains ? "; on mains" : "; not on mains";
  return text;
}

std::string HeatText(const PowerFacts& power) {
  const auto hottest = power.hottest();
  if (!hottest) return kUnknown;
  char text[64];
  std::snprintf(text, sizeof text, "%.1f C, the hottest of %zu zones", *hottest, power.zones.size());
  return text;
}

std::string GroupsText(const Topology& topology) {
  if (topology.groups.empty()) return "cores: unknown\n";
  Rows rows{{"cores", "kind", "design", "up to", "capacity"}};
  for (const CoreGroup& group : topology.groups) {
    rows.push_back({CpuListText(group.cpus), CoreKindName(group.kind), OrUnknown(group.name), Megahertz(group.max_khz),
                    group.capacity ? std::to_string(*group.capacity) : kUnknown});
  }
  return FormatTable(rows);
}

// What computes here, which may be less than what the CPU offers. Not of a recorded tree.
std::string KernelsText(const std::string& root) {
  if (!root.empty()) return kUnknown;
  const Result<CpuKernels>& kernels = LoadedCpuKernels();
  return kernels.ok() ? CpuKernelsText(*kernels) : kernels.error().message;
}

Json KernelsJson(const std::string& root) {
  if (!root.empty() || !LoadedCpuKernels().ok()) return nullptr;
  const CpuKernels& kernels = *LoadedCpuKernels();
  return {{"variant", kernels.variant},
          {"file", kernels.file.empty() ? Json(nullptr) : Json(kernels.file)},
          {"features", kernels.features}};
}

// What ggml sees beside the CPU; nothing where no such backend was built.
void PrintSeen(const std::vector<BackendDevices>& seen) {
  if (seen.empty()) return;
  Rows rows{{"beside the CPU", "kind", "memory", "what it is"}};
  for (const BackendDevices& backend : seen) {
    if (!backend.unknown.empty()) rows.push_back({backend.backend, kUnknown, kUnknown, backend.unknown});
    if (backend.unknown.empty() && backend.devices.empty()) rows.push_back({backend.backend, "none", "", ""});
    for (std::size_t i = 0; i < backend.devices.size(); ++i) {
      const SeenDevice& device = backend.devices[i];
      const std::string memory = device.memory_bytes == 0
                                     ? kUnknown
                                     : FormatBytes(device.memory_bytes) + ", free " + FormatBytes(device.free_bytes);
      rows.push_back({backend.backend.empty() ? device.name : backend.backend + (i > 0 ? ":" + std::to_string(i) : ""),
                      device.kind, memory, device.description});
    }
  }
  std::printf("\n%s", FormatTable(rows).c_str());
}

Json SeenJson(const std::vector<BackendDevices>& seen) {
  Json list = Json::array();
  for (const BackendDevices& backend : seen) {
    Json devices = Json::array();
    for (const SeenDevice& device : backend.devices) {
      const auto bytes = [&](std::uint64_t value) { return device.memory_bytes == 0 ? Json(nullptr) : Json(value); };
      devices.push_back({{"name", device.name},
                         {"description", device.description},
                         {"kind", device.kind},
                         {"memory_bytes", bytes(device.memory_bytes)},
                         {"memory_free_bytes", bytes(device.free_bytes)}});
    }
    const bool known = backend.unknown.empty();
    list.push_back({{"backend", backend.backend.empty() ? Json(nullptr) : Json(backend.backend)},
                    {"devices", known ? std::move(devices) : Json(nullptr)},
                    {"unknown", known ? Json(nullptr) : Json(backend.unknown)}});
  }
  return list;
}

// Of the table, for the energy objective of `plan`.
std::string TakesText(const DevicePower& power) {
  char text[96];
  std::snprintf(text, sizeof text, "about %.3g W awake, %.3g W more while it computes (%s", power.idle_w,
                power.active_w, power.estimated ? "estimated: " : "");
  return text + power.source + ")";
}

void PrintText(const DeviceProfile& profile, const DeviceAdvice& advice, const std::string& kernels) {
  const Topology& topology = profile.topology;
  std::vector<int> offline;
  for (const Core& core : topology.cores) {
    if (!core.online) offline.push_back(core.cpu);
  }
  Rows facts{{"device", ": " + OrUnknown(topology.board)},
             {"chip", ": " + OrUnknown(topology.chip)},
             {"system", ": " + OrUnknown(profile.os) + ", " + OrUnknown(profile.machine)},
             {"instruction sets", ": " + SetsText(topology.instruction_sets)},
             {"CPU kernels", ": " + kernels},
             {"may use", ": " + GrantText(profile)},
             {"caches", ": " + CachesText(topology)},
             {"memory", ": " + MemoryText(profile.memory)},
             {"heat", ": " + HeatText(profile.power)},
             {"power", ": " + PowerText(profile.power)},
             {"takes", ": " + TakesText(PowerOf(profile))}};
  if (!offline.empty()) facts.push_back({"offline cores", ": " + CpuListText(offline)});
  std::printf("%s\n%s\n", FormatTable(facts).c_str(), GroupsText(topology).c_str());
  const Rows tips{
      {"advice", "", "why"},
      {"CPU variant", OrUnknown(advice.variant.name), advice.variant_why},
      {"one build for it", OrUnknown(advice.variant.flags), "the same instruction sets"},
      {"prompt threads", advice.prefill_cpus.empty() ? kUnknown : "cores " + CpusInOrder(advice.prefill_cpus),
       advice.threads_why},
      {"answer threads", advice.decode_cpus.empty() ? kUnknown : "cores " + CpusInOrder(advice.decode_cpus),
       topology.groups.size() > 1 ? "the fastest first" : "likewise"},
      {"quantization", OrUnknown(advice.quantization), advice.quantization_why},
      {"largest model", advice.largest_model.empty() ? kUnknown : advice.largest_model + " alone", advice.memory_why}};
  std::fputs(FormatTable(tips).c_str(), stdout);
}

Json TakesJson(const DevicePower& power) {
  return {
      {"idle_w", power.idle_w}, {"active_w", power.active_w}, {"estimated", power.estimated}, {"source", power.source}};
}

Json AdviceJson(const DeviceAdvice& advice) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  return {{"variant", or_null(advice.variant.name)},
          {"build_flags", or_null(advice.variant.flags)},
          {"variant_why", advice.variant_why},
          {"prefill_cpus", advice.prefill_cpus},
          {"decode_cpus", advice.decode_cpus},
          {"threads_why", advice.threads_why},
          {"quantization", or_null(advice.quantization)},
          {"quantization_why", advice.quantization_why},
          {"largest_model", or_null(advice.largest_model)},
          {"cluster_model", or_null(advice.cluster_model)},
          {"memory_why", advice.memory_why}};
}

// Where a recorded tree stands in for the device, its programs cannot be asked.
DeviceProfile ProfileAt(const std::string& root) {
  return root.empty() ? ReadDeviceProfile() : ReadDeviceProfile(SystemFiles(root), nullptr);
}

// Tokens a second of the largest model: decode reads all weights for each. Empty where speed or model is not known.
std::optional<double> ExpectedSpeed(const std::optional<DeviceSpeed>& speed, const DeviceAdvice& advice) {
  if (!speed || advice.largest_model_bytes <= 0) return std::nullopt;
  return speed->matrix.one_row_bytes_s / advice.largest_model_bytes;
}

void PrintSpeed(const std::optional<DeviceSpeed>& speed, const DeviceAdvice& advice) {
  if (!advice.cluster_model.empty()) {
    std::printf("\ntwo devices like this one hold %s together\n", advice.cluster_model.c_str());
  }
  if (const auto expected = ExpectedSpeed(speed, advice)) {
    std::printf("expected of %s alone: about %.1f tokens/s; each token reads all weights, of 4 to 5 bits\n",
                advice.largest_model.c_str(), *expected);
  }
  if (!speed) {
    std::fputs("\nspeed: not measured yet (shoal device --bench)\n", stdout);
    return;
  }
  std::printf("\n%s", SpeedTable(*speed).c_str());
}

}  // namespace

int RunDevice(const DeviceOptions& options) {
  if (options.bench) WatchSignals();
  const DeviceProfile profile = ProfileAt(options.root);
  const DeviceAdvice advice = AdviseDevice(profile);
  DeviceFigures figures;  // none of a recorded tree
  if (options.root.empty()) {
    Result<DeviceFigures> known = FiguresOf(profile, advice, options.quantization, options.bench);
    if (!known.ok()) return Fail(known.error());
    figures = *std::move(known);
  }
  const std::vector<BackendDevices> seen = options.root.empty() ? SeeDevices() : std::vector<BackendDevices>();
  if (!options.json) {
    PrintText(profile, advice, KernelsText(options.root));
    PrintSeen(seen);
    for (const KernelChoice& choice : figures.choices) std::printf("\n%s", KernelsTable(choice).c_str());
    PrintSpeed(figures.speed, advice);
    return kExitOk;
  }
  Json json = Json::parse(DeviceProfileJson(profile));
  json["kernels"] = KernelsJson(options.root);
  json["beside_cpu"] = SeenJson(seen);
  json["kernel_choices"] = Json::parse(KernelChoicesJson(figures.choices, ""))["choices"];
  json["advice"] = AdviceJson(advice);
  json["takes"] = TakesJson(PowerOf(profile));
  const std::optional<DeviceSpeed>& speed = figures.speed;
  json["speed"] = speed ? Json::parse(SpeedJson({{*speed}, {}}, ""))["speeds"][0] : Json(nullptr);
  const std::optional<double> expected = ExpectedSpeed(speed, advice);
  json["advice"]["expected_tokens_s"] = expected ? Json(*expected) : Json(nullptr);
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  return kExitOk;
}

int RunDoctor(const DeviceOptions& options) {
  const DeviceProfile profile = ProfileAt(options.root);
  const bool here = options.root.empty();
  const std::vector<HealthCheck> checks =
      CheckHealth(profile, SystemFiles(options.root), here ? CommandRunner(RunCommand) : nullptr,
                  here ? ClockIsSynchronized() : std::nullopt);
  int problems = 0;
  Json json = Json::array();
  Rows rows{{"check", "", "found"}};
  for (const HealthCheck& check : checks) {
    problems += check.state == HealthState::kProblem ? 1 : 0;
    json.push_back({{"name", check.name},
                    {"state", HealthStateName(check.state)},
                    {"found", check.found},
                    {"advice", check.advice}});
    rows.push_back({check.name, HealthStateName(check.state), check.found});
  }
  if (options.json) {
    std::printf("%s\n", Json{{"checks", json}}.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    return problems == 0 ? kExitOk : kExitFailed;
  }
  std::fputs(FormatTable(rows).c_str(), stdout);
  for (const HealthCheck& check : checks) {
    if (!check.advice.empty()) std::printf("\n%s: %s\n", check.name.c_str(), check.advice.c_str());
  }
  return problems == 0 ? kExitOk : kExitFailed;
}

}  // namespace shoal::cli
