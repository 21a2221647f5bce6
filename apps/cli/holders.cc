// Looks through a cluster's state.
#include "apps/cli/holders.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/units.h"

namespace shoal::cli {
namespace {

bool IsThere(const NodeStatus& node) { return node.state == "alive" || node.state == "suspect"; }

}  // namespace

std::vector<Holder> HoldersOf(const ClusterStatus& cluster, std::uint64_t fingerprint) {
  std::vector<Holder> holders;
  for (const NodeStatus& node : cluster.nodes) {
    for (const ModelStatus& model : node.models) {
      if (!IsThere(node) || model.fingerprint != fingerprint || model.held_bytes == 0) continue;
      holders.push_back({node.name.empty() ? node.id : node.name, model.held, model.held_bytes});
      break;
    }
  }
  return holders;
}

std::vector<ModelStatus> OtherModels(const ClusterStatus& cluster, const std::vector<std::uint64_t>& known) {
  std::vector<ModelStatus> others;
  for (const NodeStatus& node : cluster.nodes) {
    for (const ModelStatus& model : node.models) {
      const auto same = [&](const ModelStatus& one) { return one.fingerprint == model.fingerprint; };
      const bool is_known = std::find(known.begin(), known.end(), model.fingerprint) != known.end();
      if (IsThere(node) && !is_known && std::none_of(others.begin(), others.end(), same)) others.push_back(model);
    }
  }
  return others;
}

bool AllLayersHeld(const std::vector<Holder>& holders, std::int32_t layers) {
  std::vector<LayerRange> ranges;
  for (const Holder& holder : holders) ranges.insert(ranges.end(), holder.layers.begin(), holder.layers.end());
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::int32_t held = 0;  // all layers before it
  for (const LayerRange& range : ranges) {
    if (range.first <= held) held = std::max(held, range.last);
  }
  return held >= layers;
}

std::string LayersText(const std::vector<LayerRange>& ranges, std::int32_t layers) {
  const std::string all = std::to_string(layers);
  if (ranges == std::vector<LayerRange>{{0, layers}}) return "all " + all;
  return (ranges.empty() ? "none" : FormatLayers(ranges)) + " of " + all;
}

nlohmann::json HoldersJson(const std::vector<Holder>& holders) {
  nlohmann::json list = nlohmann::json::array();
  for (const Holder& holder : holders) {
    nlohmann::json layers = nlohmann::json::array();
    for (const LayerRange& range : holder.layers) layers.push_back({{"first", range.first}, {"last", range.last - 1}});
    list.push_back({{"node", holder.node}, {"held", std::move(layers)}, {"held_bytes", holder.bytes}});
  }
  return list;
}

}  // namespace shoal::cli
