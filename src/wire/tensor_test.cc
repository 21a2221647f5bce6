// The 16-bit formats against a definition in double, over every half and its neighbours; hardware against portable.
#include "wire/tensor.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <vector>

#include "runtime/rng.h"
#include "wire/half.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint32_t Bits(float value) { return std::bit_cast<std::uint32_t>(value); }
float FromBits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

// What a 16-bit float of `exponent_bits` and `mantissa_bits` means, by the definition of IEEE 754.
double Meaning(std::uint16_t half, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (half & 0x7FFF) >> mantissa_bits;
  const int mantissa = half & ((1 << mantissa_bits) - 1);
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

struct Format {
  WireType type;
  int exponent_bits, mantissa_bits;
  std::uint16_t infinity;
};
constexpr Format kFormats[] = {{WireType::kF16, 5, 10, 0x7C00}, {WireType::kBf16, 8, 7, 0x7F80}};

std::vector<std::uint16_t> EncodeHalves(const std::vector<float>& values, WireType type) {
  Bytes bytes;
  EncodeTensor(values, type, bytes);
  std::vector<std::uint16_t> halves(values.size());
  EXPECT_EQ(bytes.size(), 2 * values.size());
  std::memcpy(halves.data(), bytes.data(), bytes.size());
  return halves;
}

std::uint16_t EncodeOne(float value, WireType type) { return EncodeHalves({value}, type)[0]; }

Bytes AllHalves() {
  Bytes bytes;
  for (std::uint32_t half = 0; half < 65536; ++half) {
    bytes.push_back(static_cast<std::uint8_t>(half));
    bytes.push_back(static_cast<std::uint8_t>(half >> 8));
  }
  return bytes;
}

// For every half: itself, the point half way to the next, and both neighbours of that point; then random bits.
std::vector<float> HardFloats(const Format& format) {
  std::vector<float> values;
  for (std::uint32_t half = 0; half < 65536; ++half) {
    const auto magnitude = static_cast<std::uint16_t>(half & 0x7FFF);
    if (magnitude >= format.infinity) continue;
    const double low = Meaning(static_cast<std::uint16_t>(half), format.exponent_bits, format.mantissa_bits);
    const double step = std::ldexp(1.0, std::max(magnitude >> format.mantissa_bits, 1) -
                                            (1 << (format.exponent_bits - 1)) + 1 - format.mantissa_bits);
    const auto middle = static_cast<float>(low + std::copysign(step / 2, low));
    for (const float v : {static_cast<float>(low), middle, std::nextafter(middle, 0.0F),
                          std::nextafter(middle, std::copysign(std::numeric_limits<float>::infinity(), middle))}) {
      values.push_back(v);
    }
  }
  Rng rng(1);
  for (int i = 0; i < 100'000; ++i) values.push_back(FromBits(static_cast<std::uint32_t>(rng.Next())));
  return values;
}

TEST(TensorCodec, DecodesEveryHalfByDefinition) {
  const Bytes bytes = AllHalves();
  for (const Format& format : kFormats) {
    std::vector<float> values(65536);
    DecodeTensor(bytes, format.type, values);
    for (std::uint32_t half = 0; half < 65536; ++half) {
      const double expected = Meaning(static_cast<std::uint16_t>(half), format.exponent_bits, format.mantissa_bits);
      const float value = values[half];
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(value)) << half;
      } else {
        ASSERT_EQ(static_cast<double>(value), expected) << half;
        ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0) << half;
      }
    }
  }
}

TEST(TensorCodec, EveryHalfSurvivesARoundTrip) {
  const Bytes bytes = AllHalves();
  for (const Format& format : kFormats) {
    std::vector<float> values(65536);
    DecodeTensor(bytes, format.type, values);
    const auto halves = EncodeHalves(values, format.type);
    for (std::uint32_t half = 0; half < 65536; ++half) {
      const bool is_nan = (half & 0x7FFF) > format.infinity;
      const std::uint32_t quiet_bit = 1U << (format.mantissa_bits - 1);
      ASSERT_EQ(halves[half], is_nan ? half | quiet_bit : half);
    }
  }
}

TEST(TensorCodec, RoundsToNearestEven) {
  for (const Format& format : kFormats) {
    const std::vector<float> values = HardFloats(format);
    const auto halves = EncodeHalves(values, format.type);
    const auto meaning = [&](int half) {
      return Meaning(static_cast<std::uint16_t>(half), format.exponent_bits, format.mantissa_bits);
    };
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double value = std::abs(static_cast<double>(values[i]));
      const int half = halves[i] & 0x7FFF;
      ASSERT_EQ((halves[i] & 0x8000) != 0, std::signbit(values[i]));
      if (std::isnan(value)) {
        ASSERT_GT(half, format.infinity);
      } else if (std::isinf(value)) {
        ASSERT_EQ(half, format.infinity);
      } else {
        ASSERT_LT(half, format.infinity) << values[i];
        const double error = std::abs(meaning(half) - value);
        const bool is_largest = half == format.infinity - 1;
        // No neighbour on the value's other side is nearer; at equal distance, this one is even.
        const bool is_above = meaning(half) > value;
        if (!is_above && is_largest) continue;  // clamped
        const double other_error = std::abs(meaning(is_above ? half - 1 : half + 1) - value);
        ASSERT_LE(error, other_error) << values[i];
        ASSERT_TRUE(error < other_error || half % 2 == 0) << values[i];
      }
    }
  }
}

