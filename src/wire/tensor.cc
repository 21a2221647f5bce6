// Chooses the conversion for a wire type; half.cc does the arithmetic.
#include "wire/tensor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "base/check.h"
#include "wire/half.h"

namespace shoal {

using namespace half_internal;

static_assert(std::endian::native == std::endian::little, "floats are copied as they lie in memory");

std::string_view WireTypeName(WireType type) {
  switch (type) {
    case WireType::kF32: return "f32";
    case WireType::kF16: return "f16";
    case WireType::kBf16: return "bf16";
  }
  return "unknown";
}

Result<WireType> ParseWireType(std::string_view name) {
  for (const WireType type : {WireType::kF32, WireType::kF16, WireType::kBf16}) {
    if (name == WireTypeName(type)) return type;
  }
  return Error{ErrorCode::kInvalidArgument, std::string(name) + " is not a wire type; use f32, f16 or bf16"};
}

std::size_t WireTypeBytes(WireType type) { return type == WireType::kF32 ? 4 : 2; }

void EncodeTensor(std::span<const float> values, WireType type, std::vector<std::uint8_t>& out) {
  if (values.empty()) return;
  const std::size_t at = out.size();
  out.resize(at + values.size() * WireTypeBytes(type));
  std::uint8_t* const bytes = out.data() + at;
  switch (type) {
    case WireType::kF32: std::memcpy(bytes, values.data(), values.size_bytes()); return;
    case WireType::kF16:
      (HasF16Hardware() ? F16FromF32Hardware : F16FromF32Portable)(values.data(), bytes, values.size());
      return;
    case WireType::kBf16: Bf16FromF32(values.data(), bytes, values.size()); return;
  }
}

void DecodeTensor(std::span<const std::uint8_t> bytes, WireType type, std::span<float> values) {
  SHOAL_CHECK(bytes.size() == values.size() * WireTypeBytes(type));
  if (values.empty()) return;
  switch (type) {
    case WireType::kF32: std::memcpy(values.data(), bytes.data(), bytes.size()); return;
    case WireType::kF16:
      (HasF16Hardware() ? F32FromF16Hardware : F32FromF16Portable)(bytes.data(), values.data(), values.size());
      return;
    case WireType::kBf16: F32FromBf16(bytes.data(), values.data(), values.size()); return;
  }
}

std::uint8_t F16RowExponent(std::span<const float> row) {
  constexpr int kSafeExponent = 14;  // values of this binary exponent are below 2^15
  // Compared as integers: of finite floats without their sign the larger has the larger bits, and the loop vectorizes.
  constexpr std::uint32_t kInfinity = 0x7F800000;
  std::uint32_t largest = 0;
  for (const float value : row) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU;
    largest = std::max(largest, bits < kInfinity ? bits : 0U);
  }
  const int exponent = static_cast<int>(largest >> 23) - 127;
  return static_cast<std::uint8_t>(std::max(0, exponent - kSafeExponent));
}

}  // namespace shoal
