// nlohmann reads the text; every number is checked before it becomes a size.
#include "planner/cluster_file.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

namespace shoal {
namespace {

using nlohmann::json;

constexpr std::size_t kNameBytesMax = 64;
constexpr double kGib = 1024.0 * 1024 * 1024;

Error Bad(const std::string& what) { return {ErrorCode::kInvalidArgument, "the file of devices: " + what}; }

// A number above `low` and below `high`; `otherwise` if absent.
Result<double> Number(const json& object, const char* key, double low, double high, std::optional<double> otherwise) {
  const auto at = object.find(key);
  if (at == object.end() && otherwise) return *otherwise;
  if (at == object.end()) return Bad(std::string("'") + key + "' is missing");
  if (!at->is_number()) return Bad(std::string("'") + key + "' is no number");
  const double value = at->get<double>();
  if (!(value >= low && value <= high)) return Bad(std::string("'") + key + "' is out of range");
  return value;
}

Result<std::string> Name(const json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_string()) return Bad(std::string("'") + key + "' is missing or no text");
  const auto& name = at->get_ref<const std::string&>();
  if (name.empty() || name.size() > kNameBytesMax) return Bad(std::string("'") + key + "' is empty or too long");
  return name;
}

Result<bool> Flag(const json& object, const char* key, bool otherwise) {
  const auto at = object.find(key);
  if (at == object.end()) return otherwise;
  if (!at->is_boolean()) return Bad(std::string("'") + key + "' is neither true nor false");
  return at->get<bool>();
}

Result<PlanDevice> ReadDevice(const json& object) {
  if (!object.is_object()) return Bad("a device is no object");
  PlanDevice device;
  SHOAL_ASSIGN_OR_RETURN(device.name, Name(object, "name"));
  SHOAL_ASSIGN_OR_RETURN(const double memory, Number(object, "memory_gib", 0, 1e5, std::nullopt));
  SHOAL_ASSIGN_OR_RETURN(const double decode, Number(object, "decode_gb_s", 1e-3, 1e5, std::nullopt));
  SHOAL_ASSIGN_OR_RETURN(const double prefill, Number(object, "prefill_gb_s", 1e-3, 1e5, std::nullopt));
  SHOAL_ASSIGN_OR_RETURN(const double kv, Number(object, "kv_gb_s", 1e-3, 1e5, decode));
  SHOAL_ASSIGN_OR_RETURN(const double overhead, Number(object, "overhead_ms", 0, 1e4, 0.3));
  device.memory_bytes = static_cast<std::uint64_t>(memory * kGib);
  device.decode_bytes_s = decode * 1e9;
  device.prefill_bytes_s = prefill * 1e9;
  device.kv_bytes_s = kv * 1e9;
  device.pass_overhead_s = overhead / 1e3;
  SHOAL_ASSIGN_OR_RETURN(device.idle_w, Number(object, "idle_w", 0, 1e5, 0));
  SHOAL_ASSIGN_OR_RETURN(device.active_w, Number(object, "active_w", 0, 1e5, 0));
  SHOAL_ASSIGN_OR_RETURN(device.may_be_head, Flag(object, "head", true));
  SHOAL_ASSIGN_OR_RETURN(device.on_battery, Flag(object, "on_battery", false));
  return device;
}

Result<PlanLink> ReadLink(const json& object) {
  if (!object.is_object()) return Bad("a link is no object");
  SHOAL_ASSIGN_OR_RETURN(const double latency, Number(object, "latency_ms", 0, 1e5, std::nullopt));
  SHOAL_ASSIGN_OR_RETURN(const double speed, Number(object, "mb_s", 1e-3, 1e6, std::nullopt));
  return PlanLink{latency / 1e3, speed * 1e6};
}

}  // namespace

Result<PlanCluster> ParseClusterFile(const std::string& text) {
  if (text.size() > kClusterFileBytesMax) return Bad("it is too large");
  const json root = json::parse(text, nullptr, false);
  if (!root.is_object()) return Bad("it is no JSON object");
  const auto devices = root.find("devices");
  if (devices == root.end() || !devices->is_array()) return Bad("'devices' is missing or no list");
  if (devices->empty() || devices->size() > kPlanDevicesMax) {
    return Bad("it needs 1 to " + std::to_string(kPlanDevicesMax) + " devices");
  }
  PlanCluster cluster;
  std::map<std::string, std::size_t> by_name;
  for (const json& object : *devices) {
    SHOAL_ASSIGN_OR_RETURN(PlanDevice device, ReadDevice(object));
    if (!by_name.emplace(device.name, cluster.devices.size()).second)
      return Bad("two devices are named " + device.name);
    cluster.devices.push_back(std::move(device));
  }
  const std::size_t count = cluster.devices.size();
  PlanLink every;
  if (root.contains("link")) { SHOAL_ASSIGN_OR_RETURN(every, ReadLink(root["link"])); }
  cluster.links.assign(count * count, every);
  const auto links = root.find("links");
  if (links != root.end() && !links->is_array()) return Bad("'links' is no list");
  for (std::size_t i = 0; links != root.end() && i < links->size(); ++i) {
    SHOAL_ASSIGN_OR_RETURN(const PlanLink link, ReadLink((*links)[i]));
    std::size_t ends[2];
    for (int end = 0; end < 2; ++end) {
      SHOAL_ASSIGN_OR_RETURN(const std::string name, Name((*links)[i], end == 0 ? "from" : "to"));
      if (by_name.count(name) == 0) return Bad("a link names '" + name + "', which is no device");
      ends[end] = by_name[name];
    }
    cluster.links[ends[0] * count + ends[1]] = cluster.links[ends[1] * count + ends[0]] = link;
  }
  for (std::size_t i = 0; i < cluster.links.size(); ++i) {
    if (i / count != i % count && !(cluster.links[i].bytes_s > 0)) {
      return Bad("nothing says how fast the link between " + cluster.devices[i / count].name + " and " +
                 cluster.devices[i % count].name + " is: give 'link' for all or one in 'links'");
    }
  }
  return cluster;
}

}  // namespace shoal
