// Any bytes as a message about an answer: decoding never crashes, and what decodes encodes to the same bytes.
//
// Bytes that no sender sealed mostly end at the checksum, so the same bytes are also tried under a sound header.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "wire/answer_messages.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

void TryFrame(std::span<const std::uint8_t> bytes) {
  const Result<AnswerMessage> decoded = DecodeAnswerMessage(bytes);
  if (!decoded.ok()) {
    SHOAL_CHECK(decoded.error().code == ErrorCode::kCorrupt || decoded.error().code == ErrorCode::kUnsupported);
    return;
  }
  const Bytes again = EncodeAnswerMessage(*decoded);
  SHOAL_CHECK(again == Bytes(bytes.begin(), bytes.end()));
}

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  shoal::TryFrame(bytes);
  if (size > (1U << 20)) return 0;
  shoal::Bytes sealed(shoal::kFrameHeaderBytes);
  sealed.insert(sealed.end(), bytes.begin(), bytes.end());
  shoal::SealFrame(shoal::FrameType::kAnswer, 0, sealed);
  shoal::TryFrame(sealed);
  return 0;
}
