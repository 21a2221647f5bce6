// The hidden states that a stage sent for what its KV cache holds, as they went over the wire: what a stage behind it
// that was lost is filled again with. Knows no links and no engine.
//
// Rows are kept for [sequence][position]; a copied prefix shares its rows, as it shares its KV cells. When the limit is
// reached the row that was written first goes, so a sequence may lack its beginning, never its middle. Memory is taken
// in slabs as rows come and kept. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "wire/tensor.h"

namespace shoal {

class SentLog {
 public:
  static constexpr std::int64_t kSlabRows = 64;  // memory is taken for so many at a time

  // Keeps at most `rows_max` rows. Precondition (CHECK): rows_max >= 1.
  SentLog(std::int32_t sequences, std::uint32_t n_embd, WireType type, std::int64_t rows_max);

  // What `rows` rows take. The whole of it may be spent by a log with that rows_max.
  static std::uint64_t Bytes(std::int64_t rows, std::uint32_t n_embd, WireType type);

  WireType type() const { return type_; }
  std::int64_t rows_max() const { return rows_max_; }
  std::size_t row_bytes() const { return row_bytes_ - (type_ == WireType::kF16 ? 0 : 1); }  // of one, as encoded
  std::uint64_t bytes() const;                                                              // taken so far

  // The row of `sequence` at the position after its last. Both exactly as encoded: `exponent` is 0 where the type has
  // none.
  void Append(SequenceId sequence, std::uint8_t exponent, std::span<const std::uint8_t> values);
  // Forgets positions >= `position`.
  void Rewind(SequenceId sequence, Position position);
  // Makes [0, position) of `to` the same as of `from`, as far as that goes.
  void Copy(SequenceId from, SequenceId to, Position position);

  Position Length(SequenceId sequence) const { return static_cast<Position>(sequences_[Index(sequence)].size()); }
  // The first position from which on every row up to Length is here; Length: none.
  Position From(SequenceId sequence) const;
  struct Row {
    std::uint8_t exponent = 0;
    std::span<const std::uint8_t> values;  // until the next Append
  };
  // Empty when it is not kept.
  std::optional<Row> Read(SequenceId sequence, Position position) const;

 private:
  struct Slot {
    std::uint64_t serial = 0;     // of what is in it; 0: free
    std::int32_t references = 0;  // sequences that have it
    std::int32_t older = -1, newer = -1;
  };
  struct Entry {  // gone when the slot has another serial by now
    std::int32_t slot = -1;
    std::uint64_t serial = 0;
  };
  static std::size_t Index(SequenceId sequence) { return static_cast<std::size_t>(sequence); }
  bool Has(const Entry& entry) const;
  std::int32_t TakeSlot();
  void Unlink(std::int32_t slot);
  void Release(const Entry& entry);
  std::uint8_t* Data(std::int32_t slot) const;

  const WireType type_;
  const std::size_t row_bytes_;  // exponent and values
  const std::int64_t rows_max_;
  std::vector<std::unique_ptr<std::uint8_t[]>> slabs_;
  std::vector<Slot> slots_;
  std::vector<std::int32_t> free_;
  std::int32_t oldest_ = -1, newest_ = -1;  // in order of writing
  std::uint64_t serials_ = 0;
  std::vector<std::vector<Entry>> sequences_;  // [sequence][position]
};

}  // namespace shoal
