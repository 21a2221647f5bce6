// Conversions between f32 and the two 16-bit formats, branch-free so that compilers turn the loops into SIMD, and by
// the processor's own instructions where it has them. Both give the same bits.
#include "wire/half.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define SHOAL_HALF_F16C 1
#elif defined(__aarch64__)
#include <arm_neon.h>
#define SHOAL_HALF_NEON 1
#endif

namespace shoal::half_internal {
namespace {

constexpr std::uint32_t kF32Infinity = 0x7F800000U;
constexpr float kF16Max = 65504.0F;

std::uint16_t F16FromF32(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  // Normal: the exponent's bias falls from 127 to 15; adding half a unit less one, and one if odd, rounds to even.
  const std::uint32_t normal = ((magnitude + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13) - (112U << 10);
  // Subnormal, below 2^-14: in [0.5, 1) floats are 2^-24 apart, as f16 subnormals are, so this addition rounds for us.
  const float shifted = std::bit_cast<float>(std::min(magnitude, 0x38800000U)) + 0.5F;
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U;
  const std::uint32_t nan = 0x7E00U | ((magnitude >> 13) & 0x3FFU);
  std::uint32_t half = magnitude < 0x38800000U ? subnormal : normal;
  half = magnitude >= 0x477FE000U ? 0x7BFFU : half;  // from the largest finite f16 on
  half = magnitude == kF32Infinity ? 0x7C00U : half;
  half = magnitude > kF32Infinity ? nan : half;
  return static_cast<std::uint16_t>(half | sign);
}

float F32FromF16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7FFFU;
  const std::uint32_t shifted = magnitude << 13;
  const std::uint32_t normal = shifted + (112U << 23);
  // Subnormal: put the mantissa behind 2^-14's leading one, take that one away again.
  const float subnormal = std::bit_cast<float>((magnitude < 0x400U ? shifted : 0U) + 0x38800000U) - 0x1p-14F;
  const std::uint32_t special = shifted | kF32Infinity | (magnitude > 0x7C00U ? 0x00400000U : 0U);
  std::uint32_t bits = magnitude < 0x400U ? std::bit_cast<std::uint32_t>(subnormal) : normal;
  bits = magnitude >= 0x7C00U ? special : bits;
  return std::bit_cast<float>(bits | sign);
}

std::uint16_t Bf16FromF32One(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t half = (magnitude + 0x7FFFU + ((magnitude >> 16) & 1U)) >> 16;
  half = std::min(half, 0x7F7FU);  // finite stays finite
  half = magnitude == kF32Infinity ? 0x7F80U : half;
  half = magnitude > kF32Infinity ? (magnitude >> 16) | 0x40U : half;
  return static_cast<std::uint16_t>(half | sign);
}

}  // namespace

void F16FromF32Portable(const float* values, std::uint8_t* half, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint16_t h = F16FromF32(values[i]);
    std::memcpy(half + 2 * i, &h, sizeof h);
  }
}

void F32FromF16Portable(const std::uint8_t* half, float* values, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t h = 0;
    std::memcpy(&h, half + 2 * i, sizeof h);
    values[i] = F32FromF16(h);
  }
}

void Bf16FromF32(const float* values, std::uint8_t* half, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint16_t h = Bf16FromF32One(values[i]);
    std::memcpy(half + 2 * i, &h, sizeof h);
  }
}

void F32FromBf16(const std::uint8_t* half, float* values, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t h = 0;
    std::memcpy(&h, half + 2 * i, sizeof h);
    const std::uint32_t quiet = (h & 0x7FFFU) > 0x7F80U ? 0x00400000U : 0U;
    values[i] = std::bit_cast<float>((static_cast<std::uint32_t>(h) << 16) | quiet);
  }
}

#if defined(SHOAL_HALF_F16C)

bool HasF16Hardware() {
  static const bool has = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0 && __builtin_cpu_supports("avx") != 0;
  }();
  return has;
}

__attribute__((target("avx,f16c"))) static std::size_t EncodeBlocks(const float* values, std::uint8_t* half,
                                                                    std::size_t n) {
  const __m256 sign_bit = _mm256_set1_ps(-0.0F);
  const __m256 infinity = _mm256_set1_ps(std::bit_cast<float>(kF32Infinity));
  const __m256 max = _mm256_set1_ps(kF16Max), min = _mm256_set1_ps(-kF16Max);
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(values + i);
    // min and max return their second operand when one is NaN, so NaNs pass; infinities are put back.
    const __m256 clamped = _mm256_max_ps(min, _mm256_min_ps(max, v));
    const __m256 is_infinite = _mm256_cmp_ps(_mm256_andnot_ps(sign_bit, v), infinity, _CMP_EQ_OQ);
    const __m128i h = _mm256_cvtps_ph(_mm256_blendv_ps(clamped, v, is_infinite), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(half + 2 * i), h);
  }
  return i;
}

__attribute__((target("avx,f16c"))) static std::size_t DecodeBlocks(const std::uint8_t* half, float* values,
                                                                    std::size_t n) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(half + 2 * i));
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(h));
  }
  return i;
}

#elif defined(SHOAL_HALF_NEON)

bool HasF16Hardware() { return true; }

static std::size_t EncodeBlocks(const float* values, std::uint8_t* half, std::size_t n) {
  const float32x4_t infinity = vdupq_n_f32(std::bit_cast<float>(kF32Infinity));
  const float32x4_t max = vdupq_n_f32(kF16Max), min = vdupq_n_f32(-kF16Max);
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float32x4_t v = vld1q_f32(values + i);
    const float32x4_t clamped = vmaxq_f32(min, vminq_f32(max, v));  // NaNs pass
    const uint32x4_t is_infinite = vceqq_f32(vabsq_f32(v), infinity);
    const float16x4_t h = vcvt_f16_f32(vbslq_f32(is_infinite, v, clamped));
    vst1_u8(half + 2 * i, vreinterpret_u8_f16(h));
  }
  return i;
}

static std::size_t DecodeBlocks(const std::uint8_t* half, float* values, std::size_t n) {
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(values + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(half + 2 * i))));
  return i;
}

#else

bool HasF16Hardware() { return false; }

static std::size_t EncodeBlocks(const float*, std::uint8_t*, std::size_t) { return 0; }
static std::size_t DecodeBlocks(const std::uint8_t*, float*, std::size_t) { return 0; }

#endif

void F16FromF32Hardware(const float* values, std::uint8_t* half, std::size_t n) {
  SHOAL_CHECK(HasF16Hardware());
  const std::size_t done = EncodeBlocks(values, half, n);
  F16FromF32Portable(values + done, half + 2 * done, n - done);
}

void F32FromF16Hardware(const std::uint8_t* half, float* values, std::size_t n) {
  SHOAL_CHECK(HasF16Hardware());
  const std::size_t done = DecodeBlocks(half, values, n);
  F32FromF16Portable(half + 2 * done, values + done, n - done);
}

}  // namespace shoal::half_internal
