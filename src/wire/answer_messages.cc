// Little-endian fields in the order of the structs (docs/wire-format.md). Every byte must be used.
#include "wire/answer_messages.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint8_t kKeepBit = 1;
constexpr std::uint8_t kEndBit = 1, kLogprobBit = 2;
constexpr std::size_t kReserveBytes = 256;
constexpr std::size_t kEntryBytesMin = 3;
constexpr std::size_t kAlternativeBytes = 8;

enum class Tag : std::uint8_t { kCopy = 1, kEntries, kAsk, kFound, kAttach, kHead, kPiece };

void PutText(ByteWriter& out, std::string_view text, std::uint32_t bytes_max) {
  SHOAL_CHECK(text.size() <= bytes_max);
  out.Put(static_cast<std::uint32_t>(text.size()));
  out.PutText(text);
}

void PutKey(ByteWriter& out, const AnswerKey& key) { out.PutArray(std::span<const std::uint8_t>(key)); }

AnswerKey GetKey(ByteReader& in) {
  AnswerKey key{};
  const auto bytes = in.Take(key.size());
  std::copy(bytes.begin(), bytes.end(), key.begin());
  return key;
}

std::string GetText(ByteReader& in, std::uint32_t bytes_max) { return in.GetText(in.GetCount(bytes_max, 1)); }

// Values of enums and flags beyond the known ones fail the reader.
std::uint8_t GetSmall(ByteReader& in, std::uint8_t first, std::uint8_t last) {
  const auto value = in.Get<std::uint8_t>();
  if (value < first || value > last) in.Fail();
  return value;
}

void Put(ByteWriter& out, const AnswerCopy& copy) {
  const AnswerRecord& record = copy.record;
  out.Put(static_cast<std::uint8_t>(Tag::kCopy));
  out.Put(copy.number);
  out.Put(static_cast<std::uint8_t>(record.dialect));
  out.Put(record.keep ? kKeepBit : std::uint8_t{0});
  out.Put(record.created_s);
  out.Put(record.seed);
  PutKey(out, record.key);
  PutKey(out, record.digest);
  PutText(out, record.id, kAnswerIdBytesMax);
  PutText(out, record.model, kAnswerModelBytesMax);
  PutText(out, record.body, kAnswerBodyBytesMax);
}

AnswerCopy GetCopy(ByteReader& in) {
  AnswerCopy copy;
  AnswerRecord& record = copy.record;
  copy.number = in.Get<std::uint32_t>();
  record.dialect = static_cast<Dialect>(GetSmall(in, 1, 2));
  record.keep = GetSmall(in, 0, kKeepBit) == kKeepBit;
  record.created_s = in.Get<std::int64_t>();
  record.seed = in.Get<std::uint64_t>();
  record.key = GetKey(in);
  record.digest = GetKey(in);
  record.id = GetText(in, kAnswerIdBytesMax);
  record.model = GetText(in, kAnswerModelBytesMax);
  record.body = GetText(in, kAnswerBodyBytesMax);
  return copy;
}

void PutEntry(ByteWriter& out, const AnswerEntry& entry) {
  SHOAL_CHECK(entry.choice < kAnswerChoicesMax);
  out.Put(entry.choice);
  out.Put(static_cast<std::uint8_t>(entry.kind));
  if (entry.kind == AnswerEntry::Kind::kReused) out.Put(entry.reused_tokens);
  if (entry.kind != AnswerEntry::Kind::kToken) return;
  const SampledToken& token = entry.token;
  SHOAL_CHECK(token.alternatives.size() <= static_cast<std::size_t>(kLogprobsMax));
  const bool logprob = token.logprob != 0 || !token.alternatives.empty();
  out.Put(token.token);
  out.Put(static_cast<std::uint8_t>((token.end ? kEndBit : 0) | (logprob ? kLogprobBit : 0)));
  if (!logprob) return;
  out.Put(token.logprob);
  out.Put(static_cast<std::uint8_t>(token.alternatives.size()));
  for (const TokenLogprob& other : token.alternatives) {
    out.Put(other.token);
    out.Put(other.logprob);
  }
}

AnswerEntry GetEntry(ByteReader& in) {
  AnswerEntry entry;
  entry.choice = in.Get<std::uint16_t>();
  if (entry.choice >= kAnswerChoicesMax) in.Fail();
  entry.kind = static_cast<AnswerEntry::Kind>(GetSmall(in, 1, 4));
  if (entry.kind == AnswerEntry::Kind::kReused) {
    entry.reused_tokens = in.Get<std::int32_t>();
    if (entry.reused_tokens < 0) in.Fail();
  }
  if (entry.kind != AnswerEntry::Kind::kToken) return entry;
  SampledToken& token = entry.token;
  token.token = in.Get<TokenId>();
  if (token.token < 0) in.Fail();
  const std::uint8_t flags = GetSmall(in, 0, kEndBit | kLogprobBit);
  token.end = (flags & kEndBit) != 0;
  if ((flags & kLogprobBit) == 0) return entry;
  token.logprob = in.Get<float>();
  const std::uint32_t count = in.CheckCount(in.Get<std::uint8_t>(), kLogprobsMax, kAlternativeBytes);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto other = in.Get<TokenId>();
    if (other < 0) in.Fail();
    token.alternatives.push_back({other, in.Get<float>()});
  }
  if (token.logprob == 0 && count == 0) in.Fail();  // one encoding of one entry
  return entry;
}

