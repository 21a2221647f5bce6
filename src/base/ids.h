// The small integers that name things. Plain integers on purpose: they are array indexes and wire fields.
#pragma once

#include <cstdint>

namespace shoal {

using TokenId = std::int32_t;        // an entry of the model's vocabulary
using Position = std::int32_t;       // 0-based index of a token in its sequence
using SequenceId = std::int32_t;     // a slot of the KV cache, 0 .. slots_max-1; the same on every stage
using StageIndex = std::int32_t;     // 0 = the head
using Epoch = std::uint64_t;         // version of a placement; a message of another epoch is refused
using GenerationId = std::uint64_t;  // one request's one choice; never reused within an epoch
using BatchId = std::uint64_t;       // one micro-batch, counted by the head

// Layers [first, last) of a model.
struct LayerRange {
  std::int32_t first = 0;
  std::int32_t last = 0;
  std::int32_t count() const { return last - first; }
  bool operator==(const LayerRange&) const = default;
};

}  // namespace shoal
