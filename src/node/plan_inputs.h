// What the planner is told: a model's sizes, this device's measured speed, a cluster as `status` shows it.
//
// A device whose speed nobody measured is estimated by its cores, and named as such: the plan is then only as good.
#pragma once

#include <string>
#include <vector>

#include "api/control_service.h"
#include "base/result.h"
#include "model/model_info.h"
#include "planner/cluster_file.h"
#include "planner/plan.h"

namespace shoal {

// With f16 K and V and hidden states, for stages of so many positions. A model that may not be cut has no cuts.
PlanModel PlanModelOf(const ModelFile& model, std::int32_t context_tokens);

struct KnownCluster {
  PlanCluster cluster;
  std::vector<std::string> estimated;         // names of devices whose speed is not measured
  std::vector<std::string> unmeasured_links;  // "A - B": taken for kUnmeasuredLink
  bool powers_of_table = true;                // of some device: else all are measured by batteries
};

// This device alone, measured or estimated. `home`: SHOAL_HOME.
KnownCluster ThisDeviceForPlans(const std::string& home, const ModelInfo& model);
// The nodes that are alive and take layers, each with the memory that other models' stages leave of what it may give.
// Errors: kNotFound (none).
Result<KnownCluster> ClusterForPlans(const ClusterStatus& status, const std::string& home, const ModelInfo& model);

}  // namespace shoal
