// Gauges of stages and network: see stage_metrics.h.
#include "node/stage_metrics.h"

#include <cstdint>
#include <string>

namespace shoal {
namespace {

// A label's value is one line within quotes.
std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

}  // namespace

void SetStageMetrics(MetricsRegistry& metrics, std::string_view model, const std::vector<StageTotals>& stages) {
  const std::string labels = model.empty() ? "" : "model=\"" + Escaped(model) + "\",";
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const StageTotals& stage = stages[i];
    const std::string label = labels + "stage=\"" + std::to_string(i) + "\"";
    const auto seconds = [&](const char* activity, std::uint64_t us) {
      metrics
          .GetGauge("shoal_stage_seconds", "Time a stage spent computing, waiting or on the wire since start.",
                    label + ",activity=\"" + activity + "\"")
          .Set(static_cast<double>(us) / 1e6);
    };
    seconds("compute", stage.compute_us);
    seconds("wait", stage.wait_us);
    seconds("wire", stage.wire_us);
    metrics.GetGauge("shoal_stage_micro_batches", "Micro-batches a stage has computed since start.", label)
        .Set(static_cast<double>(stage.batches));
  }
}

void SetSpeedMetrics(MetricsRegistry& metrics, const PlacementStatus& placement) {
  const ForecastStatus& forecast = placement.forecast;
  const ObservedSpeeds& observed = placement.observed;
  const auto set = [&](const char* of, const char* is, double value) {
    if (value <= 0) return;
    metrics
        .GetGauge("shoal_tokens_per_second", "What a placement gives, and what was expected of it when it was made.",
                  "model=\"" + Escaped(placement.model) + "\",of=\"" + of + "\",is=\"" + is + "\"")
        .Set(value);
  };
  set("one_stream", "expected", forecast.tokens_s);
  set("many_streams", "expected", forecast.tokens_s_many);
  set("prompt", "expected", forecast.PromptTokensPerSecond());
  set("one_stream", "measured", observed.tokens_s);
  set("many_streams", "measured", observed.tokens_s_many);
  set("prompt", "measured", observed.prompt_tokens_s);
}

void SetNetworkMetrics(MetricsRegistry& metrics, const NetworkStats& stats) {
  const auto set = [&](const char* name, const char* help, double value) { metrics.GetGauge(name, help).Set(value); };
  set("shoal_network_bytes_sent", "Bytes on TCP since start, encryption and all.",
      static_cast<double>(stats.bytes_sent));
  set("shoal_network_bytes_received", "Bytes on TCP since start, encryption and all.",
      static_cast<double>(stats.bytes_received));
  set("shoal_network_cpu_seconds", "Processor time of the network thread since start.",
      static_cast<double>(stats.cpu_ns) / 1e9);
  set("shoal_network_refused", "Connections that the gate or its limits closed.",
      static_cast<double>(stats.refused_inbound));
}

void SetRecoveryMetrics(MetricsRegistry& metrics, const RecoveryStats& recovery) {
  const auto set = [&](const char* work, std::uint64_t row_layers) {
    metrics
        .GetGauge("shoal_recovery_row_layers",
                  "Layers run for one row each to have generations go on after a loss, or what it takes from nothing.",
                  std::string("work=\"") + work + "\"")
        .Set(static_cast<double>(row_layers));
  };
  set("run", recovery.row_layers);
  set("from_nothing", recovery.row_layers_from_nothing);
}

}  // namespace shoal
