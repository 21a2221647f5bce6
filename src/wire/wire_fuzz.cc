// Any bytes as a frame: decoding never crashes, and what decodes encodes to a frame that decodes to the same.
//
// Bytes that no sender sealed mostly end at the checksum, so the same bytes are also tried under a sound header.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "base/check.h"
#include "wire/messages.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes Encode(const DecodedFrame& frame) {
  const Epoch epoch = frame.header.epoch;
  if (const auto* batch = std::get_if<BatchFrame>(&frame.message))
    return EncodeBatch(batch->batch, batch->timings, epoch);
  if (const auto* control = std::get_if<ControlMessage>(&frame.message)) return EncodeControl(*control, epoch);
  if (const auto* result = std::get_if<ResultMessage>(&frame.message)) return EncodeResult(*result, epoch);
  if (const auto* inventory = std::get_if<InventoryMessage>(&frame.message)) return EncodeInventory(*inventory, epoch);
  return EncodeFailure(std::get<FailureMessage>(frame.message), epoch);
}

void TryFrame(std::span<const std::uint8_t> bytes) {
  const Result<DecodedFrame> decoded = DecodeFrame(bytes);
  if (!decoded.ok()) {
    SHOAL_CHECK(decoded.error().code == ErrorCode::kCorrupt || decoded.error().code == ErrorCode::kUnsupported);
    return;
  }
  // Compared as bytes, since NaNs (allowed in hidden states and log-probabilities) equal nothing. The only freedom of
  // the format is a signalling NaN in a 16-bit hidden state, which decodes quiet: so only the second encoding is final.
  const Bytes once = Encode(*decoded);
  SHOAL_CHECK(once.size() == bytes.size());
  const Result<DecodedFrame> again = DecodeFrame(once);
  SHOAL_CHECK(again.ok());
  SHOAL_CHECK(again->message.index() == decoded->message.index() && again->header.epoch == decoded->header.epoch);
  SHOAL_CHECK(Encode(*again) == once);
}

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  shoal::TryFrame(bytes);
  if (size < shoal::kFrameHeaderBytes || size > (1U << 20)) return 0;
  shoal::Bytes sealed(bytes.begin(), bytes.end());
  constexpr std::array kTypes = {shoal::FrameType::kBatch, shoal::FrameType::kControl, shoal::FrameType::kResult,
                                 shoal::FrameType::kFailure, shoal::FrameType::kInventory};
  shoal::SealFrame(kTypes[data[5] % kTypes.size()], 7, sealed);
  shoal::TryFrame(sealed);
  return 0;
}
