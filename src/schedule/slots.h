// The slots (sequences of the KV cache): which tokens each holds once everything sent so far has run, and which one
// saves a new request the most work.
//
// Writes no operations and knows no micro-batches: scheduler_state.h pairs every change here with its ControlOp.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "schedule/kv_cells.h"
#include "schedule/scheduler.h"

namespace shoal {

struct Slot {
  std::vector<TokenId> tokens;  // what the cache holds, by position
  GenerationId owner = 0;       // 0: free
  std::uint64_t freed_at = 0;   // order of becoming free, for least-recently-used
  Position aligned = 0;         // leading tokens that came in whole prefill chunks (reproducible mode)
};

// Where a request would run, and how much of it is there already.
struct Placement {
  SequenceId slot = 0;
  SequenceId copy_from = -1;  // >= 0: copy the prefix from this slot
  Position reuse = 0;         // tokens that need no prefill
};

Position CommonPrefix(std::span<const TokenId> a, std::span<const TokenId> b);

class SlotTable {
 public:
  explicit SlotTable(const ScheduleOptions& options);

  std::int32_t free_count() const { return free_; }
  const Slot& operator[](SequenceId slot) const { return slots_[slot]; }
  const KvCells& cells() const { return cells_; }
  bool can_copy() const { return can_copy_; }

  // The most of `tokens` (of which `emitted` were sampled) that any cache may serve: at least the last token has to
  // run, so that there are logits.
  Position ReuseMax(std::span<const TokenId> tokens, std::uint32_t emitted) const;
  // The free slot that serves the longest prefix, or a copy from any slot where that serves more (or spares the rest
  // of an idle one). Precondition (CHECK): free_count() > 0.
  Placement Choose(std::span<const TokenId> tokens, std::uint32_t emitted) const;
  // The free slot that became free first among those that hold tokens.
  std::optional<SequenceId> LeastRecentlyUsed() const;

  void Acquire(SequenceId slot, GenerationId owner);
  void Release(SequenceId slot);
  void Append(SequenceId slot, std::span<const TokenId> tokens);
  void Rewind(SequenceId slot, Position length);
  void Copy(SequenceId from, SequenceId to, Position length);

 private:
  Position Usable(const Slot& slot, std::span<const TokenId> tokens, Position reuse_max) const;
  Placement ChooseFree(std::span<const TokenId> tokens, Position reuse_max) const;
  std::optional<SequenceId> ChooseCopyTarget(SequenceId source) const;

  const Position chunk_;  // reuse comes in multiples of it
  const bool rewindable_, reproducible_, can_copy_;
  std::vector<Slot> slots_;
  std::int32_t free_;
  std::uint64_t releases_ = 0;
  KvCells cells_;
};

}  // namespace shoal
