// How many decoding generations share a micro-batch, learned from what micro-batches took.
//
// Which size is best depends on processor and kernels: where a stage's time goes into reading its weights, eight rows
// take hardly longer than one; where it goes into arithmetic, eight take eight times as long, or more, for some kernels
// are at their best with one row. So a few sizes are tried, and the one is kept that lets all generations together
// advance fastest: a round of G groups takes G times the slowest stage, and never less than one group takes through all
// stages. What a size takes is the median of a few samples, held against the pace of the moment: answers that grow and
// devices that slow down make every size slower, and change nothing of which is best. Knows no generations and no
// clock; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "wire/messages.h"

namespace shoal {

class DecodeGroups {
 public:
  // At most `groups_max` (>= 1) groups in a round.
  DecodeGroups(std::int32_t stages, std::int32_t groups_max);

  // A micro-batch of `rows` decode rows, and nothing else, came back with these timings of its stages.
  void Learn(std::int32_t rows, std::span<const StageTiming> timings);

  // Rows of the next group when `decoders` (>= 1) decode, in 1..min(decoders, rows_max).
  std::int32_t Rows(std::int32_t decoders, std::int32_t rows_max);

 private:
  static constexpr std::int32_t kSamples = 5;  // of a size before it is judged

  struct Cost {                     // of one micro-batch, microseconds at the pace of 1
    double slowest = 0, total = 0;  // medians, once there are kSamples
    std::array<double, kSamples> slowest_samples{}, total_samples{};
    std::int32_t samples = 0;
    std::int32_t tries = 0;      // asked for to learn it; then given up, for such a micro-batch never comes to be
    std::uint64_t known_at = 0;  // `learned_` when it was judged
  };
  bool Known(Cost& cost) const;
  static double RoundUs(std::int32_t decoders, std::int32_t rows, const Cost& cost);
  bool Hopeless(std::int32_t decoders, std::int32_t rows, std::int32_t best) const;

  const std::int32_t stages_, groups_max_;
  std::map<std::int32_t, Cost> costs_;  // by rows; as many as there are sizes, at most kRowsMax
  double pace_ = 1;                     // what micro-batches take now, in what those of their size took when judged
  std::uint64_t learned_ = 0;
  std::int32_t chosen_ = 0;
};

}  // namespace shoal
