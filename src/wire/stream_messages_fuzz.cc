// Any bytes as the first frames of a stream: reading never crashes, and what is read is written as it came.
//
// Bytes that no sender sealed mostly end at the checksum, so the same bytes are also tried under a sound header.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "wire/copy_messages.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

void CheckRefused(const Error& error) {
  SHOAL_CHECK(error.code == ErrorCode::kCorrupt || error.code == ErrorCode::kUnsupported);
}

void TryFrame(std::span<const std::uint8_t> bytes) {
  const Bytes given(bytes.begin(), bytes.end());
  const Result<FrameHeader> header = ParseFrame(bytes);
  const Epoch epoch = header.ok() ? header->epoch : 0;
  const Result<PipeHelloFrame> hello = DecodePipeHello(bytes);
  if (hello.ok()) {
    SHOAL_CHECK(hello->epoch == epoch && EncodePipeHello(hello->hello, epoch) == given);
  } else {
    CheckRefused(hello.error());
  }
  const Result<GenerateMessage> generate = DecodeGenerate(bytes);
  if (generate.ok()) {
    SHOAL_CHECK(generate->tokens_max >= 1 && EncodeGenerate(*generate, epoch) == given);
  } else {
    CheckRefused(generate.error());
  }
  const Result<GeneratedMessage> generated = DecodeGenerated(bytes);
  if (generated.ok()) {
    SHOAL_CHECK(EncodeGenerated(*generated, epoch) == given);
  } else {
    CheckRefused(generated.error());
  }
  const Result<CopyHello> copy = DecodeCopyHello(bytes);
  if (copy.ok()) {
    SHOAL_CHECK(EncodeCopyHello(*copy) == given);
  } else {
    CheckRefused(copy.error());
  }
  const Result<CopyRows> rows = DecodeCopyRows(bytes);
  if (rows.ok()) {
    SHOAL_CHECK(EncodeCopyRows(*rows) == given);
  } else {
    CheckRefused(rows.error());
  }
  SHOAL_CHECK(hello.ok() + generate.ok() + generated.ok() + copy.ok() + rows.ok() <= 1);
}

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  shoal::TryFrame({data, size});
  if (size < shoal::kFrameHeaderBytes || size > (1U << 16)) return 0;
  constexpr std::array kTypes = {shoal::FrameType::kPipeHello, shoal::FrameType::kGenerate,
                                 shoal::FrameType::kGenerated, shoal::FrameType::kCopyHello,
                                 shoal::FrameType::kCopyRows};
  for (const shoal::FrameType type : kTypes) {
    for (const shoal::Epoch epoch : {0, 7}) {
      shoal::Bytes sealed(data, data + size);
      shoal::SealFrame(type, epoch, sealed);
      shoal::TryFrame(sealed);
    }
  }
  return 0;
}
