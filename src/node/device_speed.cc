// speed.json, and the arithmetic from a measurement to a plan's figures.
#include "node/device_speed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "api/json_values.h"
#include "base/log.h"
#include "device/cpu_affinity.h"
#include "device/cpu_ration.h"
#include "identity/private_file.h"
#include "node/token_cost.h"
#include "planner/cost_model.h"

namespace shoal {

// What is measured is what plans ask for.
static_assert(kSpeedRows == kPassRows &&
              kRowPoints ==
                  std::array<std::int32_t, 5>{1, kSpeedFewRows[0], kSpeedFewRows[1], kSpeedFewRows[2], kSpeedRows});

namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 6;
constexpr std::size_t kSpeedsKeptMax = 32;  // of kinds of weights, and of models
constexpr std::size_t kFileBytesMax = 256U << 10;
constexpr std::size_t kGroupsMax = 4;  // measured: more kinds of cores than that no chip has

std::string PathIn(const std::string& home) { return home + "/speed.json"; }

constexpr double kTokenUnknown_s = 1e-9;

bool IsSpeed(double value) { return value > 1e-12 && value < 1e15; }  // or a time in seconds

// Puts a measurement in place of the one that `is_old`, the oldest gives way when there are too many.
template <typename T, typename IsOld>
void Keep(const std::string& home, const DeviceProfile& profile, std::vector<T> KnownSpeeds::*of, const T& measured,
          IsOld is_old) {
  KnownSpeeds speeds = LoadSpeeds(home, profile);
  std::vector<T>& known = speeds.*of;
  std::erase_if(known, is_old);
  known.push_back(measured);
  if (known.size() > kSpeedsKeptMax) known.erase(known.begin());
  const Status kept = SaveSpeeds(home, profile, speeds);
  if (!kept.ok()) Log(LogLevel::kWarning, "device", "the measured speed is not kept: " + kept.error().message);
}

std::vector<int> CpusIn(const Json& item) {
  std::vector<int> list;
  const auto at = item.find("cpus");
  for (std::size_t i = 0; at != item.end() && at->is_array() && i < at->size() && i < kCpusMax; ++i) {
    const double cpu = (*at)[i].is_number_integer() ? (*at)[i].get<double>() : -1;
    if (cpu >= 0 && cpu < kCpusMax) list.push_back(static_cast<int>(cpu));
  }
  return list;
}

std::optional<ModelSpeed> ReadModel(const Json& item) {
  if (!item.is_object() || !item.contains("model") || !item["model"].is_number_unsigned()) return std::nullopt;
  ModelSpeed model{item["model"].get<std::uint64_t>(), CpusIn(item), {}, ""};
  for (const auto& [name, value] : StageFigures(model.speed)) {
    *value = NumberIn(item, name);
    if (!IsSpeed(*value)) return std::nullopt;
  }
  model.device = TextIn(item, "device");
  return model;
}

std::optional<DeviceSpeed> ReadOne(const Json& item) {
  if (!item.is_object() || TextIn(item, "quantization").empty()) return std::nullopt;
  DeviceSpeed speed;
  speed.quantization = TextIn(item, "quantization");
  speed.cpus = CpusIn(item);
  speed.matrix = {NumberIn(item, "one_row_bytes_s"), NumberIn(item, "rows_bytes_s"), NumberIn(item, "operation_s"),
                  TextIn(item, "layout")};
  speed.memory_bytes_s = NumberIn(item, "memory_bytes_s");
  if (!IsSpeed(speed.matrix.one_row_bytes_s) || !IsSpeed(speed.matrix.rows_bytes_s) || !IsSpeed(speed.memory_bytes_s) ||
      !IsSpeed(speed.matrix.operation_s)) {
    return std::nullopt;
  }
  const auto groups = item.find("groups");
  for (std::size_t i = 0; groups != item.end() && groups->is_array() && i < groups->size() && i < kGroupsMax; ++i) {
    const Json& group = (*groups)[i];
    if (!group.is_object() || !IsSpeed(NumberIn(group, "bytes_s"))) continue;
    speed.groups.push_back({TextIn(group, "kind"), CpusIn(group), NumberIn(group, "bytes_s")});
  }
  return speed;
}

}  // namespace

