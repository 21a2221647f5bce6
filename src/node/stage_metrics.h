// What stages did with their time, what losses cost, and the network with its bytes, as gauges for GET /metrics.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "api/control_service.h"
#include "base/metrics.h"
#include "node/head.h"
#include "pipeline/pipeline.h"
#include "transport/libp2p.h"

namespace shoal {

// Sets shoal_stage_seconds{model,stage,activity} and shoal_stage_micro_batches{model,stage} of models by name, which
// may be any text; empty: without that label. Those of other models are no longer shown.
void SetStageMetrics(MetricsRegistry& metrics, const std::map<std::string, std::vector<StageTotals>>& stages);
// Sets shoal_tokens_per_second{model,of,is} of what is known of all placements. What was known of others is no longer
// shown.
void SetSpeedMetrics(MetricsRegistry& metrics, const std::vector<PlacementStatus>& placements);
// Sets shoal_recovery_row_layers{work} and shoal_drafts{was}.
void SetHeadMetrics(MetricsRegistry& metrics, const HeadCounts& counts);

// Sets shoal_network_*.
void SetNetworkMetrics(MetricsRegistry& metrics, const NetworkStats& stats);

}  // namespace shoal
