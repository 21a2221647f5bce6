// Reference counts of KV cells; see kv_cells.h. Knows no tokens.
#include "schedule/kv_cells.h"

#include "base/check.h"

namespace shoal {

KvCells::KvCells(std::int32_t slots, std::int64_t cells_max) : cells_max_(cells_max), slots_(slots) {}

std::int64_t KvCells::IdleCells(SequenceId slot, Position length) const {
  SHOAL_CHECK(length >= 0 && length <= Length(slot));
  std::int64_t idle = 0;
  for (Position i = 0; i < length; ++i) idle += cells_[slots_[slot].cells[i]].busy_references == 0;
  return idle;
}

void KvCells::Take(SlotCells& slot, std::int32_t cell) {
  if (cells_[cell].references++ == 0) ++used_;
  if (slot.busy && cells_[cell].busy_references++ == 0) ++busy_;
  slot.cells.push_back(cell);
}

void KvCells::Append(SequenceId slot) {
  SHOAL_CHECK(used_ < cells_max_);
  if (unused_.empty()) {
    unused_.push_back(static_cast<std::int32_t>(cells_.size()));
    cells_.emplace_back();
  }
  const std::int32_t cell = unused_.back();
  unused_.pop_back();
  Take(slots_[slot], cell);
}

void KvCells::Rewind(SequenceId slot, Position length) {
  SHOAL_CHECK(length >= 0 && length <= Length(slot));
  SlotCells& held = slots_[slot];
  while (Length(slot) > length) {
    const std::int32_t cell = held.cells.back();
    held.cells.pop_back();
    if (held.busy && --cells_[cell].busy_references == 0) --busy_;
    if (--cells_[cell].references == 0) {
      --used_;
      unused_.push_back(cell);
    }
  }
}

void KvCells::Copy(SequenceId from, SequenceId to, Position length) {
  SHOAL_CHECK(from != to && Length(to) == 0 && length <= Length(from));
  for (Position i = 0; i < length; ++i) Take(slots_[to], slots_[from].cells[i]);
}

void KvCells::SetBusy(SequenceId slot, bool busy) {
  SlotCells& held = slots_[slot];
  if (held.busy == busy) return;
  held.busy = busy;
  for (const std::int32_t cell : held.cells) {
    if (busy) {
      if (cells_[cell].busy_references++ == 0) ++busy_;
    } else {
      if (--cells_[cell].busy_references == 0) --busy_;
    }
  }
}

}  // namespace shoal
