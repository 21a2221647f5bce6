// Inputs are the same pseudo-random hidden states, or tokens where the stage begins with them.
#include "offload/device_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/split_rules.h"

namespace shoal {
namespace {

// Weights of 4 bits are multiplied with inputs of 8 on a CPU and of 16 on a GPU: the same within this, and what is
// broken is far beyond. Two layouts of the weights on one CPU differ as much (docs/devices.md).
constexpr double kDivergenceMax = 5e-3;
constexpr double kDifferenceMax = 5e-3;

constexpr std::int32_t kPromptRows = 32;  // from here on BLAS takes part
constexpr std::int32_t kSingleRows = 4;
constexpr std::int32_t kCheckTokens = 256;

// The first layers of the stage; its last ones where it has the output head, which is the largest matrix.
LayerRange SmallestPart(const ModelFile& model, LayerRange stage) {
  const bool from_end = stage.last == model.info.n_layer;
  for (std::int32_t n = 1; n < stage.count(); ++n) {
    const LayerRange part =
        from_end ? LayerRange{stage.last - n, stage.last} : LayerRange{stage.first, stage.first + n};
    if (CheckStage(model, part).ok()) return part;
  }
  return stage;
}

// Fixed values of about [-1, 1]; only that they are the same for both matters.
std::vector<float> MadeUp(std::size_t count) {
  std::vector<float> values(count);
  std::uint32_t state = 0x9E3779B9U;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(state >> 8) / static_cast<float>(1U << 23) - 1.0F;
  }
  return values;
}

// What leaves the engine, of all calls one after the other.
Result<std::vector<float>> Run(Engine& engine, std::int32_t prompt_rows) {
  std::vector<float> all, hidden, out;
  Position position = 0;
  for (std::int32_t call = 0; call <= kSingleRows; ++call) {
    const auto n = static_cast<std::size_t>(call == 0 ? prompt_rows : 1);
    std::vector<EngineRow> rows(n);
    std::vector<TokenId> tokens(n);
    for (std::size_t i = 0; i < n; ++i) {
      tokens[i] = (31 * position + 7) % engine.n_vocab();
      rows[i] = {0, position++, i + 1 == n};
    }
    if (engine.is_first()) {
      SHOAL_RETURN_IF_ERROR(engine.Embed(tokens, hidden));
    } else {
      hidden = MadeUp(n * static_cast<std::size_t>(engine.n_embd()));
    }
    SHOAL_RETURN_IF_ERROR(engine.Forward(rows, hidden, out));
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

Result<std::vector<float>> RunPart(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options,
                                   std::size_t& width) {
  SHOAL_ASSIGN_OR_RETURN(const auto engine, Engine::Open(model, options));
  width = static_cast<std::size_t>(engine->is_last() ? engine->n_vocab() : engine->n_embd());
  return Run(*engine, std::min(kPromptRows, options.batch_rows_max));
}

bool AllNumbers(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// log(sum(exp(row))).
double LogSum(std::span<const float> row) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float v : row) sum += std::exp(v - top);
  return top + std::log(sum);
}

}  // namespace

double RelativeDifference(std::span<const float> mine, std::span<const float> reference) {
  if (mine.size() != reference.size() || !AllNumbers(mine) || !AllNumbers(reference)) {
    return std::numeric_limits<double>::infinity();
  }
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const double apart = static_cast<double>(mine[i]) - reference[i];
    difference += apart * apart;
    size += static_cast<double>(reference[i]) * reference[i];
  }
  return difference == 0 ? 0 : difference / size;
}

double MeanDivergence(std::span<const float> mine, std::span<const float> reference, std::size_t width) {
  const bool rows = width > 0 && !mine.empty() && mine.size() % width == 0;
  if (!rows || mine.size() != reference.size() || !AllNumbers(mine) || !AllNumbers(reference)) {
    return std::numeric_limits<double>::infinity();
  }
  double total = 0;
  for (std::size_t at = 0; at < mine.size(); at += width) {
    const auto row = mine.subspan(at, width), want = reference.subspan(at, width);
    const double mine_sum = LogSum(row), want_sum = LogSum(want);
    for (std::size_t i = 0; i < width; ++i) {
      const double log_p = want[i] - want_sum;
      total += std::exp(log_p) * (log_p - (row[i] - mine_sum));
    }
  }
  return total / (static_cast<double>(mine.size()) / static_cast<double>(width));
}

void CountTokens(std::span<const float> mine, std::span<const float> reference, std::size_t width,
                 DeviceReport& report) {
  for (std::size_t at = 0; width > 0 && at + width <= std::min(mine.size(), reference.size()); at += width) {
    const auto row = mine.subspan(at, width), want = reference.subspan(at, width);
    const auto token = std::max_element(row.begin(), row.end()) - row.begin();
    const auto wanted = std::max_element(want.begin(), want.end()) - want.begin();
    const float less_likely = want[static_cast<std::size_t>(wanted)] - want[static_cast<std::size_t>(token)];
    ++report.tokens;
    if (token == wanted) ++report.tokens_same;
    if (!(less_likely <= kTieMax)) ++report.tokens_other;
  }
}

Result<DeviceReport> CompareWithCpu(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options) {
  EngineOptions part = options;
  part.layers = SmallestPart(*model, options.layers);
  part.kv_tokens_max = kCheckTokens;
  part.sequences_max = 1;
  part.other_bytes = 0;
  part.on_progress = nullptr;
  part.device.layers = 0;
  std::size_t width = 0;
  EngineOptions cpu = part;
  cpu.device = {};
  SHOAL_ASSIGN_OR_RETURN(const std::vector<float> reference, RunPart(model, cpu, width));
  SHOAL_ASSIGN_OR_RETURN(const std::vector<float> mine, RunPart(model, part, width));
  DeviceReport report;
  const bool logits = part.layers.last == model->info.n_layer;
  report.difference = logits ? MeanDivergence(mine, reference, width) : RelativeDifference(mine, reference);
  report.difference_max = logits ? kDivergenceMax : kDifferenceMax;
  if (logits) CountTokens(mine, reference, width, report);
  return report;
}

}  // namespace shoal
