// Draws and log-probabilities over a whole vocabulary: one pass each, sums in double.
#include "sample/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The largest logit, -infinity when all are NaN. Several running maxima, so that the compiler can use SIMD.
float MaxLogit(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16;
  float lane_max[kLanes];
  std::fill_n(lane_max, kLanes, kMinusInfinity);
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lane_max[lane] = logits[i + lane] > lane_max[lane] ? logits[i + lane] : lane_max[lane];
    }
  }
  float max = *std::max_element(lane_max, lane_max + kLanes);
  for (; i < logits.size(); ++i) max = logits[i] > max ? logits[i] : max;
  return max;
}

// log(sum(exp(logit))) = max + log(sum(exp(logit - max))), which cannot overflow. `max` is finite.
double LogSumExp(std::span<const float> logits, float max) {
  double sum = 0;
  for (const float logit : logits) {
    const float below_max = logit - max;
    // exp(-80) is 2e-35: even 2^31 such terms cannot change the sum, which is at least 1. NaN fails the comparison.
    if (below_max > -80.0F) sum += static_cast<double>(std::exp(below_max));
  }
  return static_cast<double>(max) + std::log(sum);
}

// Turns logits into log-probabilities.
class Normalizer {
 public:
  explicit Normalizer(std::span<const float> logits) : max_(MaxLogit(logits)) {
    if (std::isfinite(max_)) log_sum_ = LogSumExp(logits, max_);
  }
  float Logprob(float logit) const {
    if (std::isnan(logit) || logit == kMinusInfinity) return kMinusInfinity;
    if (!std::isfinite(max_)) return logit == max_ ? 0.0F : kMinusInfinity;  // one certain token: +infinity
    return static_cast<float>(static_cast<double>(logit) - log_sum_);
  }

 private:
  float max_;
  double log_sum_ = 0;
};

// The `count` largest logits, largest first; the lower index first among equals. NaN counts as -infinity.
std::vector<TokenLogprob> MostLikely(std::span<const float> logits, std::size_t count) {
  std::vector<TokenLogprob> best;  // a heap, its least likely in front
  if (count == 0) return best;
  best.reserve(count + 1);
  const auto more_likely = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  };
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // Tokens come in ascending order, so one that equals the least likely is behind it.
    if (best.size() == count && !(logits[i] > best.front().logprob)) continue;
    best.push_back({static_cast<TokenId>(i), std::isnan(logits[i]) ? kMinusInfinity : logits[i]});
    std::push_heap(best.begin(), best.end(), more_likely);
    if (best.size() > count) {
      std::pop_heap(best.begin(), best.end(), more_likely);
      best.pop_back();
    }
  }
  std::sort_heap(best.begin(), best.end(), more_likely);
  return best;
}

}  // namespace

std::size_t DrawIndex(std::span<const float> probabilities, std::uint64_t seed, Position position,
                      std::uint32_t attempt) {
  double sum = 0;
  for (const float p : probabilities) {
    SHOAL_CHECK(p >= 0);
    sum += static_cast<double>(p);
  }
  SHOAL_CHECK(sum > 0 && std::isfinite(sum));
  const std::uint64_t counter = std::uint64_t{attempt} << 32 | static_cast<std::uint32_t>(position);
  const double target = CounterUniform(seed, counter) * sum;
  double cumulative = 0;
  std::size_t last_possible = 0;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0) continue;
    last_possible = i;
    cumulative += static_cast<double>(probabilities[i]);
    if (cumulative > target) return i;
  }
  return last_possible;
}

std::size_t ArgMax(std::span<const float> logits) {
  SHOAL_CHECK(!logits.empty());
  const auto found = std::find(logits.begin(), logits.end(), MaxLogit(logits));
  return found == logits.end() ? 0 : static_cast<std::size_t>(found - logits.begin());
}

SampledToken WithLogprobs(std::span<const float> logits, TokenId token, std::int32_t count) {
  SHOAL_CHECK(token >= 0 && static_cast<std::size_t>(token) < logits.size());
  const Normalizer normalizer(logits);
  SampledToken sampled;
  sampled.token = token;
  sampled.logprob = normalizer.Logprob(logits[static_cast<std::size_t>(token)]);
  sampled.alternatives = MostLikely(logits, std::min(static_cast<std::size_t>(std::max(count, 0)), logits.size()));
  for (TokenLogprob& alternative : sampled.alternatives) alternative.logprob = normalizer.Logprob(alternative.logprob);
  return sampled;
}

}  // namespace shoal
