// The profile as JSON, for `shoal device --json` and for whoever reports a device.
#include <nlohmann/json.hpp>

#include "device/profile.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}
Json OrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json CoreJson(const Core& core) {
  Json json = {{"cpu", core.cpu},
               {"name", OrNull(core.name)},
               {"online", core.online},
               {"allowed", OrNull(core.allowed)},
               {"capacity", OrNull(core.capacity)},
               {"max_khz", OrNull(core.max_khz)},
               {"shares_core_with", OrNull(core.sibling)}};
  if (core.id) {
    json["midr"] = {{"implementer", core.id->implementer},
                    {"variant", core.id->variant},
                    {"part", core.id->part},
                    {"revision", core.id->revision}};
  }
  return json;
}

Json TopologyJson(const Topology& topology) {
  Json json = {{"chip", OrNull(topology.chip)}, {"board", OrNull(topology.board)}};
  json["instruction_sets"] = OrNull(topology.instruction_sets);
  json["groups"] = Json::array();
  for (const CoreGroup& group : topology.groups) {
    json["groups"].push_back({{"kind", CoreKindName(group.kind)},
                              {"name", OrNull(group.name)},
                              {"cpus", group.cpus},
                              {"capacity", OrNull(group.capacity)},
                              {"max_khz", OrNull(group.max_khz)}});
  }
  json["cores"] = Json::array();
  for (const Core& core : topology.cores) json["cores"].push_back(CoreJson(core));
  json["caches"] = Json::array();
  for (const Cache& cache : topology.caches) {
    json["caches"].push_back(
        {{"level", cache.level}, {"type", OrNull(cache.type)}, {"bytes", cache.bytes}, {"cpus", cache.cpus}});
  }
  return json;
}

Json PowerJson(const PowerFacts& power) {
  Json json = {{"on_mains", OrNull(power.on_mains)}, {"batteries", nullptr}, {"thermal_zones", nullptr}};
  if (power.has_supplies) json["batteries"] = Json::array();
  for (const Battery& battery : power.batteries) {
    json["batteries"].push_back({{"name", battery.name},
                                 {"percent", OrNull(battery.percent)},
                                 {"charging", OrNull(battery.charging)},
                                 {"celsius", OrNull(battery.celsius)},
                                 {"watts", OrNull(battery.watts)}});
  }
  for (const ThermalZone& zone : power.zones) {
    json["thermal_zones"].push_back({{"type", OrNull(zone.type)}, {"celsius", OrNull(zone.celsius)}});
  }
  return json;
}

}  // namespace

std::string DeviceProfileJson(const DeviceProfile& profile) {
  Json json = {
      {"os", OrNull(profile.os)}, {"machine", OrNull(profile.machine)}, {"android_api", OrNull(profile.android_api)}};
  json["cpu_quota"] = OrNull(profile.cpu_quota);
  json.update(TopologyJson(profile.topology));
  json["memory"] = {{"total_bytes", OrNull(profile.memory.total_bytes)},
                    {"available_bytes", OrNull(profile.memory.available_bytes)},
                    {"limit_bytes", OrNull(profile.memory.limit_bytes)},
                    {"swap_total_bytes", OrNull(profile.memory.swap_total_bytes)},
                    {"swap_free_bytes", OrNull(profile.memory.swap_free_bytes)}};
  json.update(PowerJson(profile.power));
  // Names come from files and may hold any bytes.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace shoal