std::string FingerprintOf(const DeviceProfile& profile) {
  std::string text = profile.topology.chip + "|" + profile.machine + "|" + CpuListText([&] {
                       std::vector<int> cpus = profile.UsableCpus();
                       std::sort(cpus.begin(), cpus.end());
                       return cpus;
                     }()) +
                     "|" + MatrixCodeVersion();
  for (const CoreGroup& group : profile.topology.groups) text += "|" + group.name + " " + CpuListText(group.cpus);
  return text;
}

std::string SpeedJson(const KnownSpeeds& speeds, const std::string& fingerprint) {
  Json root = {
      {"version", kVersion}, {"fingerprint", fingerprint}, {"speeds", Json::array()}, {"stages", Json::array()}};
  for (const ModelSpeed& model : speeds.models) {
    Json item = {{"model", model.fingerprint}, {"cpus", model.cpus}};
    if (!model.device.empty()) item["device"] = model.device;
    for (const auto& [name, value] : StageFigures(model.speed)) item[name] = *value;
    root["stages"].push_back(std::move(item));
  }
  for (const DeviceSpeed& speed : speeds.devices) {
    Json groups = Json::array();
    for (const GroupBandwidth& group : speed.groups) {
      groups.push_back({{"kind", group.kind}, {"cpus", group.cpus}, {"bytes_s", group.bytes_s}});
    }
    root["speeds"].push_back({{"quantization", speed.quantization},
                              {"cpus", speed.cpus},
                              {"one_row_bytes_s", speed.matrix.one_row_bytes_s},
                              {"rows_bytes_s", speed.matrix.rows_bytes_s},
                              {"operation_s", speed.matrix.operation_s},
                              {"layout", speed.matrix.layout},
                              {"memory_bytes_s", speed.memory_bytes_s},
                              {"groups", groups}});
  }
  return root.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

KnownSpeeds ParseSpeedJson(const std::string& text, const std::string& fingerprint) {
  KnownSpeeds speeds;
  const Json root = Json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains("fingerprint") || root["fingerprint"] != Json(fingerprint)) return speeds;
  if (!root.contains("version") || root["version"] != Json(kVersion)) return speeds;
  const auto each = [&](const char* key, const auto& take) {
    const auto items = root.find(key);
    for (std::size_t i = 0; items != root.end() && items->is_array() && i < items->size() && i < kSpeedsKeptMax; ++i) {
      take((*items)[i]);
    }
  };
  each("speeds", [&](const Json& item) {
    if (std::optional<DeviceSpeed> speed = ReadOne(item)) speeds.devices.push_back(std::move(*speed));
  });
  each("stages", [&](const Json& item) {
    if (std::optional<ModelSpeed> model = ReadModel(item)) speeds.models.push_back(std::move(*model));
  });
  return speeds;
}

std::vector<int> SpeedCpus(const DeviceProfile& profile, std::int32_t threads) {
  std::vector<int> cpus = profile.FastCpus();
  // More threads than these are on slower cores too.
  if (threads > 0 && static_cast<std::size_t>(threads) > cpus.size()) cpus = profile.UsableCpus();
  std::size_t count = cpus.size();
  if (threads > 0) {
    count = static_cast<std::size_t>(threads);
  } else if (profile.cpu_quota) {
    count = static_cast<std::size_t>(std::ceil(std::max(*profile.cpu_quota, 1.0)));
  }
  if (count < cpus.size()) cpus.resize(count);
  return cpus;
}

const DeviceSpeed* KnownSpeeds::Of(const std::string& quantization, const std::vector<int>& cpus) const {
  const auto found = std::find_if(devices.begin(), devices.end(), [&](const DeviceSpeed& one) {
    return one.quantization == quantization && one.cpus == cpus;
  });
  return found == devices.end() ? nullptr : &*found;
}

const ModelSpeed* KnownSpeeds::Of(std::uint64_t fingerprint, const std::vector<int>& cpus,
                                  const std::string& device) const {
  const auto found = std::find_if(models.begin(), models.end(), [&](const ModelSpeed& one) {
    return one.fingerprint == fingerprint && one.cpus == cpus && one.device == device;
  });
  return found == models.end() ? nullptr : &*found;
}

KnownSpeeds LoadSpeeds(const std::string& home, const DeviceProfile& profile) {
  return ParseSpeedJson(ReadPrivateText(PathIn(home), kFileBytesMax), FingerprintOf(profile));
}

Status SaveSpeeds(const std::string& home, const DeviceProfile& profile, const KnownSpeeds& speeds) {
  SHOAL_RETURN_IF_ERROR(MakePrivateFolder(home));
  return WritePrivateText(PathIn(home), SpeedJson(speeds, FingerprintOf(profile)));
}

