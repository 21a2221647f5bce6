// Dynamic programming from the first stage to the last: what each keeps depends only on what the stage before it keeps.
#include "schedule/keep_plan.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace shoal {
namespace {

// A row's hidden state over a link, in layers run for one row. It goes over the link however it was come by.
constexpr double kHopLayers = 1;
// A micro-batch reads all weights of a stage, which costs about as much as computing this many rows.
constexpr double kBatchRows = 4;

double FillStage(const StageHolding& stage, bool first, Position from, Position rows) {
  return static_cast<double>(rows - from) * (stage.layers + (first ? 0.0 : kHopLayers));
}

// Where neighbours keep different lengths, the rows between are micro-batches of one of the two alone.
double ExtraBatches(const StageHolding& alone, Position rows, std::int32_t batch_rows) {
  const double batches = (rows + batch_rows - 1) / batch_rows;
  return batches * kBatchRows * alone.layers;
}

}  // namespace

double FillCost(std::span<const StageHolding> stages, Position length, Position rows) {
  double cost = 0;
  for (const StageHolding& stage : stages) cost += FillStage(stage, &stage == stages.data(), length, rows);
  return cost;
}

KeepPlan PlanKeep(std::span<const StageHolding> stages, Position rows, std::int32_t batch_rows) {
  SHOAL_CHECK(!stages.empty() && batch_rows >= 1);
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<Position> lengths = {0};  // what a stage may keep
  for (const StageHolding& stage : stages) lengths.push_back(std::min(stage.length, rows));
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  const std::size_t n = lengths.size();

  std::vector<std::vector<std::size_t>> before(stages.size(), std::vector<std::size_t>(n, 0));
  std::vector<double> cost(n, 0), next(n);
  for (std::size_t k = 0; k < stages.size(); ++k) {
    for (std::size_t x = 0; x < n; ++x) {
      next[x] = kNever;
      if (lengths[x] > stages[k].length) continue;
      const double fill = FillStage(stages[k], k == 0, lengths[x], rows);
      if (k == 0) {
        next[x] = fill;
        continue;
      }
      for (std::size_t y = 0; y < n; ++y) {
        double total = cost[y] + fill;
        if (y > x) total += ExtraBatches(stages[k], lengths[y] - lengths[x], batch_rows);
        if (y < x) total += ExtraBatches(stages[k - 1], lengths[x] - lengths[y], batch_rows);
        const bool supplied = y <= x || stages[k - 1].sent_from <= lengths[x];
        if (!supplied || total >= next[x]) continue;
        next[x] = total;
        before[k][x] = y;
      }
    }
    cost.swap(next);
  }

  std::size_t best = static_cast<std::size_t>(std::min_element(cost.begin(), cost.end()) - cost.begin());
  KeepPlan plan{std::vector<Position>(stages.size()), cost[best]};
  for (std::size_t k = stages.size(); k-- > 0;) {
    plan.keep[k] = lengths[best];
    best = before[k][best];
  }
  return plan;
}

}  // namespace shoal
