// What stages did with their time, what losses cost, and the network with its bytes, as gauges for GET /metrics.
#pragma once

#include <string_view>
#include <vector>

#include "api/control_service.h"
#include "base/metrics.h"
#include "pipeline/pipeline.h"
#include "transport/libp2p.h"

namespace shoal {

// Sets shoal_stage_seconds{model,stage,activity} and shoal_stage_micro_batches{model,stage}. `model` may be any text;
// empty: without that label.
void SetStageMetrics(MetricsRegistry& metrics, std::string_view model, const std::vector<StageTotals>& stages);
// Sets shoal_tokens_per_second{model,of,is} of what is known.
void SetSpeedMetrics(MetricsRegistry& metrics, const PlacementStatus& placement);
// Sets shoal_recovery_row_layers{work}.
void SetRecoveryMetrics(MetricsRegistry& metrics, const RecoveryStats& recovery);

// Sets shoal_network_*.
void SetNetworkMetrics(MetricsRegistry& metrics, const NetworkStats& stats);

}  // namespace shoal
