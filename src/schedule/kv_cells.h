// Counts the KV cells that slots hold, as every stage's cache does: a copied prefix shares its cells.
//
// Pure bookkeeping of numbers; knows no tokens, requests or stages. A cell is in use while any slot refers to it, and
// busy while a slot that is running does; what is in use but not busy can be taken back by eviction.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace shoal {

class KvCells {
 public:
  KvCells(std::int32_t slots, std::int64_t cells_max);

  std::int64_t max() const { return cells_max_; }
  std::int64_t used() const { return used_; }
  std::int64_t busy() const { return busy_; }
  Position Length(SequenceId slot) const { return static_cast<Position>(slots_[slot].cells.size()); }
  // How many of the slot's first `length` cells no running slot refers to. Precondition (CHECK): length <=
  // Length(slot).
  std::int64_t IdleCells(SequenceId slot, Position length) const;

  // Precondition (CHECK): used() < max().
  void Append(SequenceId slot);
  // Precondition (CHECK): 0 <= length <= Length(slot).
  void Rewind(SequenceId slot, Position length);
  // Precondition (CHECK): Length(to) == 0, length <= Length(from).
  void Copy(SequenceId from, SequenceId to, Position length);
  void SetBusy(SequenceId slot, bool busy);

 private:
  struct Cell {
    std::int32_t references = 0, busy_references = 0;
  };
  struct SlotCells {
    std::vector<std::int32_t> cells;
    bool busy = false;
  };
  void Take(SlotCells& slot, std::int32_t cell);

  const std::int64_t cells_max_;
  std::int64_t used_ = 0, busy_ = 0;
  std::vector<Cell> cells_;           // grows to the most cells ever in use
  std::vector<std::int32_t> unused_;  // entries of cells_ without a reference
  std::vector<SlotCells> slots_;
};

}  // namespace shoal
