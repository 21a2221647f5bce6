// The two ways to compute CRC-32C, apart, so that a test can hold one against the other. Callers use Crc32c (frame.h).
#pragma once

#include <cstdint>
#include <span>

namespace shoal::crc32c_internal {

// By tables, eight bytes a step.
std::uint32_t Portable(std::span<const std::uint8_t> bytes);
// By the processor's instruction. Precondition (CHECK): HasHardware().
std::uint32_t Hardware(std::span<const std::uint8_t> bytes);
bool HasHardware();

}  // namespace shoal::crc32c_internal
