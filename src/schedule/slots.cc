// Slot contents and the choice of a slot; see slots.h. Knows no micro-batches.
#include "schedule/slots.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace shoal {

Position CommonPrefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<Position>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

SlotTable::SlotTable(const ScheduleOptions& options)
    : chunk_(options.reproducible ? options.batch_rows_max : 1),
      batch_rows_(options.batch_rows_max),
      rewindable_(options.rewindable),
      reproducible_(options.reproducible),
      can_copy_(options.kv_shared && options.rewindable && !options.reproducible),
      empty_(options.stages),
      slots_(options.slots_max),
      free_(options.slots_max),
      // With cells of its own no slot can ever run out: a request's length is limited to them.
      cells_(options.slots_max,
             static_cast<std::int64_t>(options.kv_tokens_max) * (options.kv_shared ? 1 : options.slots_max)) {
  const bool told = options.stage_layers.size() == empty_.size();
  for (std::size_t i = 0; i < empty_.size(); ++i) empty_[i].layers = told ? options.stage_layers[i] : 1;
  for (Slot& slot : slots_) {
    slot.held.assign(empty_.size(), 0);
    slot.sent_from.assign(empty_.size(), 0);
  }
}

Position SlotTable::ReuseMax(std::span<const TokenId> tokens, std::uint32_t emitted) const {
  const auto size = static_cast<Position>(tokens.size());
  // Reproducible: sampled tokens went through one at a time, and have to again.
  const Position limit = reproducible_ ? std::min<Position>(size - 1, size - static_cast<Position>(emitted)) : size - 1;
  return limit / chunk_ * chunk_;
}

Position SlotTable::Usable(const Slot& slot, std::span<const TokenId> tokens, Position reuse_max) const {
  const Position common = std::min(CommonPrefix(slot.tokens, tokens), reuse_max);
  if (!rewindable_ && common < static_cast<Position>(slot.tokens.size())) return 0;
  if (!reproducible_) return common;
  const Position usable = std::min(common, slot.aligned) / chunk_ * chunk_;
  return rewindable_ || usable == static_cast<Position>(slot.tokens.size()) ? usable : 0;
}

// An even slot serves a prefix. An uneven one may serve each stage another: the last one up to the last token, which
// has to run for its logits, the others all of them.
Placement SlotTable::UseOf(SequenceId slot, std::span<const TokenId> tokens, Position reuse_max) const {
  const Slot& s = slots_[slot];
  const auto rows = static_cast<Position>(tokens.size());
  if (s.even()) {
    const Position usable = Usable(s, tokens, reuse_max);
    return {slot, -1, std::vector<Position>(empty_.size(), usable), PrefillCost(usable)};
  }
  const Position common = CommonPrefix(s.tokens, tokens);
  std::vector<StageHolding> stages = empty_;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    stages[i].length = std::min({s.held[i], common, i + 1 < stages.size() ? rows : rows - 1});
    stages[i].sent_from = std::min(s.sent_from[i], stages[i].length);
  }
  KeepPlan plan = PlanKeep(stages, rows, batch_rows_);
  return {slot, -1, std::move(plan.keep), PrefillCost(rows) - plan.cost};
}

Placement SlotTable::ChooseFree(std::span<const TokenId> tokens, Position reuse_max) const {
  std::optional<Placement> best;
  bool best_loses = false;
  for (SequenceId i = 0; i < static_cast<SequenceId>(slots_.size()); ++i) {
    const Slot& slot = slots_[i];
    if (slot.owner != 0) continue;
    Placement use = UseOf(i, tokens, reuse_max);
    const bool loses = static_cast<Position>(slot.tokens.size()) > use.kept();
    // Most work spared; then an empty slot, or one that loses nothing; then the least recently used.
    const bool better = !best || use.saved > best->saved ||
                        (use.saved == best->saved &&
                         (loses < best_loses || (loses == best_loses && slot.freed_at < slots_[best->slot].freed_at)));
    if (!better) continue;
    best = std::move(use);
    best_loses = loses;
  }
  SHOAL_CHECK(best.has_value());
  return *std::move(best);
}

std::optional<SequenceId> SlotTable::ChooseCopyTarget(SequenceId source) const {
  std::optional<SequenceId> best;
  for (SequenceId i = 0; i < static_cast<SequenceId>(slots_.size()); ++i) {
    if (slots_[i].owner != 0 || i == source) continue;
    if (!best) {
      best = i;
      continue;
    }
    const bool empty = slots_[i].tokens.empty(), best_empty = slots_[*best].tokens.empty();
    if (empty > best_empty || (empty == best_empty && slots_[i].freed_at < slots_[*best].freed_at)) best = i;
  }
  return best;
}

