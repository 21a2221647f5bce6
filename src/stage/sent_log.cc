// Rows in slabs, in a list by age; sequences refer to them by slot and serial.
#include "stage/sent_log.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace shoal {
namespace {

std::size_t RowBytes(std::uint32_t n_embd, WireType type) { return 1 + n_embd * WireTypeBytes(type); }

}  // namespace

SentLog::SentLog(std::int32_t sequences, std::uint32_t n_embd, WireType type, std::int64_t rows_max)
    : type_(type), row_bytes_(RowBytes(n_embd, type)), rows_max_(rows_max), sequences_(Index(sequences)) {
  SHOAL_CHECK(rows_max >= 1);
}

std::uint64_t SentLog::Bytes(std::int64_t rows, std::uint32_t n_embd, WireType type) {
  const auto slabs = static_cast<std::uint64_t>((rows + kSlabRows - 1) / kSlabRows);
  return slabs * kSlabRows * (RowBytes(n_embd, type) + sizeof(Slot) + sizeof(Entry));
}

std::uint64_t SentLog::bytes() const { return slabs_.size() * kSlabRows * (row_bytes_ + sizeof(Slot) + sizeof(Entry)); }

bool SentLog::Has(const Entry& entry) const { return slots_[Index(entry.slot)].serial == entry.serial; }

std::uint8_t* SentLog::Data(std::int32_t slot) const {
  return slabs_[Index(slot) / kSlabRows].get() + Index(slot) % kSlabRows * row_bytes_;
}

void SentLog::Unlink(std::int32_t slot) {
  Slot& s = slots_[Index(slot)];
  (s.older >= 0 ? slots_[Index(s.older)].newer : oldest_) = s.newer;
  (s.newer >= 0 ? slots_[Index(s.newer)].older : newest_) = s.older;
  s = Slot{};
}

// A free slot, of new memory while there may be more, else that of the oldest row.
std::int32_t SentLog::TakeSlot() {
  if (free_.empty() && static_cast<std::int64_t>(slots_.size()) < rows_max_) {
    slabs_.push_back(std::make_unique<std::uint8_t[]>(kSlabRows * row_bytes_));
    const auto first = static_cast<std::int32_t>(slots_.size());
    const auto end = static_cast<std::int32_t>(std::min(first + kSlabRows, rows_max_));
    slots_.resize(Index(end));
    for (std::int32_t slot = end; slot-- > first;) free_.push_back(slot);
  }
  if (free_.empty()) {
    const std::int32_t slot = oldest_;
    Unlink(slot);
    return slot;
  }
  const std::int32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

void SentLog::Append(SequenceId sequence, std::uint8_t exponent, std::span<const std::uint8_t> values) {
  SHOAL_CHECK(values.size() + 1 == row_bytes_);
  const std::int32_t slot = TakeSlot();
  std::uint8_t* const data = Data(slot);
  data[0] = exponent;
  std::memcpy(data + 1, values.data(), values.size());
  Slot& s = slots_[Index(slot)];
  s.serial = ++serials_;
  s.references = 1;
  s.older = newest_;
  (newest_ >= 0 ? slots_[Index(newest_)].newer : oldest_) = slot;
  newest_ = slot;
  sequences_[Index(sequence)].push_back({slot, s.serial});
}

void SentLog::Release(const Entry& entry) {
  if (!Has(entry) || --slots_[Index(entry.slot)].references > 0) return;
  Unlink(entry.slot);
  free_.push_back(entry.slot);
}

void SentLog::Rewind(SequenceId sequence, Position position) {
  std::vector<Entry>& entries = sequences_[Index(sequence)];
  while (entries.size() > Index(position)) {
    Release(entries.back());
    entries.pop_back();
  }
}

void SentLog::Copy(SequenceId from, SequenceId to, Position position) {
  Rewind(to, 0);
  const std::vector<Entry>& source = sequences_[Index(from)];
  std::vector<Entry>& entries = sequences_[Index(to)];
  entries.assign(source.begin(), source.begin() + std::min<std::ptrdiff_t>(position, std::ssize(source)));
  for (const Entry& entry : entries) {
    if (Has(entry)) ++slots_[Index(entry.slot)].references;
  }
}

Position SentLog::From(SequenceId sequence) const {
  const std::vector<Entry>& entries = sequences_[Index(sequence)];
  const auto first = std::find_if_not(entries.rbegin(), entries.rend(), [&](const Entry& e) { return Has(e); });
  return static_cast<Position>(entries.rend() - first);
}

std::optional<SentLog::Row> SentLog::Read(SequenceId sequence, Position position) const {
  if (position < 0 || position >= Length(sequence)) return std::nullopt;
  const Entry& entry = sequences_[Index(sequence)][Index(position)];
  if (!Has(entry)) return std::nullopt;
  const std::uint8_t* const data = Data(entry.slot);
  return Row{data[0], {data + 1, row_bytes_ - 1}};
}

}  // namespace shoal
