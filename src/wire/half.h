// Rows of f32 to and from f16 (IEEE 754 binary16) and bf16, as tensor.cc uses them and as its test compares them.
//
// All round to nearest even, keep infinities, make NaNs quiet and clamp finite overflow (tensor.h). `half` and `values`
// have the same length; the 16-bit values may be unaligned bytes, so they are passed as such.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::half_internal {

void F16FromF32Portable(const float* values, std::uint8_t* half, std::size_t n);
void F32FromF16Portable(const std::uint8_t* half, float* values, std::size_t n);
void Bf16FromF32(const float* values, std::uint8_t* half, std::size_t n);
void F32FromBf16(const std::uint8_t* half, float* values, std::size_t n);

// By the processor's conversion instructions (F16C, ARMv8). Precondition (CHECK): HasF16Hardware().
bool HasF16Hardware();
void F16FromF32Hardware(const float* values, std::uint8_t* half, std::size_t n);
void F32FromF16Hardware(const std::uint8_t* half, float* values, std::size_t n);

}  // namespace shoal::half_internal
