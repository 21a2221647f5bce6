// Hidden states as bytes: f32, f16 or bf16, little-endian, row-major.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal {

enum class WireType : std::uint8_t { kF32 = 0, kF16 = 1, kBf16 = 2 };

std::string_view WireTypeName(WireType type);
// "f32", "f16", "bf16". Errors: kInvalidArgument.
Result<WireType> ParseWireType(std::string_view name);
std::size_t WireTypeBytes(WireType type);

// Appends values.size() encoded values to `out`. f16 and bf16 round to nearest even. A finite value beyond the type's
// range becomes the largest finite one of its sign: a residual stream that overflows must not turn into infinities.
// Infinities stay; a NaN stays one (quiet, its upper mantissa bits kept). f32 is bit-exact.
void EncodeTensor(std::span<const float> values, WireType type, std::vector<std::uint8_t>& out);
// Every bit pattern decodes; f32 bit-exact. Precondition (CHECK): bytes.size() == values.size() * WireTypeBytes(type).
void DecodeTensor(std::span<const std::uint8_t> bytes, WireType type, std::span<float> values);

// The power of two that brings a row within f16's range: every finite value times 2^-exponent is below 2^15. 0 for rows
// that need none. Models have rows with a few huge values (Gemma 3: 98,407 in its first); clamping them costs accuracy.
std::uint8_t F16RowExponent(std::span<const float> row);
inline constexpr std::uint8_t kF16RowExponentMax = 113;  // of the largest finite f32

}  // namespace shoal
