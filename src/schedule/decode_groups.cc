// Sizes that halve from all generations together to one alone: tried, judged, compared.
#include "schedule/decode_groups.h"

#include <algorithm>

#include "base/check.h"
#include "schedule/pass_times.h"

namespace shoal {
namespace {

constexpr std::int32_t kTriesMax = 256;  // of a size that never comes back
constexpr std::uint64_t kFresh = 4096;   // micro-batches; then what is known of a size is looked at again
constexpr double kGain = 0.95;           // another size must take less than this share of the preferred one's time
// One micro-batch moves the pace by at most a fortieth, however long it was held up.
constexpr double kPaceWeight = 0.25, kPaceStepMax = 0.1, kPaceMax = 1000;

std::int32_t CeilDiv(std::int32_t a, std::int32_t b) { return (a + b - 1) / b; }

}  // namespace

DecodeGroups::DecodeGroups(std::int32_t stages, std::int32_t groups_max) : stages_(stages), groups_max_(groups_max) {
  SHOAL_CHECK(stages >= 1 && groups_max >= 1);
}

void DecodeGroups::Learn(std::int32_t rows, std::span<const StageTiming> timings) {
  if (rows < 1 || timings.empty()) return;
  const auto [slowest, total] = PassTimesOf(timings);
  ++learned_;
  Cost& cost = costs_[rows];
  cost.tries = 0;
  if (Known(cost)) {
    const double now = total / std::max(1.0, cost.total * pace_);
    pace_ *= 1 + kPaceWeight * std::clamp(now - 1, -kPaceStepMax, kPaceStepMax);
    pace_ = std::clamp(pace_, 1 / kPaceMax, kPaceMax);
    return;
  }
  const auto sample = static_cast<std::size_t>(cost.samples++);
  cost.slowest_samples[sample] = slowest / pace_;
  cost.total_samples[sample] = total / pace_;
  if (cost.samples < kSamples) return;
  cost.slowest = Median(cost.slowest_samples);
  cost.total = Median(cost.total_samples);
  cost.known_at = learned_;
}

bool DecodeGroups::Known(Cost& cost) const {
  if (cost.samples == kSamples && learned_ - cost.known_at > kFresh) cost.samples = 0;
  return cost.samples == kSamples;
}

// Of groups of `rows` rows, if one of them takes `cost`.
double DecodeGroups::RoundUs(std::int32_t decoders, std::int32_t rows, const Cost& cost) {
  return std::max(CeilDiv(decoders, rows) * cost.slowest, cost.total);
}

// Whether groups of more rows than the best known size has cannot be better, for more rows take no less time.
bool DecodeGroups::Hopeless(std::int32_t decoders, std::int32_t rows, std::int32_t best) const {
  if (best == 0 || rows <= best) return false;
  const Cost& cost = costs_.at(best);
  return RoundUs(decoders, rows, cost) >= kGain * RoundUs(decoders, best, cost);
}

std::int32_t DecodeGroups::Rows(std::int32_t decoders, std::int32_t rows_max) {
  const auto rows_of = [&](std::int32_t groups) { return std::min(CeilDiv(decoders, groups), rows_max); };
  const std::int32_t groups_max = std::min(decoders, groups_max_);
  const std::int32_t usual = rows_of(std::min(stages_, groups_max));
  std::int32_t best = 0, preferred = 0;
  const auto consider = [&](std::int32_t rows) {
    Cost& cost = costs_[rows];
    if (!Known(cost)) return !Hopeless(decoders, rows, best) && cost.tries++ < kTriesMax;  // to be tried now
    if (best == 0) {
      best = preferred = rows;
    } else if (RoundUs(decoders, rows, cost) <
               (best == preferred ? kGain : 1.0) * RoundUs(decoders, best, costs_.at(best))) {
      best = rows;
    }
    return false;
  };
  // The one in use is preferred, else the usual one: the others have to beat it.
  if (chosen_ >= 1 && chosen_ <= std::min(decoders, rows_max) && CeilDiv(decoders, chosen_) <= groups_max &&
      costs_.contains(chosen_) && consider(chosen_)) {
    return chosen_;
  }
  if (consider(usual)) return usual;
  for (std::int32_t groups = 1; groups < groups_max; groups *= 2) {
    if (consider(rows_of(groups))) return rows_of(groups);
  }
  if (consider(rows_of(groups_max))) return rows_of(groups_max);
  chosen_ = best == 0 ? usual : best;
  return chosen_;
}

}  // namespace shoal