Placement SlotTable::Choose(std::span<const TokenId> tokens, std::uint32_t emitted) const {
  SHOAL_CHECK(free_ > 0);
  const Position reuse_max = ReuseMax(tokens, emitted);
  const Placement taken = ChooseFree(tokens, reuse_max);
  if (!can_copy_) return taken;
  SequenceId source = 0;
  Position most = 0;
  for (SequenceId i = 0; i < static_cast<SequenceId>(slots_.size()); ++i) {
    // An uneven one may yet be rewound on one stage and not on another: cells can be counted as shared only if all do.
    const Position usable = slots_[i].even() ? Usable(slots_[i], tokens, reuse_max) : 0;
    if (usable > most) {
      most = usable;
      source = i;
    }
  }
  if (most == 0) return taken;
  const std::optional<SequenceId> target = ChooseCopyTarget(source);
  if (!target) return taken;
  const double saved = PrefillCost(most);
  const bool taking_loses = static_cast<Position>(slots_[taken.slot].tokens.size()) > taken.kept();
  const bool spares = taking_loses && slots_[*target].tokens.empty() && saved == taken.saved;
  if (saved <= taken.saved && !spares) return taken;
  return Placement{*target, source, std::vector<Position>(empty_.size(), most), saved};
}

std::optional<SequenceId> SlotTable::LeastRecentlyUsed() const {
  std::optional<SequenceId> best;
  for (SequenceId i = 0; i < static_cast<SequenceId>(slots_.size()); ++i) {
    if (slots_[i].owner != 0 || slots_[i].tokens.empty()) continue;
    if (!best || slots_[i].freed_at < slots_[*best].freed_at) best = i;
  }
  return best;
}

void SlotTable::Acquire(SequenceId slot, GenerationId owner) {
  SHOAL_CHECK(owner != 0 && slots_[slot].owner == 0);
  slots_[slot].owner = owner;
  --free_;
  cells_.SetBusy(slot, true);
}

void SlotTable::Release(SequenceId slot) {
  SHOAL_CHECK(slots_[slot].owner != 0);
  slots_[slot].owner = 0;
  slots_[slot].freed_at = ++releases_;
  ++free_;
  cells_.SetBusy(slot, false);
}

Gap SlotTable::NextGap(SequenceId slot) const {
  const std::vector<Position>& held = slots_[slot].held;
  Gap gap;
  gap.from = slots_[slot].shortest();
  gap.to = std::numeric_limits<Position>::max();
  for (const Position length : held) {
    if (length > gap.from) gap.to = std::min(gap.to, length);
  }
  const auto lacks = [&](Position length) { return length == gap.from; };
  const auto first = std::find_if(held.begin(), held.end(), lacks);
  const auto end = std::find_if_not(first, held.end(), lacks);
  gap.first = static_cast<StageIndex>(first - held.begin());
  gap.last = static_cast<StageIndex>(end - held.begin()) - 1;
  return gap;
}

void SlotTable::Adopt(SequenceId slot, std::vector<TokenId> tokens, std::vector<Position> held,
                      std::vector<Position> sent_from) {
  Slot& s = slots_[slot];
  SHOAL_CHECK(s.tokens.empty() && s.owner == 0 && held.size() == empty_.size() && sent_from.size() == held.size());
  SHOAL_CHECK(*std::max_element(held.begin(), held.end()) == static_cast<Position>(tokens.size()));
  for (std::size_t i = 0; i < tokens.size(); ++i) cells_.Append(slot);
  s.tokens = std::move(tokens);
  s.held = std::move(held);
  s.sent_from = std::move(sent_from);
  s.aligned = 0;
}

void SlotTable::Append(SequenceId slot, std::span<const TokenId> tokens) {
  Slot& s = slots_[slot];
  SHOAL_CHECK(s.even());
  const auto before = static_cast<Position>(s.tokens.size());
  if (s.aligned == before && static_cast<Position>(tokens.size()) == chunk_) s.aligned += chunk_;
  s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
  for (Position& held : s.held) held += static_cast<Position>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) cells_.Append(slot);
}

void SlotTable::Fill(SequenceId slot, const Gap& gap, Position count) {
  Slot& s = slots_[slot];
  SHOAL_CHECK(gap.from + count <= gap.to && gap.to <= static_cast<Position>(s.tokens.size()));
  for (StageIndex i = gap.first; i <= gap.last; ++i) {
    SHOAL_CHECK(s.held[i] == gap.from);
    s.held[i] += count;
  }
}

void SlotTable::Rewind(SequenceId slot, Position length) {
  std::vector<Position> lengths = slots_[slot].held;
  for (Position& held : lengths) held = std::min(held, length);
  Keep(slot, lengths);
}

void SlotTable::Keep(SequenceId slot, std::span<const Position> lengths) {
  Slot& s = slots_[slot];
  Position longest = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    SHOAL_CHECK(lengths[i] <= s.held[i]);
    s.held[i] = lengths[i];
    s.sent_from[i] = std::min(s.sent_from[i], lengths[i]);
    longest = std::max(longest, lengths[i]);
  }
  cells_.Rewind(slot, longest);
  s.tokens.resize(longest);
  s.aligned = std::min(s.aligned, longest / chunk_ * chunk_);
}

void SlotTable::Copy(SequenceId from, SequenceId to, Position length) {
  SHOAL_CHECK(length <= slots_[from].shortest());
  cells_.Copy(from, to, length);
  Slot& s = slots_[to];
  s.tokens.assign(slots_[from].tokens.begin(), slots_[from].tokens.begin() + length);
  s.held.assign(empty_.size(), length);
  for (std::size_t i = 0; i < empty_.size(); ++i) s.sent_from[i] = std::min(slots_[from].sent_from[i], length);
  s.aligned = 0;
}

}  // namespace shoal
