// CRC-32C (polynomial 0x1EDC6F41, reflected 0x82F63B78; initial and final complement), as in RFC 3720, appendix B.4.
//
// The portable way looks up eight bytes at once in eight tables (Kounavis and Berry, "A systematic approach to building
// high performance software-based CRC generators", 2005).
#include "wire/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "wire/frame.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define SHOAL_CRC_X86 1
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define SHOAL_CRC_ARM 1
#endif

namespace shoal {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the CRC of byte b followed by k zero bytes.
constexpr Tables MakeTables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

[[maybe_unused]] std::uint64_t LoadWord(const std::uint8_t* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

}  // namespace

namespace crc32c_internal {

std::uint32_t Portable(std::span<const std::uint8_t> bytes) {
  std::uint32_t crc = ~std::uint32_t{0};
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t word = LoadWord(&bytes[i]) ^ crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(word >> (8 * k)) & 0xFF];
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ kTables[0][(crc ^ bytes[i]) & 0xFF];
  return ~crc;
}

#if defined(SHOAL_CRC_X86)

bool HasHardware() {
  static const bool has = __builtin_cpu_supports("sse4.2") != 0;
  return has;
}

__attribute__((target("sse4.2"))) static std::uint32_t ByInstruction(std::span<const std::uint8_t> bytes) {
  std::uint64_t crc = 0xFFFFFFFFU;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) crc = _mm_crc32_u64(crc, LoadWord(&bytes[i]));
  auto crc32 = static_cast<std::uint32_t>(crc);
  for (; i < bytes.size(); ++i) crc32 = _mm_crc32_u8(crc32, bytes[i]);
  return ~crc32;
}

#elif defined(SHOAL_CRC_ARM)

bool HasHardware() { return true; }

static std::uint32_t ByInstruction(std::span<const std::uint8_t> bytes) {
  std::uint32_t crc = 0xFFFFFFFFU;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) crc = __crc32cd(crc, LoadWord(&bytes[i]));
  for (; i < bytes.size(); ++i) crc = __crc32cb(crc, bytes[i]);
  return ~crc;
}

#else

bool HasHardware() { return false; }

static std::uint32_t ByInstruction(std::span<const std::uint8_t> bytes) { return Portable(bytes); }

#endif

std::uint32_t Hardware(std::span<const std::uint8_t> bytes) {
  SHOAL_CHECK(HasHardware());
  return ByInstruction(bytes);
}

}  // namespace crc32c_internal

std::uint32_t Crc32c(std::span<const std::uint8_t> bytes) {
  return crc32c_internal::HasHardware() ? crc32c_internal::Hardware(bytes) : crc32c_internal::Portable(bytes);
}

}  // namespace shoal
