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

// Sets gauges of one family by their labels; at its end those that it has not set are no longer shown.
class Family {
 public:
  Family(MetricsRegistry& metrics, std::string_view name, std::string_view help)
      : metrics_(metrics), name_(name), help_(help) {}
  ~Family() { metrics_.KeepOnly(name_, labels_); }
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;
  void Set(const std::string& labels, double value) {
    metrics_.GetGauge(name_, help_, labels).Set(value);
    labels_.push_back(labels);
  }

 private:
  MetricsRegistry& metrics_;
  const std::string_view name_, help_;
  std::vector<std::string> labels_;
};

}  // namespace

void SetStageMetrics(MetricsRegistry& metrics, const std::map<std::string, std::vector<StageTotals>>& stages) {
  Family seconds(metrics, "shoal_stage_seconds", "Time a stage spent computing, waiting or on the wire since start.");
  Family batches(metrics, "shoal_stage_micro_batches", "Micro-batches a stage has computed since start.");
  for (const auto& [model, totals] : stages) {
    for (std::size_t i = 0; i < totals.size(); ++i) {
      const std::string label =
          (model.empty() ? "" : "model=\"" + Escaped(model) + "\",") + "stage=\"" + std::to_string(i) + "\"";
      const auto spent = [&](const char* activity, std::uint64_t us) {
        seconds.Set(label + ",activity=\"" + activity + "\"", static_cast<double>(us) / 1e6);
      };
      spent("compute", totals[i].compute_us);
      spent("wait", totals[i].wait_us);
      spent("wire", totals[i].wire_us);
      batches.Set(label, static_cast<double>(totals[i].batches));
    }
  }
}

void SetSpeedMetrics(MetricsRegistry& metrics, const std::vector<PlacementStatus>& placements) {
  Family speeds(metrics, "shoal_tokens_per_second",
                "What a placement gives, and what was expected of it when it was made.");
  for (const PlacementStatus& placement : placements) {
    const auto set = [&](const char* of, const char* is, double value) {
      if (value <= 0) return;
      speeds.Set("model=\"" + Escaped(placement.model) + "\",of=\"" + of + "\",is=\"" + is + "\"", value);
    };
    set("one_stream", "expected", placement.forecast.tokens_s);
    set("many_streams", "expected", placement.forecast.tokens_s_many);
    set("prompt", "expected", placement.forecast.PromptTokensPerSecond());
    set("one_stream", "measured", placement.observed.tokens_s);
    set("many_streams", "measured", placement.observed.tokens_s_many);
    set("prompt", "measured", placement.observed.prompt_tokens_s);
  }
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

void SetHeadMetrics(MetricsRegistry& metrics, const HeadCounts& counts) {
  const auto set = [&](const char* work, std::uint64_t row_layers) {
    metrics
        .GetGauge("shoal_recovery_row_layers",
                  "Layers run for one row each to have generations go on after a loss, or what it takes from nothing.",
                  std::string("work=\"") + work + "\"")
        .Set(static_cast<double>(row_layers));
  };
  set("run", counts.recovery.row_layers);
  set("from_nothing", counts.recovery.row_layers_from_nothing);
  const auto set_drafts = [&](const char* was, std::uint64_t rows) {
    metrics
        .GetGauge("shoal_drafts", "Rows computed before their token was known, that of a right or of a wrong guess.",
                  std::string("was=\"") + was + "\"")
        .Set(static_cast<double>(rows));
  };
  set_drafts("right", counts.drafts.right);
  set_drafts("wrong", counts.drafts.wrong);
}

}  // namespace shoal
