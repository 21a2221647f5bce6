// Figures of `status`, speed.json and a GGUF header to those of the planner.
#include "node/plan_inputs.h"

#include <algorithm>

#include "cluster/split.h"
#include "device/power_table.h"
#include "device/profile.h"
#include "engine/cpu_kernels.h"
#include "engine/split_rules.h"
#include "node/device_speed.h"
#include "node/kernel_choice.h"
#include "node/model_library.h"
#include "planner/device_speed.h"

namespace shoal {
namespace {

constexpr double kMemoryShare = 0.8;  // of what is free, as a node takes by itself

// This device's measured speed for weights like the model's, if there is one.
std::optional<PlanDevice> Measured(const std::string& home, const DeviceProfile& profile, const ModelInfo& model) {
  const int threads = ThreadsOf(LoadKernelChoices(home, profile), model.quantization, LoadedCpuVariant());
  const auto speed = LoadDeviceSpeed(home, profile, model.quantization, SpeedCpus(profile, threads));
  return speed ? std::optional(SpeedForPlans(*speed, model)) : std::nullopt;
}

// What a member says of itself.
std::optional<PlanDevice> Measured(const NodeStatus& node, const ModelInfo& model) {
  for (const StageSpeedStatus& one : node.stage_speeds) {
    if (one.model == ModelNameOf(model.path) && one.speed.rows_bytes_s > 0) return MeasuredDevice(one.speed, node.pace);
  }
  for (const SpeedStatus& speed : node.speeds) {
    if (speed.quantization != model.quantization) continue;
    return MeasuredDevice({speed.one_row_bytes_s, speed.rows_bytes_s, speed.operation_s, node.memory_bytes_s},
                          model.layer_bytes, node.pace);
  }
  return std::nullopt;
}

// As a node counts it that places a model: this one's own stages make room for what is planned.
std::uint64_t MemoryLeft(const ClusterStatus& status, const NodeStatus& node, const std::string& model) {
  std::uint64_t taken = 0;
  for (const PlacementStatus& placement : status.placements) {
    if (placement.model == model) continue;
    for (const PlacedStage& stage : placement.stages) taken += stage.node == node.id ? stage.memory_bytes : 0;
  }
  return node.memory_budget_bytes > taken ? node.memory_budget_bytes - taken : 0;
}

// As either end measured them; the sender's word counts most.
void TakeLinks(const ClusterStatus& status, const std::vector<std::string>& ids, KnownCluster& known) {
  const std::size_t count = ids.size();
  known.cluster.links.assign(count * count, kUnmeasuredLink);
  std::vector<bool> measured(count * count, false);
  const auto index = [&](const std::string& id) {
    return static_cast<std::size_t>(std::find(ids.begin(), ids.end(), id) - ids.begin());
  };
  for (const bool by_receiver : {true, false}) {
    for (const LinkStatus& link : status.links) {
      const std::size_t from = index(by_receiver ? link.to : link.from), to = index(by_receiver ? link.from : link.to);
      if (from >= count || to >= count) continue;
      PlanLink& at = known.cluster.links[from * count + to];
      if (link.rtt_us > 0) at.latency_s = link.rtt_us / 2e6;
      if (link.bytes_per_s > 0) at.bytes_s = static_cast<double>(link.bytes_per_s);
      if (link.rtt_us > 0 && link.bytes_per_s > 0) measured[from * count + to] = true;
    }
  }
  for (std::size_t a = 0; a < count; ++a) {
    for (std::size_t b = a + 1; b < count; ++b) {
      if (measured[a * count + b] && measured[b * count + a]) continue;
      known.unmeasured_links.push_back(known.cluster.devices[a].name + " - " + known.cluster.devices[b].name);
    }
  }
}

}  // namespace

PlanModel PlanModelOf(const ModelFile& model, std::int32_t context_tokens) {
  PlanModel plan;
  plan.layer_bytes = model.info.layer_bytes;
  for (const std::uint32_t elements : model.info.kv_elements) plan.kv_bytes.push_back(std::uint64_t{elements} * 2);
  plan.kv_bytes.resize(plan.layer_bytes.size(), 0);
  plan.output_bytes = model.info.output_bytes;
  plan.hidden_bytes = static_cast<std::uint64_t>(model.info.n_embd) * 2;
  PlaceOptions options;
  options.context_tokens = context_tokens;
  plan.sent_bytes = SentBytes(static_cast<std::uint32_t>(model.info.n_embd), options);
  const SplitRules rules = RulesFor(model);
  if (rules.splittable) plan.cuts = rules.cuts;
  return plan;
}

KnownCluster ThisDeviceForPlans(const std::string& home, const ModelInfo& model) {
  const DeviceProfile profile = ReadDeviceProfile();
  KnownCluster known;
  const auto measured = Measured(home, profile, model);
  const std::vector<int> cpus = SpeedCpus(profile, 0);
  PlanDevice device = UnderRation(measured.value_or(EstimatedDevice(static_cast<std::int32_t>(cpus.size()))),
                                  RationOf(profile.cpu_quota, cpus.size()));
  device.name = "this device";
  const DevicePower power = PowerOf(profile);
  device.idle_w = power.idle_w;
  device.active_w = power.active_w;
  device.on_battery = IsOnBattery(profile.power);
  device.memory_bytes = static_cast<std::uint64_t>(
      static_cast<double>(profile.memory.available_bytes.value_or(profile.memory.total_bytes.value_or(0) / 2)) *
      kMemoryShare);
  known.cluster.devices.push_back(device);
  known.cluster.links.assign(1, {});
  if (!measured) known.estimated.push_back(device.name);
  return known;
}

Result<KnownCluster> ClusterForPlans(const ClusterStatus& status, const std::string& home, const ModelInfo& model) {
  KnownCluster known;
  std::vector<std::string> ids;
  for (const NodeStatus& node : status.nodes) {
    if (node.state != "alive" || !node.draining.empty() || known.cluster.devices.size() >= kPlanDevicesMax) continue;
    auto measured = Measured(node, model);
    if (!measured && node.self) measured = Measured(home, ReadDeviceProfile(), model);
    PlanDevice device = UnderRation(measured.value_or(EstimatedDevice(node.cores)), node.ration);
    device.idle_w = node.idle_w;
    device.active_w = node.active_w;
    device.on_battery = node.on_battery;
    device.name = node.name.empty() ? node.id : node.name;
    device.memory_bytes = MemoryLeft(status, node, ModelNameOf(model.path));
    if (!measured) known.estimated.push_back(device.name);
    known.cluster.devices.push_back(std::move(device));
    ids.push_back(node.id);
  }
  known.powers_of_table = std::any_of(status.nodes.begin(), status.nodes.end(), [](const NodeStatus& node) {
    return node.state == "alive" && !node.power_measured;
  });
  if (ids.empty()) return Error{ErrorCode::kNotFound, "no node is alive that takes layers"};
  TakeLinks(status, ids, known);
  return known;
}

}  // namespace shoal
