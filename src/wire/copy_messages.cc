// Small fixed layouts, little-endian (docs/wire-format.md). Every byte must be used.
#include "wire/copy_messages.h"

#include "base/check.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

Status Expect(FrameType type, std::span<const std::uint8_t> frame) {
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ExpectFrame(type, frame));
  if (header.epoch != 0) return BrokenFrame("a frame of another type than expected");
  return {};
}

void PutBytes(ByteWriter& out, const Bytes& bytes) {
  out.Put(static_cast<std::uint32_t>(bytes.size()));
  out.PutArray<std::uint8_t>(bytes);
}

Bytes GetBytes(ByteReader& in) {
  const auto bytes = in.Take(in.GetCount(static_cast<std::uint32_t>(kCopyFrameBytesMax), 1));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Bytes EncodeCopyHello(const CopyHello& hello) {
  SHOAL_CHECK(hello.model.size() <= kCopyModelBytesMax);
  Bytes frame = StartFrame(28 + hello.model.size());
  ByteWriter out(frame);
  out.Put(hello.fingerprint);
  out.Put(hello.options_hash);
  out.Put(hello.first);
  out.Put(hello.last);
  out.Put(static_cast<std::uint32_t>(hello.model.size()));
  out.PutText(hello.model);
  SealFrame(FrameType::kCopyHello, 0, frame);
  return frame;
}

Result<CopyHello> DecodeCopyHello(std::span<const std::uint8_t> frame) {
  SHOAL_RETURN_IF_ERROR(Expect(FrameType::kCopyHello, frame));
  ByteReader in(FramePayload(frame));
  CopyHello hello;
  hello.fingerprint = in.Get<std::uint64_t>();
  hello.options_hash = in.Get<std::uint64_t>();
  hello.first = in.Get<std::int32_t>();
  hello.last = in.Get<std::int32_t>();
  hello.model = in.GetText(in.GetCount(kCopyModelBytesMax, 1));
  if (!in.AtEnd() || hello.first < 0 || hello.last <= hello.first) return BrokenFrame("a copy's hello is out of range");
  return hello;
}

Bytes EncodeCopyRows(const CopyRows& rows) {
  SHOAL_CHECK(rows.tokens.size() <= kCopyRowsMax && rows.cache.size() + rows.sent.size() < kCopyFrameBytesMax / 2);
  Bytes frame = StartFrame(32 + 4 * rows.tokens.size() + rows.cache.size() + rows.sent.size());
  ByteWriter out(frame);
  out.Put(rows.sequence);
  out.Put(rows.from);
  out.Put(static_cast<std::uint8_t>(rows.sent_type));
  out.Put(static_cast<std::uint32_t>(rows.tokens.size()));
  out.PutArray<TokenId>(rows.tokens);
  PutBytes(out, rows.cache);
  PutBytes(out, rows.sent);
  SealFrame(FrameType::kCopyRows, 0, frame);
  return frame;
}

Result<CopyRows> DecodeCopyRows(std::span<const std::uint8_t> frame) {
  SHOAL_RETURN_IF_ERROR(Expect(FrameType::kCopyRows, frame));
  ByteReader in(FramePayload(frame));
  CopyRows rows;
  rows.sequence = in.Get<SequenceId>();
  rows.from = in.Get<Position>();
  const auto type = in.Get<std::uint8_t>();
  rows.tokens = in.GetArray<TokenId>(in.GetCount(kCopyRowsMax, sizeof(TokenId)));
  rows.cache = GetBytes(in);
  rows.sent = GetBytes(in);
  if (!in.AtEnd() || rows.sequence < 0 || rows.from < 0 || type > static_cast<std::uint8_t>(WireType::kBf16)) {
    return BrokenFrame("rows of a copy are out of range");
  }
  rows.sent_type = static_cast<WireType>(type);
  return rows;
}

}  // namespace shoal
