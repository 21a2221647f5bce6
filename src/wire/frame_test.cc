// The header's every field, and CRC-32C against published values and between its two ways.
#include "wire/frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "runtime/rng.h"
#include "wire/crc32c.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes Sealed(FrameType type = FrameType::kResult, Epoch epoch = 0x0102030405060708, Bytes payload = {9, 8, 7}) {
  Bytes frame(kFrameHeaderBytes + payload.size());
  std::copy(payload.begin(), payload.end(), frame.begin() + kFrameHeaderBytes);
  SealFrame(type, epoch, frame);
  return frame;
}

void ExpectRefused(const Bytes& frame, ErrorCode code, const std::string& what) {
  const auto header = ParseFrame(frame);
  ASSERT_FALSE(header.ok()) << what;
  EXPECT_EQ(header.error().code, code) << what;
  EXPECT_NE(header.error().message.find(what), std::string::npos) << header.error().message;
}

TEST(Frame, BytesAreAsDocumented) {
  const Bytes frame = Sealed();
  const std::uint32_t crc = Crc32c(Bytes{9, 8, 7});
  const auto byte = [](std::uint32_t word, int i) { return static_cast<std::uint8_t>(word >> (8 * i)); };
  EXPECT_EQ(frame, (Bytes{'S',          'H', 'L', '1', 1, 3, 0, 0, 3, 0, 0, 0, byte(crc, 0), byte(crc, 1), byte(crc, 2),
                          byte(crc, 3), 8,   7,   6,   5, 4, 3, 2, 1, 9, 8, 7}));
}

TEST(Frame, ParsesWhatItSeals) {
  for (const FrameType type : {FrameType::kBatch, FrameType::kControl, FrameType::kResult, FrameType::kFailure}) {
    const Bytes frame = Sealed(type);
    const auto header = ParseFrame(frame);
    ASSERT_TRUE(header.ok());
    EXPECT_EQ(header->type, type);
    EXPECT_EQ(header->epoch, 0x0102030405060708U);
    EXPECT_EQ(header->payload_bytes, 3U);
    EXPECT_EQ(header->payload_crc, Crc32c(FramePayload(frame)));
  }
  const Bytes empty = Sealed(FrameType::kControl, 0, {});
  ASSERT_TRUE(ParseFrame(empty).ok());
  EXPECT_TRUE(FramePayload(empty).empty());
}

TEST(Frame, EveryFieldIsChecked) {
  const auto with = [](std::size_t at, std::uint8_t value) {
    Bytes frame = Sealed();
    frame[at] = value;
    return frame;
  };
  ExpectRefused({}, ErrorCode::kCorrupt, "shorter");
  ExpectRefused(Bytes(kFrameHeaderBytes - 1), ErrorCode::kCorrupt, "shorter");
  ExpectRefused(Bytes(kFrameBytesMax + 1), ErrorCode::kCorrupt, "longer");
  for (std::size_t at = 0; at < 4; ++at) ExpectRefused(with(at, 0), ErrorCode::kCorrupt, "not a shoal frame");
  ExpectRefused(with(4, 2), ErrorCode::kUnsupported, "version 2");
  ExpectRefused(with(4, 0), ErrorCode::kUnsupported, "version 0");
  ExpectRefused(with(5, 0), ErrorCode::kCorrupt, "type");
  ExpectRefused(with(5, static_cast<std::uint8_t>(kFrameTypeLast) + 1), ErrorCode::kCorrupt, "type");
  ExpectRefused(with(6, 1), ErrorCode::kCorrupt, "flags");
  ExpectRefused(with(7, 128), ErrorCode::kCorrupt, "flags");
  ExpectRefused(with(8, 2), ErrorCode::kCorrupt, "length");
  ExpectRefused(with(11, 1), ErrorCode::kCorrupt, "length");
  ExpectRefused(with(12, static_cast<std::uint8_t>(Sealed()[12] ^ 1)), ErrorCode::kCorrupt, "checksum");
  ExpectRefused(with(25, 0), ErrorCode::kCorrupt, "checksum");
  Bytes longer = Sealed();
  longer.push_back(0);
  ExpectRefused(longer, ErrorCode::kCorrupt, "length");
}

TEST(FrameDeathTest, SealingBrokenSizesIsABug) {
  Bytes shorter(kFrameHeaderBytes - 1);
  EXPECT_DEATH(SealFrame(FrameType::kBatch, 0, shorter), "kFrameHeaderBytes");
  Bytes longer(kFrameBytesMax + 1);
  EXPECT_DEATH(SealFrame(FrameType::kBatch, 0, longer), "kFrameBytesMax");
}

// RFC 3720, appendix B.4, and the usual check value.
TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(Crc32c({}), 0U);
  EXPECT_EQ(Crc32c(Bytes(32, 0x00)), 0x8A9136AAU);
  EXPECT_EQ(Crc32c(Bytes(32, 0xFF)), 0x62A8AB43U);
  Bytes rising(32), falling(32);
  for (std::uint8_t i = 0; i < 32; ++i) rising[i] = falling[31U - i] = i;
  EXPECT_EQ(Crc32c(rising), 0x46DD794EU);
  EXPECT_EQ(Crc32c(falling), 0x113FDB5CU);
  const std::string digits = "123456789";
  EXPECT_EQ(Crc32c(Bytes(digits.begin(), digits.end())), 0xE3069283U);
}

TEST(Crc32c, BothWaysAgreeAtEveryLengthAndOffset) {
  Rng rng(5);
  Bytes bytes(200);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(rng.Next());
  for (std::size_t at = 0; at < 9; ++at) {
    for (std::size_t n = 0; at + n <= bytes.size(); ++n) {
      const std::span<const std::uint8_t> part(bytes.data() + at, n);
      std::uint32_t bitwise = ~0U;  // the definition, bit by bit
      for (const std::uint8_t byte : part) {
        bitwise ^= byte;
        for (int bit = 0; bit < 8; ++bit) bitwise = (bitwise >> 1) ^ ((bitwise & 1) != 0 ? 0x82F63B78U : 0U);
      }
      ASSERT_EQ(crc32c_internal::Portable(part), ~bitwise);
      if (crc32c_internal::HasHardware()) { ASSERT_EQ(crc32c_internal::Hardware(part), ~bitwise); }
    }
  }
}

}  // namespace
}  // namespace shoal
