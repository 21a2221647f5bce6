// Small fixed layouts, little-endian (docs/wire-format.md). Every byte must be used.
#include "wire/stream_messages.h"

#include <algorithm>

#include "base/check.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr StageIndex kStageMax = 4095;

}  // namespace

Bytes EncodePipeHello(const PipeHello& hello, Epoch epoch) {
  SHOAL_CHECK(hello.from >= 0 && hello.from <= kStageMax && hello.to >= 0 && hello.to <= kStageMax);
  Bytes frame = StartFrame(9);
  ByteWriter out(frame);
  out.Put(static_cast<std::uint8_t>(hello.kind));
  out.Put(hello.from);
  out.Put(hello.to);
  SealFrame(FrameType::kPipeHello, epoch, frame);
  return frame;
}

Result<PipeHelloFrame> DecodePipeHello(std::span<const std::uint8_t> frame) {
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ExpectFrame(FrameType::kPipeHello, frame));
  ByteReader in(FramePayload(frame));
  PipeHelloFrame out;
  out.epoch = header.epoch;
  const auto kind = in.Get<std::uint8_t>();
  out.hello.from = in.Get<StageIndex>();
  out.hello.to = in.Get<StageIndex>();
  const auto in_range = [](StageIndex stage) { return stage >= 0 && stage <= kStageMax; };
  if (!in.AtEnd() || kind < 1 || kind > 2 || !in_range(out.hello.from) || !in_range(out.hello.to)) {
    return BrokenFrame("a stream's hello is out of range");
  }
  out.hello.kind = static_cast<PipeKind>(kind);
  return out;
}

Bytes EncodeGenerate(const GenerateMessage& message, Epoch epoch) {
  SHOAL_CHECK(message.tokens_max >= 1);
  const auto name = std::string_view(message.model).substr(0, kGenerateModelBytesMax);
  Bytes frame = StartFrame(8 + name.size());
  ByteWriter out(frame);
  out.Put(message.tokens_max);
  out.Put(static_cast<std::uint32_t>(name.size()));
  out.PutText(name);
  SealFrame(FrameType::kGenerate, epoch, frame);
  return frame;
}

Result<GenerateMessage> DecodeGenerate(std::span<const std::uint8_t> frame) {
  SHOAL_RETURN_IF_ERROR(ExpectFrame(FrameType::kGenerate, frame));
  ByteReader in(FramePayload(frame));
  GenerateMessage message;
  message.tokens_max = in.Get<std::int32_t>();
  message.model = in.GetText(in.GetCount(kGenerateModelBytesMax, 1));
  if (!in.AtEnd() || message.tokens_max < 1) return BrokenFrame("a Generate is out of range");
  return message;
}

Bytes EncodeGenerated(const GeneratedMessage& message, Epoch epoch) {
  Bytes frame = StartFrame(5);
  ByteWriter out(frame);
  out.Put(static_cast<std::uint8_t>(message.kind));
  out.Put(message.reused_tokens);
  SealFrame(FrameType::kGenerated, epoch, frame);
  return frame;
}

Result<GeneratedMessage> DecodeGenerated(std::span<const std::uint8_t> frame) {
  SHOAL_RETURN_IF_ERROR(ExpectFrame(FrameType::kGenerated, frame));
  ByteReader in(FramePayload(frame));
  GeneratedMessage message;
  const auto kind = in.Get<std::uint8_t>();
  message.reused_tokens = in.Get<std::int32_t>();
  if (!in.AtEnd() || kind < 1 || kind > 4 || message.reused_tokens < 0)
    return BrokenFrame("a Generated is out of range");
  message.kind = static_cast<GeneratedKind>(kind);
  return message;
}

}  // namespace shoal
