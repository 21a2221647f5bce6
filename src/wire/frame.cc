// The frame header, written and checked. Knows nothing of payloads.
#include "wire/frame.h"

#include <cstring>

#include "base/check.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

constexpr std::size_t kMagicAt = 0, kVersionAt = 4, kTypeAt = 5, kFlagsAt = 6, kPayloadBytesAt = 8, kPayloadCrcAt = 12,
                      kEpochAt = 16;

template <WireField T>
T Load(std::span<const std::uint8_t> bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, &bytes[at], sizeof value);
  return value;
}

template <WireField T>
void Store(T value, std::span<std::uint8_t> bytes, std::size_t at) {
  std::memcpy(&bytes[at], &value, sizeof value);
}

}  // namespace

Error BrokenFrame(std::string_view what) { return {ErrorCode::kCorrupt, "broken frame: " + std::string(what)}; }

Result<FrameHeader> ParseFrameHeader(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < kFrameHeaderBytes) return BrokenFrame("shorter than its header");
  if (Load<std::uint32_t>(bytes, kMagicAt) != kFrameMagic) return BrokenFrame("not a shoal frame");
  const auto version = Load<std::uint8_t>(bytes, kVersionAt);
  if (version != kFrameVersion) {
    return Error{ErrorCode::kUnsupported, "a frame of wire version " + std::to_string(version) +
                                              "; this build speaks version " + std::to_string(kFrameVersion) +
                                              ": run the same version of shoal on all nodes"};
  }
  const auto type = Load<std::uint8_t>(bytes, kTypeAt);
  if (type < static_cast<std::uint8_t>(FrameType::kBatch) || type > static_cast<std::uint8_t>(kFrameTypeLast)) {
    return BrokenFrame("unknown type");
  }
  if (Load<std::uint16_t>(bytes, kFlagsAt) != 0) return BrokenFrame("unknown flags");
  FrameHeader header;
  header.type = static_cast<FrameType>(type);
  header.payload_bytes = Load<std::uint32_t>(bytes, kPayloadBytesAt);
  header.payload_crc = Load<std::uint32_t>(bytes, kPayloadCrcAt);
  header.epoch = Load<Epoch>(bytes, kEpochAt);
  if (header.payload_bytes > kFrameBytesMax - kFrameHeaderBytes) return BrokenFrame("longer than the limit");
  return header;
}

Result<FrameHeader> ParseFrame(std::span<const std::uint8_t> bytes) {
  if (bytes.size() > kFrameBytesMax) return BrokenFrame("longer than the limit");
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrameHeader(bytes));
  if (header.payload_bytes != bytes.size() - kFrameHeaderBytes) return BrokenFrame("wrong length");
  if (header.payload_crc != Crc32c(FramePayload(bytes))) return BrokenFrame("wrong checksum");
  return header;
}

std::span<const std::uint8_t> FramePayload(std::span<const std::uint8_t> bytes) {
  SHOAL_CHECK(bytes.size() >= kFrameHeaderBytes);
  return bytes.subspan(kFrameHeaderBytes);
}

Result<FrameHeader> ExpectFrame(FrameType type, std::span<const std::uint8_t> bytes) {
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrame(bytes));
  if (header.type != type) return BrokenFrame("a frame of another type than expected");
  return header;
}

std::vector<std::uint8_t> StartFrame(std::size_t payload_bytes) {
  SHOAL_CHECK(payload_bytes <= kFrameBytesMax - kFrameHeaderBytes);
  std::vector<std::uint8_t> frame;
  frame.reserve(kFrameHeaderBytes + payload_bytes);
  frame.resize(kFrameHeaderBytes);
  return frame;
}

void SealFrame(FrameType type, Epoch epoch, std::span<std::uint8_t> frame) {
  SHOAL_CHECK(frame.size() >= kFrameHeaderBytes && frame.size() <= kFrameBytesMax);
  Store(kFrameMagic, frame, kMagicAt);
  Store(kFrameVersion, frame, kVersionAt);
  Store(static_cast<std::uint8_t>(type), frame, kTypeAt);
  Store(std::uint16_t{0}, frame, kFlagsAt);
  Store(static_cast<std::uint32_t>(frame.size() - kFrameHeaderBytes), frame, kPayloadBytesAt);
  Store(Crc32c(FramePayload(frame)), frame, kPayloadCrcAt);
  Store(epoch, frame, kEpochAt);
}

}  // namespace shoal
