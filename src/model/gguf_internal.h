// What the reader and the writer of GGUF share. Not for other modules.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "model/gguf.h"

namespace shoal::gguf_internal {

inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint32_t kDimsMax = 4;
inline constexpr std::uint64_t kDefaultAlignment = 32;
inline constexpr std::string_view kAlignmentKey = "general.alignment";

// `value` rounded up to a multiple of `alignment`, a power of two. Empty if that does not fit 64 bits.
inline std::optional<std::uint64_t> AlignUp(std::uint64_t value, std::uint64_t alignment) {
  const std::uint64_t mask = alignment - 1;
  if (value > UINT64_MAX - mask) return std::nullopt;
  return (value + mask) & ~mask;
}

// Bytes of a tensor. Empty if the first dimension is no multiple of the block, or the size does not fit 63 bits.
std::optional<std::uint64_t> TensorBytes(const TensorTypeInfo& type, std::span<const std::uint64_t> dims);

}  // namespace shoal::gguf_internal
