// Little-endian fields in and out of byte strings, with every read checked. Knows no message.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/check.h"

namespace shoal {

static_assert(std::endian::native == std::endian::little, "fields and arrays are copied as they lie in memory");

template <typename T>
concept WireField = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

// Appends to a byte vector; the caller reserves.
class ByteWriter {
 public:
  explicit ByteWriter(std::vector<std::uint8_t>& out) : out_(out) {}

  template <WireField T>
  void Put(T value) {
    Append(&value, sizeof value);
  }
  template <WireField T>
  void PutArray(std::span<const T> values) {
    Append(values.data(), values.size_bytes());
  }
  void PutText(std::string_view text) { Append(text.data(), text.size()); }

 private:
  void Append(const void* data, std::size_t bytes) {
    const auto* first = static_cast<const std::uint8_t*>(data);
    out_.insert(out_.end(), first, first + bytes);
  }

  std::vector<std::uint8_t>& out_;
};

// Reads from the front of a byte string. The first read past the end marks the reader failed; from then on every read
// gives zero or nothing, so a decoder may check once, at its end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::uint8_t> bytes) : rest_(bytes) {}

  bool failed() const { return failed_; }
  std::size_t remaining() const { return rest_.size(); }
  // Nothing is left and nothing was missing.
  bool AtEnd() const { return !failed_ && rest_.empty(); }
  void Fail() {
    failed_ = true;
    rest_ = {};
  }

  template <WireField T>
  T Get() {
    T value{};
    const auto bytes = Take(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  // A u32 count of items that take at least `item_bytes_min` bytes each: 0 and failed when over `count_max` or when
  // that many cannot follow. So the caller may reserve for it.
  std::uint32_t GetCount(std::uint32_t count_max, std::size_t item_bytes_min) {
    return CheckCount(Get<std::uint32_t>(), count_max, item_bytes_min);
  }
  std::uint32_t CheckCount(std::uint32_t count, std::uint32_t count_max, std::size_t item_bytes_min) {
    if (count <= count_max && count * static_cast<std::uint64_t>(item_bytes_min) <= rest_.size()) return count;
    Fail();
    return 0;
  }

  // `count` values; empty when they are not there.
  template <WireField T>
  std::vector<T> GetArray(std::uint32_t count) {
    const auto bytes = Take(count * static_cast<std::uint64_t>(sizeof(T)));
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  std::string GetText(std::uint32_t count) {
    const auto bytes = Take(count);
    return std::string(bytes.begin(), bytes.end());
  }

  std::span<const std::uint8_t> Take(std::uint64_t count) {
    if (failed_ || count > rest_.size()) {
      Fail();
      return {};
    }
    const auto taken = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(static_cast<std::size_t>(count));
    return taken;
  }

 private:
  std::span<const std::uint8_t> rest_;
  bool failed_ = false;
};

}  // namespace shoal
