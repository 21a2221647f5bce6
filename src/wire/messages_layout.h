// Numbers of the byte formats that encoder and decoder share. docs/wire-format.md has the whole layout.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "wire/tensor.h"

namespace shoal::wire_layout {

inline constexpr std::size_t kBatchHeadBytes = 28;  // before a Batch's timings
inline constexpr std::size_t kRowBytes = 20;        // its token included
inline constexpr std::size_t kTimingBytes = 12;
inline constexpr std::size_t kControlOpBytesMin = 13;  // Rewind
inline constexpr std::size_t kRowResultBytesMin = 26;
inline constexpr std::size_t kTokenLogprobBytes = 8;
inline constexpr std::size_t kLogitBiasBytes = 8;
inline constexpr std::size_t kTriggerBytesMin = 8;
inline constexpr std::size_t kHeldSequenceBytesMin = 12;

inline constexpr std::uint32_t kOutputBit = 1U << 31;  // in a row's sequence field
inline constexpr std::uint8_t kIgnoreEndBit = 1, kGrammarLazyBit = 2;

// Hidden states that come with an exponent for each row, before the values.
inline constexpr bool HasRowExponents(std::uint32_t n_embd, WireType type) {
  return n_embd > 0 && type == WireType::kF16;
}

enum class OpKind : std::uint8_t { kOpen = 1, kRewind = 2, kCopy = 3, kClose = 4 };

// A code's number on the wire is its place here, from 1: independent of the enum's order. Only append.
inline constexpr std::array kErrorCodes = {ErrorCode::kInvalidArgument, ErrorCode::kNotFound,    ErrorCode::kCorrupt,
                                           ErrorCode::kUnsupported,     ErrorCode::kOutOfMemory, ErrorCode::kKvFull,
                                           ErrorCode::kContextFull,     ErrorCode::kOverloaded,  ErrorCode::kCancelled,
                                           ErrorCode::kStale,           ErrorCode::kUnavailable, ErrorCode::kIo,
                                           ErrorCode::kInternal};

}  // namespace shoal::wire_layout
