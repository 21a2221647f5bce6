// Who gets a slot and KV cells, and who gives them up. Each change of `slots` is paired here with its ControlOp.
//
// Cells: a running prefill has all it still needs reserved, so it never stops half way; a decode row takes its cell
// when it goes out. What idle slots hold is a cache: it goes, least recently used first, when somebody needs the room.
// When that is not enough the youngest generation gives everything back and waits again; the oldest never does, so
// there is always one that gets on.
#include <algorithm>

#include "base/check.h"
#include "schedule/scheduler_state.h"

namespace shoal {
namespace {

// About what the generation's Open takes in a frame.
std::size_t OpenBytes(const Generation& generation) {
  const SamplingParams& sampling = generation.sampling;
  std::size_t bytes = 256 + generation.tokens.size() * sizeof(TokenId) + sampling.grammar.size();
  bytes += sampling.logit_bias.size() * sizeof(LogitBias);
  bytes += (sampling.preserved_tokens.size() + sampling.grammar_prefill.size()) * sizeof(TokenId);
  for (const GrammarTrigger& trigger : sampling.grammar_triggers) bytes += 16 + trigger.pattern.size();
  return bytes;
}

}  // namespace

void Scheduler::State::Admit() {
  if (admission_blocked) return;
  bool skipped = false;
  for (auto it = waiting.begin(); it != waiting.end() && slots.free_count() > 0 && open_bytes < kOpenBytesMax;) {
    Generation& generation = **it;
    const Placement placement = slots.Choose(generation.tokens, generation.emitted);
    if (WaitsForPrefix(generation, placement)) {
      skipped = true;
      ++it;
      continue;
    }
    if (!Fits(generation, placement)) {
      // Nobody passes it, or a long prompt would never run beside short ones.
      admission_blocked = !skipped;
      return;
    }
    it = waiting.erase(it);
    Start(generation, placement);
  }
}

// True when a running prefill is about to spare the generation much more work than any slot does now.
bool Scheduler::State::WaitsForPrefix(const Generation& generation, const Placement& placement) const {
  if (!slots.can_copy()) return false;
  const Position reuse_max = slots.ReuseMax(generation.tokens, generation.emitted);
  const double needed = slots.PrefillCost(static_cast<Position>(generation.tokens.size())) - placement.saved;
  for (const Generation* other : running) {
    if (!Prefills(*other) && !Recovers(*other)) continue;
    const Position shared = std::min(CommonPrefix(other->tokens, generation.tokens), reuse_max);
    const double saved = slots.PrefillCost(shared) - placement.saved;
    if (saved <= 0 || Sent(*other) >= shared) continue;
    // Not worth a micro-batch for little more than a common first token.
    if (saved >= slots.PrefillCost(options.batch_rows_max) || saved * 4 >= needed) return true;
  }
  return false;
}

bool Scheduler::State::Fits(const Generation& generation, const Placement& placement) const {
  if (!options.kv_shared) return true;
  const KvCells& cells = slots.cells();
  const SequenceId source = placement.copy_from >= 0 ? placement.copy_from : placement.slot;
  std::int64_t needed = static_cast<std::int64_t>(generation.tokens.size()) - placement.kept();
  needed += cells.IdleCells(source, placement.kept());
  if (!running.empty()) {
    // Everyone's next token, and some more, or it would soon be thrown out again; once bitten, more.
    const std::int64_t margin = cells.max() / (generation.preempted ? 8 : 64);
    needed += static_cast<std::int64_t>(running.size()) + 1 + std::min<std::int64_t>(generation.tokens_left, margin);
  }
  return cells.busy() + cells_reserved + needed <= cells.max();
}

void Scheduler::State::Start(Generation& generation, const Placement& placement) {
  const SequenceId slot = placement.slot;
  if (placement.copy_from >= 0) {
    RewindSlot(slot, 0);
    CopySlot(placement.copy_from, slot, placement.reuse());
  } else {
    KeepInSlot(slot, placement.keep);
  }
  CountRecovery(generation, placement);
  slots.Acquire(slot, generation.id);
  generation.slot = slot;
  generation.admission = ++admissions;
  generation.decoding = generation.awaiting = false;
  generation.turn = ++turns;
  if (generation.reused < 0) generation.reused = placement.reuse();
  tokens_reused += placement.reuse();
  running.push_back(&generation);
  cells_reserved += CellsToCome(generation);
  while (!HasRoom(0)) SHOAL_CHECK(EvictOne());
  open_bytes += OpenBytes(generation);
  pending_ops.emplace_back(
      OpenSequence{slot, generation.id, generation.sampling, generation.tokens, generation.emitted});
}

bool Scheduler::State::HasRoom(std::int64_t cells) const {
  return slots.cells().used() + cells_reserved + cells <= slots.cells().max();
}

bool Scheduler::State::EvictOne() {
  const std::optional<SequenceId> slot = slots.LeastRecentlyUsed();
  if (slot) RewindSlot(*slot, 0);
  return slot.has_value();
}

// Back to the queue, at its place by age, with what it has emitted as part of its prompt.
void Scheduler::State::Preempt(Generation& generation) {
  const SequenceId slot = generation.slot;
  LeaveSlot(generation);
  RewindSlot(slot, 0);
  generation.preempted = true;
  const auto older = [&](const Generation* other) { return other->arrival > generation.arrival; };
  waiting.insert(std::find_if(waiting.begin(), waiting.end(), older), &generation);
  ++preemptions;
}

void Scheduler::State::LeaveSlot(Generation& generation) {
  DropDrafts(generation);
  if (!generation.decoding) cells_reserved -= CellsToCome(generation);
  pending_ops.emplace_back(CloseSequence{generation.slot, generation.id});
  slots.Release(generation.slot);
  std::erase(running, &generation);
  generation.slot = -1;
  generation.admission = 0;
  generation.decoding = generation.awaiting = false;
  admission_blocked = false;
}

void Scheduler::State::RewindSlot(SequenceId slot, Position length) {
  if (slots.cells().Length(slot) <= length) return;
  slots.Rewind(slot, length);
  pending_ops.emplace_back(RewindSequence{slot, length});
  ForgetWrites(slot, length);
}

// As RewindSlot, but each stage may keep another length.
void Scheduler::State::KeepInSlot(SequenceId slot, const std::vector<Position>& lengths) {
  const auto [least, most] = std::minmax_element(lengths.begin(), lengths.end());
  if (*least == *most) return RewindSlot(slot, *most);
  for (StageIndex stage = 0; stage < options.stages; ++stage) {
    const Position length = lengths[stage];
    if (slots[slot].held[stage] > length) pending_ops.emplace_back(RewindSequence{slot, length, stage});
  }
  slots.Keep(slot, lengths);
  ForgetWrites(slot, *most);
}

void Scheduler::State::ForgetWrites(SequenceId slot, Position length) {
  for (InFlight& batch : in_flight) {
    std::erase_if(batch.writes, [&](const InFlight::Write& w) { return w.sequence == slot && w.first >= length; });
  }
}

// Of who was running when stages were lost: by what was emitted before, or by what some stages still hold. The last
// row is left out: it gives the next token and would have to run in any case.
void Scheduler::State::CountRecovery(Generation& generation, const Placement& placement) {
  const bool uneven = placement.reuse() < placement.kept();
  if (!generation.resumed && !uneven) return;
  const auto rows = static_cast<Position>(generation.tokens.size()) - 1;
  for (StageIndex stage = 0; stage < options.stages; ++stage) {
    const auto layers = static_cast<std::uint64_t>(slots.Layers(stage));
    recovery.row_layers += layers * static_cast<std::uint64_t>(std::max(rows - placement.keep[stage], 0));
    if (generation.reused < 0) recovery.row_layers_from_nothing += layers * static_cast<std::uint64_t>(rows);
  }
  if (generation.reused < 0) ++recovery.generations;
}

// A copy of more than a stage has is refused there as a whole: where a row does not come, nothing of the copy is.
void Scheduler::State::CopySlot(SequenceId from, SequenceId to, Position length) {
  slots.Copy(from, to, length);
  pending_ops.emplace_back(CopySequence{from, to, length});
  for (InFlight& batch : in_flight) {
    const std::size_t writes = batch.writes.size();
    for (std::size_t i = 0; i < writes; ++i) {
      const InFlight::Write write = batch.writes[i];
      if (write.sequence == from && write.first < length) batch.writes.push_back({to, 0});
    }
  }
}

}  // namespace shoal