TEST(TensorCodec, FiniteOverflowClampsAndInfinityStays) {
  constexpr float kMax = std::numeric_limits<float>::max(), kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(EncodeOne(65504.0F, WireType::kF16), 0x7BFF);
  EXPECT_EQ(EncodeOne(65519.0F, WireType::kF16), 0x7BFF);
  EXPECT_EQ(EncodeOne(65520.0F, WireType::kF16), 0x7BFF);
  EXPECT_EQ(EncodeOne(1e30F, WireType::kF16), 0x7BFF);
  EXPECT_EQ(EncodeOne(-kMax, WireType::kF16), 0xFBFF);
  EXPECT_EQ(EncodeOne(kInf, WireType::kF16), 0x7C00);
  EXPECT_EQ(EncodeOne(-kInf, WireType::kF16), 0xFC00);
  EXPECT_EQ(EncodeOne(kMax, WireType::kBf16), 0x7F7F);
  EXPECT_EQ(EncodeOne(-kMax, WireType::kBf16), 0xFF7F);
  EXPECT_EQ(EncodeOne(-kInf, WireType::kBf16), 0xFF80);
  EXPECT_EQ(EncodeOne(FromBits(0x7F800001), WireType::kF16) & 0x7E00, 0x7E00);
  EXPECT_EQ(EncodeOne(FromBits(0x7F800001), WireType::kBf16), 0x7FC0);
}

TEST(TensorCodec, HardwareAndPortableAgreeToTheBit) {
  if (!half_internal::HasF16Hardware()) GTEST_SKIP() << "no f16 instructions here";
  const Bytes halves = AllHalves();
  std::vector<float> portable(65536), hardware(65536);
  half_internal::F32FromF16Portable(halves.data(), portable.data(), portable.size());
  half_internal::F32FromF16Hardware(halves.data(), hardware.data(), hardware.size());
  for (std::size_t i = 0; i < portable.size(); ++i) ASSERT_EQ(Bits(portable[i]), Bits(hardware[i])) << i;

  std::vector<float> values = HardFloats(kFormats[0]);
  for (std::uint32_t high = 0; high < 65536; ++high) {  // every sign, exponent and upper mantissa; NaNs of all kinds
    for (const std::uint32_t low : {0U, 1U, 0x0FFFU, 0x1000U, 0x1001U, 0xFFFFU})
      values.push_back(FromBits(high << 16 | low));
  }
  Bytes a(2 * values.size()), b(2 * values.size());
  half_internal::F16FromF32Portable(values.data(), a.data(), values.size());
  half_internal::F16FromF32Hardware(values.data(), b.data(), values.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << values[i / 2] << " bits " << Bits(values[i / 2]);
}

TEST(TensorCodec, F32IsBitExact) {
  Rng rng(2);
  std::vector<float> values = {0.0F, -0.0F, FromBits(1), FromBits(0x7F800001), FromBits(0xFFFFFFFF)};
  for (int i = 0; i < 10'000; ++i) values.push_back(FromBits(static_cast<std::uint32_t>(rng.Next())));
  Bytes bytes;
  EncodeTensor(values, WireType::kF32, bytes);
  ASSERT_EQ(bytes.size(), 4 * values.size());
  std::vector<float> back(values.size());
  DecodeTensor(bytes, WireType::kF32, back);
  EXPECT_EQ(std::memcmp(values.data(), back.data(), bytes.size()), 0);
  EXPECT_EQ(Bytes(bytes.begin() + 4, bytes.begin() + 8), (Bytes{0, 0, 0, 0x80}));  // little-endian -0
}

TEST(TensorCodec, AppendsAtAnyOffsetAndLength) {
  for (const WireType type : {WireType::kF32, WireType::kF16, WireType::kBf16}) {
    for (std::size_t n = 0; n < 40; ++n) {
      std::vector<float> values(n);
      for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i) - 7.5F;
      Bytes bytes = {1, 2, 3};
      EncodeTensor(values, type, bytes);
      ASSERT_EQ(bytes.size(), 3 + n * WireTypeBytes(type));
      EXPECT_EQ(Bytes(bytes.begin(), bytes.begin() + 3), (Bytes{1, 2, 3}));
      std::vector<float> back(n);
      DecodeTensor(std::span<const std::uint8_t>(bytes).subspan(3), type, back);
      EXPECT_EQ(back, values);
    }
  }
}

TEST(TensorCodec, Names) {
  for (const WireType type : {WireType::kF32, WireType::kF16, WireType::kBf16}) {
    const auto parsed = ParseWireType(WireTypeName(type));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, type);
  }
  for (const char* bad : {"", "F16", "f8", "f16 "}) {
    ASSERT_FALSE(ParseWireType(bad).ok());
    EXPECT_EQ(ParseWireType(bad).error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(TensorCodecDeathTest, LengthsMustAgree) {
  std::vector<float> values(2);
  EXPECT_DEATH(DecodeTensor(Bytes(5), WireType::kF16, values), "bytes.size");
}

// A generous bound on a micro-batch of 64 rows of 4096 (measured: well under 1 ms with optimisation).
TEST(TensorCodec, IsFast) {
  std::vector<float> values(64 * 4096, 1.5F);
  for (const WireType type : {WireType::kF32, WireType::kF16, WireType::kBf16}) {
    const std::clock_t start = std::clock();  // processor time: other work on the machine does not count
    for (int i = 0; i < 10; ++i) {
      Bytes bytes;
      EncodeTensor(values, type, bytes);
      DecodeTensor(bytes, type, values);
    }
    const auto each_us =
        static_cast<std::int64_t>(1e6 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / 10);
    RecordProperty(std::string(WireTypeName(type)) + "_us", static_cast<int>(each_us));
    EXPECT_LT(each_us, 50'000) << WireTypeName(type);
    EXPECT_EQ(values.front(), 1.5F);
  }
}

}  // namespace
}  // namespace shoal
