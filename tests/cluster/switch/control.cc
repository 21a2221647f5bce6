// JSON commands to calls on the fabric and the ports. See control.h.
#include "control.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

namespace shoal::test_switch {
namespace {

using Json = nlohmann::json;

template <typename T>
void Take(const Json& command, const char* name, T low, T high, T& setting) {
  const auto found = command.find(name);
  if (found == command.end()) return;
  const T value = found->get<T>();
  if (!(value >= low && value <= high)) throw std::invalid_argument(std::string(name) + " is out of its range");
  setting = value;
}

void Update(const Json& command, LinkSettings& settings) {
  constexpr std::int64_t kMinuteUs = 60'000'000, kBytesMax = std::int64_t{1} << 33;
  LinkSettings next = settings;
  Take<std::int64_t>(command, "delay_us", 0, kMinuteUs, next.delay_us);
  Take<std::int64_t>(command, "jitter_us", 0, kMinuteUs, next.jitter_us);
  Take<std::int64_t>(command, "reorder_us", 0, kMinuteUs, next.reorder_us);
  Take<std::int64_t>(command, "rate_bytes_per_s", 0, kBytesMax, next.rate_bytes_per_s);
  Take<std::int64_t>(command, "queue_bytes_max", 0, kBytesMax, next.queue_bytes_max);
  Take<double>(command, "loss", 0, 1, next.loss);
  Take<double>(command, "duplicate", 0, 1, next.duplicate);
  Take<double>(command, "reorder", 0, 1, next.reorder);
  Take<bool>(command, "cut", false, true, next.cut);
  Take<bool>(command, "drop_multicast", false, true, next.drop_multicast);
  Take<bool>(command, "drop_broadcast", false, true, next.drop_broadcast);
  settings = next;
}

PortId PortOf(const Ports& ports, const std::string& name) {
  const auto found = ports.ids.find(name);
  if (found == ports.ids.end()) throw std::invalid_argument("no port " + name);
  return found->second;
}

std::vector<PortId> PortsOf(const Ports& ports, const std::string& name) {
  if (name != "*") return {PortOf(ports, name)};
  std::vector<PortId> all;
  for (const auto& [_, id] : ports.ids) all.push_back(id);
  return all;
}

Json SetLinks(const Json& command, Fabric& fabric, const Ports& ports) {
  static const std::map<std::string, int> kKnown = {{"op", 0},
                                                    {"from", 0},
                                                    {"to", 0},
                                                    {"delay_us", 0},
                                                    {"jitter_us", 0},
                                                    {"reorder_us", 0},
                                                    {"loss", 0},
                                                    {"cut", 0},
                                                    {"reorder", 0},
                                                    {"drop_multicast", 0},
                                                    {"drop_broadcast", 0},
                                                    {"duplicate", 0},
                                                    {"rate_bytes_per_s", 0},
                                                    {"queue_bytes_max", 0}};
  for (const auto& [name, _] : command.items()) {
    if (!kKnown.contains(name)) throw std::invalid_argument("no setting " + name);
  }
  const std::string from = command.at("from"), to = command.at("to");
  if (from == "*" && to == "*") Update(command, fabric.defaults());
  int changed = 0;
  for (const PortId a : PortsOf(ports, from)) {
    for (const PortId b : PortsOf(ports, to)) {
      LinkSettings* settings = fabric.Settings(a, b);
      if (!settings) continue;
      Update(command, *settings);
      ++changed;
    }
  }
  return {{"ok", true}, {"links", changed}};
}

Json AddPort(const Json& command, Fabric& fabric, Ports& ports) {
  const std::string name = command.at("name");
  if (name == "*" || ports.ids.contains(name)) throw std::invalid_argument("the port name " + name + " is taken");
  std::string error;
  auto tap = Tap::Open(command.at("netns"), command.at("device"), command.value("offload", true), &error);
  if (!tap) throw std::runtime_error(error);
  const PortId id = ports.next++;
  ports.ids.emplace(name, id);
  ports.taps.emplace(id, std::move(tap));
  fabric.AddPort(id);
  return {{"ok", true}};
}

Json RemovePort(const Json& command, Fabric& fabric, Ports& ports) {
  const std::string name = command.at("name");
  const PortId id = PortOf(ports, name);
  fabric.RemovePort(id);
  ports.taps.erase(id);
  ports.ids.erase(name);
  return {{"ok", true}};
}

Json Stats(const Fabric& fabric, const Ports& ports) {
  Json links = Json::array();
  for (const auto& [from, a] : ports.ids) {
    for (const auto& [to, b] : ports.ids) {
      const LinkCounters* c = fabric.Counters(a, b);
      if (!c) continue;
      links.push_back({{"from", from},
                       {"to", to},
                       {"frames", c->frames},
                       {"bytes", c->bytes},
                       {"lost", c->lost},
                       {"cut", c->cut},
                       {"multicast", c->multicast},
                       {"full", c->full},
                       {"duplicated", c->duplicated},
                       {"reordered", c->reordered},
                       {"queued_bytes", c->queued_bytes},
                       {"late_ns", c->late_ns}});
    }
  }
  return {{"ok", true}, {"links", links}};
}

Json Run(const Json& command, Fabric& fabric, Ports& ports) {
  const std::string op = command.at("op");
  if (op == "link") return SetLinks(command, fabric, ports);
  if (op == "add_port") return AddPort(command, fabric, ports);
  if (op == "remove_port") return RemovePort(command, fabric, ports);
  if (op == "stats") return Stats(fabric, ports);
  throw std::invalid_argument("no command " + op);
}

}  // namespace

std::string RunCommand(const std::string& line, Fabric& fabric, Ports& ports) {
  try {
    return Run(Json::parse(line), fabric, ports).dump();
  } catch (const std::exception& error) { return Json{{"ok", false}, {"error", error.what()}}.dump(); }
}

}  // namespace shoal::test_switch
