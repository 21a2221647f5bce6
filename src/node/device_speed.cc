// speed.json, and the arithmetic from a measurement to a plan's figures.
#include "node/device_speed.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "planner/device_speed.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr std::size_t kSpeedsMax = 32;
constexpr std::size_t kFileBytesMax = 256U << 10;
constexpr std::size_t kGroupsMax = 4;  // measured: more kinds of cores than that no chip has

std::string PathIn(const std::string& home) { return home + "/speed.json"; }

bool IsSpeed(double value) { return std::isfinite(value) && value > 0 && value < 1e15; }

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kFileBytesMax, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return text;
}

void Keep(const std::string& home, const DeviceProfile& profile, const DeviceSpeed& speed) {
  const std::string fingerprint = FingerprintOf(profile);
  std::vector<DeviceSpeed> speeds = ParseSpeedJson(ReadFile(PathIn(home)), fingerprint);
  std::erase_if(speeds, [&](const DeviceSpeed& known) {
    return known.quantization == speed.quantization && known.cpus == speed.cpus;
  });
  speeds.push_back(speed);
  if (speeds.size() > kSpeedsMax) speeds.erase(speeds.begin());
  std::error_code error;
  std::filesystem::create_directories(home, error);
  const std::string path = PathIn(home), beside = path + ".new";
  std::ofstream out(beside, std::ios::binary | std::ios::trunc);
  out << SpeedJson(speeds, fingerprint);
  out.close();
  if (!out || std::rename(beside.c_str(), path.c_str()) != 0) {
    Log(LogLevel::kWarning, "device", "the measured speed cannot be kept in " + path);
  }
}

std::optional<DeviceSpeed> ReadOne(const Json& item) {
  const auto number = [&](const char* key) {
    const auto at = item.find(key);
    return at != item.end() && at->is_number() ? at->get<double>() : 0.0;
  };
  const auto cpus = [](const Json& from) {
    std::vector<int> list;
    const auto at = from.find("cpus");
    for (std::size_t i = 0; at != from.end() && at->is_array() && i < at->size() && i < 1024; ++i) {
      if ((*at)[i].is_number_integer()) list.push_back((*at)[i].get<int>());
    }
    return list;
  };
  if (!item.is_object() || !item.contains("quantization") || !item["quantization"].is_string()) return std::nullopt;
  DeviceSpeed speed;
  speed.quantization = item["quantization"].get<std::string>();
  speed.cpus = cpus(item);
  speed.matrix = {number("one_row_bytes_s"), number("rows_bytes_s"), number("operation_s"), item.value("layout", "")};
  speed.memory_bytes_s = number("memory_bytes_s");
  if (!IsSpeed(speed.matrix.one_row_bytes_s) || !IsSpeed(speed.matrix.rows_bytes_s) || !IsSpeed(speed.memory_bytes_s) ||
      !IsSpeed(speed.matrix.operation_s)) {
    return std::nullopt;
  }
  const auto groups = item.find("groups");
  for (std::size_t i = 0; groups != item.end() && groups->is_array() && i < groups->size() && i < kGroupsMax; ++i) {
    const Json& group = (*groups)[i];
    if (!group.is_object() || !group.contains("bytes_s") || !group["bytes_s"].is_number()) continue;
    speed.groups.push_back({group.value("kind", "unknown"), cpus(group), group["bytes_s"].get<double>()});
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

std::string SpeedJson(const std::vector<DeviceSpeed>& speeds, const std::string& fingerprint) {
  Json root = {{"version", kVersion}, {"fingerprint", fingerprint}, {"speeds", Json::array()}};
  for (const DeviceSpeed& speed : speeds) {
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

std::vector<DeviceSpeed> ParseSpeedJson(const std::string& text, const std::string& fingerprint) {
  std::vector<DeviceSpeed> speeds;
  const Json root = Json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains("fingerprint") || root["fingerprint"] != Json(fingerprint)) return speeds;
  if (!root.contains("version") || root["version"] != Json(kVersion)) return speeds;
  const auto items = root.find("speeds");
  for (std::size_t i = 0; items != root.end() && items->is_array() && i < items->size() && i < kSpeedsMax; ++i) {
    if (std::optional<DeviceSpeed> speed = ReadOne((*items)[i])) speeds.push_back(std::move(*speed));
  }
  return speeds;
}

std::vector<int> SpeedCpus(const DeviceProfile& profile, std::int32_t threads) {
  std::vector<int> cpus = profile.FastCpus();
  if (threads > 0 && static_cast<std::size_t>(threads) < cpus.size()) cpus.resize(static_cast<std::size_t>(threads));
  return cpus;
}

std::optional<DeviceSpeed> LoadDeviceSpeed(const std::string& home, const DeviceProfile& profile,
                                           const std::string& quantization, const std::vector<int>& cpus) {
  for (DeviceSpeed& speed : ParseSpeedJson(ReadFile(PathIn(home)), FingerprintOf(profile))) {
    if (speed.quantization == quantization && speed.cpus == cpus) return std::move(speed);
  }
  return std::nullopt;
}

Result<DeviceSpeed> MeasureDeviceSpeed(const std::string& home, const DeviceProfile& profile,
                                       const std::string& quantization, const std::vector<int>& cpus) {
  DeviceSpeed speed;
  speed.quantization = quantization;
  speed.cpus = cpus;
  SpeedTestOptions options;
  options.quantization = quantization;
  options.cpus = speed.cpus;
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
    SHOAL_ASSIGN_OR_RETURN(const MatrixSpeed of_group, MeasureMatrixSpeed(options));
    speed.groups.push_back({CoreKindName(group.kind), options.cpus, of_group.one_row_bytes_s});
  }
  Keep(home, profile, speed);
  return speed;
}

PlanDevice SpeedForPlans(const DeviceSpeed& speed, const ModelInfo& model) {
  return MeasuredDevice(
      {speed.matrix.one_row_bytes_s, speed.matrix.rows_bytes_s, speed.matrix.operation_s, speed.memory_bytes_s},
      model.layer_bytes);
}

}  // namespace shoal
