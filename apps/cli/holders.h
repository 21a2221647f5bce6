// Which nodes have which layers of a model on their disks, for `shoal models` and `shoal status`. Knows no store.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "api/control_service.h"

namespace shoal::cli {

// A node that has some of a model's weights.
struct Holder {
  std::string node;  // its name, or its id
  std::vector<LayerRange> layers;
  std::uint64_t bytes = 0;
};

// Those that are there, whatever they call the model.
std::vector<Holder> HoldersOf(const ClusterStatus& cluster, std::uint64_t fingerprint);
// Models of which `known` (fingerprints) has none, each once.
std::vector<ModelStatus> OtherModels(const ClusterStatus& cluster, const std::vector<std::uint64_t>& known);
// Whether holders that are there have all layers between them.
bool AllLayersHeld(const std::vector<Holder>& holders, std::int32_t layers);

// "all 30", "0-9, 20 of 30", "none of 30". `ranges`: ascending, apart from each other.
std::string LayersText(const std::vector<LayerRange>& ranges, std::int32_t layers);
// [{"node","held":[{"first","last"}],"held_bytes"}]; the last layer is included.
nlohmann::json HoldersJson(const std::vector<Holder>& holders);

}  // namespace shoal::cli
