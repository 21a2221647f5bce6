// What a stage tells the nodes that keep a copy of it: its KV cache, row by row, so that a copy goes on where the stage
// was. Bytes in and out, no I/O.
//
// A copy stream: CopyHello, then CopyRows to the end. Nothing comes back. What the copy held before the hello is gone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "wire/frame.h"
#include "wire/tensor.h"

namespace shoal {

inline constexpr std::uint32_t kCopyModelBytesMax = 256;
inline constexpr std::uint32_t kCopyRowsMax = 1024;           // of one message
inline constexpr std::size_t kCopyFrameBytesMax = 16U << 20;  // of a stream of these

// Which copy: as it is told among a member's facts.
struct CopyHello {
  std::string model;
  std::uint64_t fingerprint = 0;
  std::int32_t first = 0, last = 0;  // layers [first, last)
  std::uint64_t options_hash = 0;
  bool operator==(const CopyHello&) const = default;
};

// A sequence, from `from` on: what is held behind that is forgotten first.
struct CopyRows {
  SequenceId sequence = 0;
  Position from = 0;
  std::vector<TokenId> tokens;      // of the rows; none: only that
  std::vector<std::uint8_t> cache;  // Engine::ReadRows
  // The hidden states that were sent for these rows: [rows] exponents where the type has them, then the rows. Empty:
  // not kept.
  WireType sent_type = WireType::kF16;
  std::vector<std::uint8_t> sent;
  bool operator==(const CopyRows&) const = default;
};

// Precondition (CHECK): within the limits above.
std::vector<std::uint8_t> EncodeCopyHello(const CopyHello& hello);
std::vector<std::uint8_t> EncodeCopyRows(const CopyRows& rows);
// Of a whole frame of that type. Errors: kCorrupt (also another type), kUnsupported. Allocate at most frame.size().
Result<CopyHello> DecodeCopyHello(std::span<const std::uint8_t> frame);
Result<CopyRows> DecodeCopyRows(std::span<const std::uint8_t> frame);

}  // namespace shoal
