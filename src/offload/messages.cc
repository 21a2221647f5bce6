// Every count is held against what is there before anything is allocated; a decoder is judged at its end.
#include "offload/messages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "wire/bytes.h"

namespace shoal {
namespace {

constexpr std::uint32_t kCpusMax = 4096;
constexpr std::uint32_t kSequencesMost = 1024;
constexpr std::uint32_t kSeenBytesMin = 3 * 4 + 2 * 8;  // one device without any text
constexpr auto kCodeMax = static_cast<std::uint32_t>(ErrorCode::kInternal);

Error Broken(const char* what) { return {ErrorCode::kCorrupt, std::string("a broken message: ") + what}; }

void PutText(ByteWriter& out, std::string_view text) {
  text = text.substr(0, kOffloadTextMax);
  out.Put(static_cast<std::uint32_t>(text.size()));
  out.PutText(text);
}

std::string GetText(ByteReader& in) { return in.GetText(in.GetCount(kOffloadTextMax, 1)); }

bool GetBool(ByteReader& in) {
  const auto value = in.Get<std::uint8_t>();
  if (value > 1) in.Fail();
  return value == 1;
}

// 0: all went well.
void PutStatus(ByteWriter& out, const Status& status) {
  out.Put(status.ok() ? 0U : 1U + static_cast<std::uint32_t>(status.error().code));
  if (!status.ok()) PutText(out, status.error().message);
}

Status GetStatus(ByteReader& in) {
  const auto code = in.Get<std::uint32_t>();
  if (code > kCodeMax + 1) in.Fail();
  if (code == 0 || in.failed()) return {};
  return Error{static_cast<ErrorCode>(code - 1), GetText(in)};
}

void PutOptions(ByteWriter& out, const EngineOptions& o) {
  for (const std::int32_t value : {o.layers.first, o.layers.last, o.kv_tokens_max, o.sequences_max, o.batch_rows_max,
                                   o.output_rows_max, o.threads, o.device.layers}) {
    out.Put(value);
  }
  out.Put(static_cast<std::uint8_t>(o.kv_type));
  out.Put(static_cast<std::uint8_t>(o.flash_attention));
  out.Put(static_cast<std::uint8_t>(o.kv_shared));
  out.Put(o.memory_bytes_max);
  out.Put(o.other_bytes);
  out.Put(static_cast<std::uint32_t>(o.cpus.size()));
  for (const int cpu : o.cpus) out.Put(std::int32_t{cpu});
  PutText(out, o.device.backend);
  PutText(out, o.device.which);
}

EngineOptions GetOptions(ByteReader& in) {
  EngineOptions o;
  for (std::int32_t* value : {&o.layers.first, &o.layers.last, &o.kv_tokens_max, &o.sequences_max, &o.batch_rows_max,
                              &o.output_rows_max, &o.threads, &o.device.layers}) {
    *value = in.Get<std::int32_t>();
  }
  o.kv_type = GetBool(in) ? KvType::kQ8_0 : KvType::kF16;
  o.flash_attention = GetBool(in);
  o.kv_shared = GetBool(in);
  o.memory_bytes_max = in.Get<std::uint64_t>();
  o.other_bytes = in.Get<std::uint64_t>();
  for (const std::int32_t cpu : in.GetArray<std::int32_t>(in.GetCount(kCpusMax, sizeof(std::int32_t)))) {
    o.cpus.push_back(cpu);
  }
  o.device.backend = GetText(in);
  o.device.which = GetText(in);
  return o;
}

std::span<const std::uint8_t> Rest(ByteReader& in) { return in.Take(in.remaining()); }

}  // namespace

OffloadBytes EncodeOpen(const OffloadOpen& open) {
  OffloadBytes bytes;
  ByteWriter out(bytes);
  PutText(out, open.path);
  out.Put(open.file_bytes);
  out.Put(open.header_bytes);
  PutOptions(out, open.options);
  return bytes;
}

Result<OffloadOpen> DecodeOpen(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  OffloadOpen open;
  open.path = GetText(in);
  open.file_bytes = in.Get<std::uint64_t>();
  open.header_bytes = in.Get<std::uint64_t>();
  open.options = GetOptions(in);
  if (!in.AtEnd() || open.header_bytes > kGgufHeaderBytesMax || open.header_bytes > open.file_bytes) {
    return Broken("what to open");
  }
  return open;
}

OffloadBytes EncodeSpan(const OffloadSpan& span, std::span<const std::uint8_t> rows) {
  OffloadBytes bytes;
  bytes.reserve(16 + rows.size());
  ByteWriter out(bytes);
  for (const std::int32_t value : {span.sequence, span.to_sequence, span.from, span.to}) out.Put(value);
  out.PutArray(rows);
  return bytes;
}

Result<OffloadSpan> DecodeSpan(std::span<const std::uint8_t> bytes, std::span<const std::uint8_t>& rows) {
  ByteReader in(bytes);
  OffloadSpan span;
  for (std::int32_t* value : {&span.sequence, &span.to_sequence, &span.from, &span.to}) *value = in.Get<std::int32_t>();
  rows = Rest(in);
  if (in.failed()) return Broken("a span of rows");
  return span;
}

OffloadBytes EncodeTokens(std::span<const TokenId> tokens) {
  OffloadBytes bytes;
  ByteWriter(bytes).PutArray(tokens);
  return bytes;
}

Result<std::vector<TokenId>> DecodeTokens(std::span<const std::uint8_t> bytes) {
  if (bytes.size() % sizeof(TokenId) != 0 || bytes.size() > kOffloadSmallBytesMax) return Broken("tokens");
  ByteReader in(bytes);
  return in.GetArray<TokenId>(static_cast<std::uint32_t>(bytes.size() / sizeof(TokenId)));
}

OffloadBytes EncodeForward(std::span<const EngineRow> rows, std::span<const float> hidden) {
  OffloadBytes bytes;
  bytes.reserve(4 + rows.size() * 9 + hidden.size_bytes());
  ByteWriter out(bytes);
  out.Put(static_cast<std::uint32_t>(rows.size()));
  for (const EngineRow& row : rows) {
    out.Put(row.sequence);
    out.Put(row.position);
    out.Put(static_cast<std::uint8_t>(row.output));
  }
  out.PutArray(hidden);
  return bytes;
}

Result<OffloadForward> DecodeForward(std::span<const std::uint8_t> bytes, std::uint32_t rows_max) {
  ByteReader in(bytes);
  OffloadForward forward;
  forward.rows.resize(in.GetCount(rows_max, 9));
  for (EngineRow& row : forward.rows) {
    row.sequence = in.Get<std::int32_t>();
    row.position = in.Get<std::int32_t>();
    row.output = GetBool(in);
  }
  const auto values = Rest(in);
  if (in.failed() || forward.rows.empty() || values.size() % sizeof(float) != 0) return Broken("a micro-batch");
  SHOAL_RETURN_IF_ERROR(DecodeFloats(values, values.size() / sizeof(float), forward.hidden));
  return forward;
}

OffloadBytes EncodeRead(const OffloadRead& read) {
  OffloadBytes bytes;
  ByteWriter out(bytes);
  out.Put(read.offset);
  out.Put(read.bytes);
  return bytes;
}

Result<OffloadRead> DecodeRead(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  OffloadRead read;
  read.offset = in.Get<std::uint64_t>();
  read.bytes = in.Get<std::uint32_t>();
  if (!in.AtEnd() || read.bytes == 0 || read.bytes > kOffloadReadBytesMax) return Broken("a read");
  return read;
}

OffloadBytes EncodeBytes(const Status& status, std::span<const std::uint8_t> data) {
  OffloadBytes bytes;
  bytes.reserve(4 + data.size());
  ByteWriter out(bytes);
  PutStatus(out, status);
  out.PutArray(data);
  return bytes;
}

Status DecodeBytes(std::span<const std::uint8_t> bytes, std::span<std::uint8_t> out) {
  ByteReader in(bytes);
  SHOAL_RETURN_IF_ERROR(GetStatus(in));
  const auto data = Rest(in);
  if (in.failed() || data.size() != out.size()) return Broken("bytes of the model");
  std::memcpy(out.data(), data.data(), data.size());
  return {};
}

OffloadBytes EncodeProgress(float done) {
  OffloadBytes bytes;
  ByteWriter(bytes).Put(done);
  return bytes;
}

Result<float> DecodeProgress(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  const auto done = in.Get<float>();
  if (!in.AtEnd() || !std::isfinite(done)) return Broken("progress");
  return std::clamp(done, 0.0F, 1.0F);
}

OffloadBytes EncodeReply(const OffloadReply& reply) {
  OffloadBytes bytes;
  bytes.reserve(16 + reply.lengths.size() * sizeof(Position) + reply.data.size());
  ByteWriter out(bytes);
  PutStatus(out, reply.status);
  out.Put(static_cast<std::uint32_t>(reply.lengths.size()));
  out.PutArray(std::span<const Position>(reply.lengths));
  out.PutArray(std::span<const std::uint8_t>(reply.data));
  return bytes;
}

Result<OffloadReply> DecodeReply(std::span<const std::uint8_t> bytes, std::int32_t sequences) {
  ByteReader in(bytes);
  OffloadReply reply;
  reply.status = GetStatus(in);
  reply.lengths = in.GetArray<Position>(in.GetCount(kSequencesMost, sizeof(Position)));
  const auto data = Rest(in);
  const bool counted = reply.lengths.empty() || reply.lengths.size() == static_cast<std::size_t>(sequences);
  const bool positive = std::all_of(reply.lengths.begin(), reply.lengths.end(), [](Position p) { return p >= 0; });
  if (in.failed() || !counted || !positive) return Broken("an answer");
  reply.data.assign(data.begin(), data.end());
  return reply;
}

OffloadBytes EncodeEngine(const OffloadEngine& engine) {
  OffloadBytes bytes;
  ByteWriter out(bytes);
  for (const std::uint64_t value : {engine.memory.weight_bytes, engine.memory.kv_bytes, engine.memory.compute_bytes}) {
    out.Put(value);
  }
  PutText(out, engine.device);
  return bytes;
}

Result<OffloadEngine> DecodeEngine(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  OffloadEngine engine;
  engine.memory = {in.Get<std::uint64_t>(), in.Get<std::uint64_t>(), in.Get<std::uint64_t>()};
  engine.device = GetText(in);
  if (!in.AtEnd()) return Broken("an engine");
  return engine;
}

OffloadBytes EncodeReport(const DeviceReport& report) {
  OffloadBytes bytes;
  ByteWriter out(bytes);
  out.Put(report.difference);
  out.Put(report.difference_max);
  for (const std::uint32_t count : {report.tokens, report.tokens_same, report.tokens_other}) out.Put(count);
  PutText(out, report.device);
  return bytes;
}

Result<DeviceReport> DecodeReport(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  DeviceReport report;
  report.difference = in.Get<double>();
  report.difference_max = in.Get<double>();
  for (std::uint32_t* count : {&report.tokens, &report.tokens_same, &report.tokens_other}) {
    *count = in.Get<std::uint32_t>();
  }
  report.device = GetText(in);
  if (!in.AtEnd()) return Broken("a report");
  return report;
}

OffloadBytes EncodeSeen(std::span<const SeenDevice> seen) {
  OffloadBytes bytes;
  ByteWriter out(bytes);
  out.Put(static_cast<std::uint32_t>(seen.size()));
  for (const SeenDevice& device : seen) {
    for (const std::string* text : {&device.name, &device.description, &device.kind}) PutText(out, *text);
    out.Put(device.memory_bytes);
    out.Put(device.free_bytes);
  }
  return bytes;
}

Result<std::vector<SeenDevice>> DecodeSeen(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  std::vector<SeenDevice> seen(in.GetCount(kSeenDevicesMax, kSeenBytesMin));
  for (SeenDevice& device : seen) {
    for (std::string* text : {&device.name, &device.description, &device.kind}) *text = GetText(in);
    device.memory_bytes = in.Get<std::uint64_t>();
    device.free_bytes = in.Get<std::uint64_t>();
  }
  if (!in.AtEnd()) return Broken("a list of devices");
  return seen;
}

Status DecodeFloats(std::span<const std::uint8_t> bytes, std::size_t count, std::vector<float>& out) {
  if (bytes.size() % sizeof(float) != 0 || bytes.size() / sizeof(float) != count) return Broken("values");
  out.resize(count);
  if (count > 0) std::memcpy(out.data(), bytes.data(), bytes.size());
  return {};
}

}  // namespace shoal
