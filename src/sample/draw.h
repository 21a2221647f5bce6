// The random part of sampling, and log-probabilities: pure functions of logits, seed and position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sample/params.h"

namespace shoal {

// Index of the candidate that the draw for (seed, position) picks: the first whose cumulative probability exceeds
// CounterUniform(seed, position + 2^32 * attempt) times the sum.
//   probabilities  f32 [n], >= 0, at least one > 0 (CHECK); need not sum to 1
//   attempt        of several draws at one position, which are independent
std::size_t DrawIndex(std::span<const float> probabilities, std::uint64_t seed, Position position,
                      std::uint32_t attempt = 0);

// Index of the largest logit; the lowest index among equals; NaN is never the largest. Precondition: not empty.
std::size_t ArgMax(std::span<const float> logits);

// The token's log-probability under softmax(logits), and the `count` most likely tokens, most likely first.
//   logits  f32 [n_vocab]; 0 <= token < n_vocab (CHECK); NaN counts as -infinity
// `count` below 0 is none, above n_vocab is n_vocab; the lower id first among equals. `end` is left false.
SampledToken WithLogprobs(std::span<const float> logits, TokenId token, std::int32_t count);

}  // namespace shoal
