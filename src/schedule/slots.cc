// Slot contents and the choice of a slot; see slots.h. Knows no micro-batches.
#include "schedule/slots.h"

#include <algorithm>

#include "base/check.h"

namespace shoal {

Position CommonPrefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<Position>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

SlotTable::SlotTable(const ScheduleOptions& options)
    : chunk_(options.reproducible ? options.batch_rows_max : 1),
      rewindable_(options.rewindable),
      reproducible_(options.reproducible),
      can_copy_(options.kv_shared && options.rewindable && !options.reproducible),
      slots_(options.slots_max),
      free_(options.slots_max),
      // With cells of its own no slot can ever run out: a request's length is limited to them.
      cells_(options.slots_max,
             static_cast<std::int64_t>(options.kv_tokens_max) * (options.kv_shared ? 1 : options.slots_max)) {}

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

Placement SlotTable::ChooseFree(std::span<const TokenId> tokens, Position reuse_max) const {
  std::optional<SequenceId> best;
  Position best_reuse = 0;
  std::size_t best_loss = 0;
  for (SequenceId i = 0; i < static_cast<SequenceId>(slots_.size()); ++i) {
    const Slot& slot = slots_[i];
    if (slot.owner != 0) continue;
    const Position reuse = Usable(slot, tokens, reuse_max);
    const std::size_t loss = slot.tokens.size() - reuse;
    // Longest prefix; then an empty slot, or one that loses nothing; then the least recently used.
    const bool better =
        !best || reuse > best_reuse ||
        (reuse == best_reuse && ((loss == 0) > (best_loss == 0) ||
                                 ((loss == 0) == (best_loss == 0) && slot.freed_at < slots_[*best].freed_at)));
    if (better) {
      best = i;
      best_reuse = reuse;
      best_loss = loss;
    }
  }
  SHOAL_CHECK(best.has_value());
  return Placement{*best, -1, best_reuse};
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
    const Position usable = Usable(slots_[i], tokens, reuse_max);
    if (usable > most) {
      most = usable;
      source = i;
    }
  }
  if (most == 0) return taken;
  const std::optional<SequenceId> target = ChooseCopyTarget(source);
  if (!target) return taken;
  const bool taking_loses = static_cast<Position>(slots_[taken.slot].tokens.size()) > taken.reuse;
  if (most > taken.reuse || (taking_loses && slots_[*target].tokens.empty())) return Placement{*target, source, most};
  return taken;
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

void SlotTable::Append(SequenceId slot, std::span<const TokenId> tokens) {
  Slot& held = slots_[slot];
  const auto before = static_cast<Position>(held.tokens.size());
  if (held.aligned == before && static_cast<Position>(tokens.size()) == chunk_) held.aligned += chunk_;
  held.tokens.insert(held.tokens.end(), tokens.begin(), tokens.end());
  for (std::size_t i = 0; i < tokens.size(); ++i) cells_.Append(slot);
}

void SlotTable::Rewind(SequenceId slot, Position length) {
  Slot& held = slots_[slot];
  cells_.Rewind(slot, length);
  held.tokens.resize(length);
  held.aligned = std::min(held.aligned, length / chunk_ * chunk_);
}

void SlotTable::Copy(SequenceId from, SequenceId to, Position length) {
  cells_.Copy(from, to, length);
  slots_[to].tokens.assign(slots_[from].tokens.begin(), slots_[from].tokens.begin() + length);
  slots_[to].aligned = 0;
}

}  // namespace shoal