std::optional<DeviceSpeed> LoadDeviceSpeed(const std::string& home, const DeviceProfile& profile,
                                           const std::string& quantization, const std::vector<int>& cpus) {
  const KnownSpeeds speeds = LoadSpeeds(home, profile);
  const DeviceSpeed* const speed = speeds.Of(quantization, cpus);
  return speed == nullptr ? std::nullopt : std::optional(*speed);
}

Result<DeviceSpeed> MeasureDeviceSpeed(const std::string& home, const DeviceProfile& profile,
                                       const std::string& quantization, const std::vector<int>& cpus) {
  DeviceSpeed speed;
  speed.quantization = quantization;
  speed.cpus = cpus;
  SpeedTestOptions options;
  options.quantization = quantization;
  options.cpus = speed.cpus;
  options.rationed = RationOf(CpuQuota(), cpus.size()) < 1;
  SHOAL_ASSIGN_OR_RETURN(speed.matrix, MeasureMatrixSpeed(options));
  // Numbers of 16 bits that are used once each: nothing but reading.
  options.quantization = "F16";
  options.time_max = std::chrono::milliseconds(250);
  options.one_row_only = true;
  SHOAL_ASSIGN_OR_RETURN(const MatrixSpeed plain, MeasureMatrixSpeed(options));
  speed.memory_bytes_s = std::max(plain.one_row_bytes_s, speed.matrix.one_row_bytes_s);
  const std::vector<int> usable = profile.UsableCpus();
  for (const CoreGroup& group : profile.topology.groups) {
    options.cpus.clear();
    for (const int cpu : group.cpus) {
      if (std::find(usable.begin(), usable.end(), cpu) != usable.end()) options.cpus.push_back(cpu);
    }
    if (options.cpus.empty() || speed.groups.size() >= kGroupsMax) continue;
    MatrixSpeed of_group = plain;
    if (options.cpus != cpus) { SHOAL_ASSIGN_OR_RETURN(of_group, MeasureMatrixSpeed(options)); }
    speed.groups.push_back({CoreKindName(group.kind), options.cpus, of_group.one_row_bytes_s});
  }
  Keep(home, profile, &KnownSpeeds::devices, speed,
       [&](const DeviceSpeed& one) { return one.quantization == speed.quantization && one.cpus == speed.cpus; });
  return speed;
}

Result<ModelSpeed> MeasureModelSpeed(const std::string& home, const DeviceProfile& profile, std::uint64_t fingerprint,
                                     const std::shared_ptr<const ModelFile>& model, const std::vector<int>& cpus,
                                     const SpeedDevice& device) {
  StageSpeedOptions options;
  options.cpus = cpus;
  options.ration = RationOf(CpuQuota(), cpus.size());
  options.open = device.open;
  SHOAL_ASSIGN_OR_RETURN(const StageSpeed speed, MeasureStageSpeed(model, options));
  const Result<double> token = MeasureTokenCost(model, cpus, options.ration, home);
  if (!token.ok()) Log(LogLevel::kInfo, "device", "what a token costs is not known: " + token.error().message);
  const ModelSpeed measured{
      fingerprint,
      cpus,
      {speed.pass_s, speed.one_row_bytes_s, speed.pair_bytes_s, speed.quad_bytes_s, speed.group_bytes_s,
       speed.rows_bytes_s, speed.kv_bytes_s, speed.kv_rows_bytes_s, speed.output_bytes_s, speed.output_pair_bytes_s,
       speed.output_quad_bytes_s, speed.output_group_bytes_s, token.ok() ? *token : kTokenUnknown_s},
      device.key};
  Keep(home, profile, &KnownSpeeds::models, measured, [&](const ModelSpeed& one) {
    return one.fingerprint == fingerprint && one.cpus == cpus && one.device == device.key;
  });
  return measured;
}

double RationOf(std::optional<double> cpu_quota, std::size_t threads) {
  if (!cpu_quota || threads == 0) return 1;
  return std::clamp(*cpu_quota / static_cast<double>(threads), 0.01, 1.0);
}

PlanDevice SpeedForPlans(const DeviceSpeed& speed, const ModelInfo& model) {
  return MeasuredDevice(
      {speed.matrix.one_row_bytes_s, speed.matrix.rows_bytes_s, speed.matrix.operation_s, speed.memory_bytes_s},
      model.layer_bytes);
}

}  // namespace shoal
