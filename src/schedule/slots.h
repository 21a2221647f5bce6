// The slots (sequences of the KV cache): which tokens each holds on every stage once everything sent so far has run,
// and which one saves a new request the most work.
//
// Within an epoch all stages hold the same of a slot. Only what was taken over from an earlier epoch may be uneven:
// a stage that was replaced holds nothing, one that a loss caught in the middle less than the one before it. Such a
// slot is filled stage by stage (NextGap) until it is even.
//
// Writes no operations and knows no micro-batches: scheduler_state.h pairs every change here with its ControlOp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "schedule/keep_plan.h"
#include "schedule/kv_cells.h"
#include "schedule/scheduler.h"

namespace shoal {

struct Slot {
  std::vector<TokenId> tokens;      // by position; the stage that holds most holds all of them
  std::vector<Position> held;       // [stages]: it holds tokens [0, held)
  std::vector<Position> sent_from;  // [stages]: of [sent_from, held) it has the hidden states it sent
  GenerationId owner = 0;           // 0: free
  std::uint64_t freed_at = 0;       // order of becoming free, for least-recently-used
  Position aligned = 0;             // leading tokens that came in whole prefill chunks (reproducible mode)

  Position shortest() const { return *std::min_element(held.begin(), held.end()); }
  bool even() const { return shortest() == static_cast<Position>(tokens.size()); }
};

// Where a request would run, and how much of it is there already.
struct Placement {
  SequenceId slot = 0;
  SequenceId copy_from = -1;   // >= 0: copy the prefix from this slot
  std::vector<Position> keep;  // [stages]: tokens that each keeps
  double saved = 0;            // work that it spares, in layers run for one row

  Position reuse() const { return *std::min_element(keep.begin(), keep.end()); }  // tokens that need no work at all
  Position kept() const { return *std::max_element(keep.begin(), keep.end()); }   // tokens that some stage keeps
};

// Adjacent stages that lack the same positions [from, to) of a slot; `to` is where another stage begins to lack them
// too, or the end of what any has. Of an even slot: all stages, from its length on without an end.
struct Gap {
  StageIndex first = 0, last = 0;
  Position from = 0, to = 0;
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
  // The free slot that spares the most work, or a copy from any slot where that spares more (or spares the rest of an
  // idle one). Precondition (CHECK): free_count() > 0.
  Placement Choose(std::span<const TokenId> tokens, std::uint32_t emitted) const;
  // What a whole prefill of `tokens` costs, in the unit of Placement::saved.
  double PrefillCost(Position tokens) const { return FillCost(empty_, 0, tokens); }
  std::int32_t Layers(StageIndex stage) const { return empty_[stage].layers; }
  // Where the work on a slot goes on: the least position that some stage lacks, and the first stages that lack it.
  Gap NextGap(SequenceId slot) const;
  // The free slot that became free first among those that hold tokens.
  std::optional<SequenceId> LeastRecentlyUsed() const;

  void Acquire(SequenceId slot, GenerationId owner);
  void Release(SequenceId slot);
  // An empty slot gets what the stages hold of it. Precondition (CHECK): some stage holds all of `tokens`, and there is
  // room for them.
  void Adopt(SequenceId slot, std::vector<TokenId> tokens, std::vector<Position> held, std::vector<Position> sent_from);
  // On all stages. Precondition (CHECK): the slot is even.
  void Append(SequenceId slot, std::span<const TokenId> tokens);
  // `count` positions of the slot's next gap. Precondition (CHECK): it has so many.
  void Fill(SequenceId slot, const Gap& gap, Position count);
  void Rewind(SequenceId slot, Position length);
  void Keep(SequenceId slot, std::span<const Position> lengths);  // [stages], at most what each holds
  // Precondition (CHECK): every stage holds `length` of `from`.
  void Copy(SequenceId from, SequenceId to, Position length);

 private:
  Position Usable(const Slot& slot, std::span<const TokenId> tokens, Position reuse_max) const;
  Placement UseOf(SequenceId slot, std::span<const TokenId> tokens, Position reuse_max) const;
  Placement ChooseFree(std::span<const TokenId> tokens, Position reuse_max) const;
  std::optional<SequenceId> ChooseCopyTarget(SequenceId source) const;

  const Position chunk_;  // reuse comes in multiples of it
  const std::int32_t batch_rows_;
  const bool rewindable_, reproducible_, can_copy_;
  std::vector<StageHolding> empty_;  // [stages]: their layers
  std::vector<Slot> slots_;
  std::int32_t free_;
  std::uint64_t releases_ = 0;
  KvCells cells_;
};

}  // namespace shoal