void Put(ByteWriter& out, const AnswerEntries& message) {
  SHOAL_CHECK(message.entries.size() <= kAnswerEntriesMax);
  out.Put(static_cast<std::uint8_t>(Tag::kEntries));
  out.Put(message.number);
  out.Put(message.first);
  out.Put(static_cast<std::uint32_t>(message.entries.size()));
  for (const AnswerEntry& entry : message.entries) PutEntry(out, entry);
}

AnswerEntries GetEntries(ByteReader& in) {
  AnswerEntries message;
  message.number = in.Get<std::uint32_t>();
  message.first = in.Get<std::uint32_t>();
  const std::uint32_t count = in.GetCount(kAnswerEntriesMax, kEntryBytesMin);
  message.entries.reserve(count);
  for (std::uint32_t i = 0; i < count && !in.failed(); ++i) message.entries.push_back(GetEntry(in));
  return message;
}

void Put(ByteWriter& out, const AnswerAsk& ask) {
  out.Put(static_cast<std::uint8_t>(Tag::kAsk));
  PutKey(out, ask.key);
  PutText(out, ask.id, kAnswerIdBytesMax);
}

void Put(ByteWriter& out, const AnswerFound& found) {
  out.Put(static_cast<std::uint8_t>(Tag::kFound));
  out.Put(static_cast<std::uint8_t>(found.place));
  PutKey(out, found.digest);
}

void Put(ByteWriter& out, const AnswerAttach& attach) {
  out.Put(static_cast<std::uint8_t>(Tag::kAttach));
  out.Put(static_cast<std::uint8_t>(attach.mode));
  PutText(out, attach.position, kAnswerPositionBytesMax);
}

void Put(ByteWriter& out, const AnswerHeadMessage& head) {
  SHOAL_CHECK(head.status >= 100 && head.status <= 599);
  out.Put(static_cast<std::uint8_t>(Tag::kHead));
  out.Put(head.status);
  out.Put(head.retry_after_s);
  out.Put(head.streamed ? std::uint8_t{1} : std::uint8_t{0});
}

void Put(ByteWriter& out, const AnswerPiece& piece) {
  out.Put(static_cast<std::uint8_t>(Tag::kPiece));
  PutText(out, piece.bytes, kAnswerPieceBytesMax);
}

AnswerHeadMessage GetHead(ByteReader& in) {
  AnswerHeadMessage head;
  head.status = in.Get<std::uint16_t>();
  if (head.status < 100 || head.status > 599) in.Fail();
  head.retry_after_s = in.Get<std::uint16_t>();
  head.streamed = GetSmall(in, 0, 1) == 1;
  return head;
}

std::optional<AnswerMessage> GetMessage(ByteReader& in) {
  switch (static_cast<Tag>(in.Get<std::uint8_t>())) {
    case Tag::kCopy: return GetCopy(in);
    case Tag::kEntries: return GetEntries(in);
    case Tag::kAsk: {
      AnswerAsk ask;
      ask.key = GetKey(in);
      ask.id = GetText(in, kAnswerIdBytesMax);
      return ask;
    }
    case Tag::kFound: {
      AnswerFound found;
      found.place = static_cast<AnswerPlace>(GetSmall(in, 0, 3));
      found.digest = GetKey(in);
      return found;
    }
    case Tag::kAttach: {
      AnswerAttach attach;
      attach.mode = static_cast<AnswerAttach::Mode>(GetSmall(in, 0, 3));
      attach.position = GetText(in, kAnswerPositionBytesMax);
      return attach;
    }
    case Tag::kHead: return GetHead(in);
    case Tag::kPiece: return AnswerPiece{GetText(in, kAnswerPieceBytesMax)};
  }
  return std::nullopt;
}

}  // namespace

Bytes EncodeAnswerMessage(const AnswerMessage& message) {
  Bytes frame = StartFrame(kReserveBytes);
  ByteWriter out(frame);
  std::visit([&](const auto& one) { Put(out, one); }, message);
  SealFrame(FrameType::kAnswer, 0, frame);
  return frame;
}

Result<AnswerMessage> DecodeAnswerMessage(std::span<const std::uint8_t> frame) {
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrame(frame));
  const Error corrupt = BrokenFrame("not a message about an answer");
  if (header.type != FrameType::kAnswer || header.epoch != 0) return corrupt;
  ByteReader in(FramePayload(frame));
  std::optional<AnswerMessage> message = GetMessage(in);
  if (!message || !in.AtEnd()) return corrupt;
  return *std::move(message);
}

}  // namespace shoal
