// Frames to messages: every count is held against its limit and against the bytes that are there before any allocation,
// and every byte must be used. A decoder here reads on after a failure (the reader then gives nothing) and is judged at
// its end.
#include <cmath>
#include <type_traits>

#include "base/check.h"
#include "base/utf8.h"
#include "wire/bytes.h"
#include "wire/messages.h"
#include "wire/messages_layout.h"

namespace shoal {
namespace {

using namespace wire_layout;

// An id or a position: 0 and failed when negative.
std::int32_t GetNonNegative(ByteReader& in) {
  const auto value = in.Get<std::int32_t>();
  if (value >= 0) return value;
  in.Fail();
  return 0;
}

// One byte or word of flags: 0 and failed when over `value_max`.
template <WireField T>
T GetAtMost(ByteReader& in, T value_max) {
  const auto value = in.Get<T>();
  if (value <= value_max) return value;
  in.Fail();
  return 0;
}

std::vector<TokenId> GetTokens(ByteReader& in, std::uint32_t count) {
  std::vector<TokenId> tokens = in.GetArray<TokenId>(count);
  TokenId all_bits = 0;
  for (const TokenId token : tokens) all_bits |= token;
  if (all_bits < 0) in.Fail();  // the sign bit of some token
  return tokens;
}

std::vector<StageTiming> GetTimings(ByteReader& in, std::uint32_t count) {
  std::vector<StageTiming> timings(in.CheckCount(count, kTimingsMax, kTimingBytes));
  for (StageTiming& timing : timings) {
    timing.compute_us = in.Get<std::uint32_t>();
    timing.wait_us = in.Get<std::uint32_t>();
    timing.wire_us = in.Get<std::uint32_t>();
  }
  return timings;
}

// Undoes the sender's scaling of f16 rows. False when an exponent is out of range.
bool ScaleRows(std::span<const std::uint8_t> exponents, BatchMessage& batch) {
  for (std::size_t i = 0; i < exponents.size(); ++i) {
    if (exponents[i] > kF16RowExponentMax) return false;
    if (exponents[i] == 0) continue;
    const float factor = std::ldexp(1.0F, exponents[i]);
    for (std::size_t k = 0; k < batch.n_embd; ++k) batch.hidden[i * batch.n_embd + k] *= factor;
  }
  return true;
}

Result<BatchFrame> DecodeBatch(ByteReader& in) {
  BatchFrame frame;
  BatchMessage& batch = frame.batch;
  batch.batch = in.Get<BatchId>();
  const auto rows = in.Get<std::uint32_t>();
  batch.n_embd = GetAtMost<std::uint32_t>(in, kEmbdMax);
  const auto timings = in.Get<std::uint32_t>();
  batch.wire_type = static_cast<WireType>(GetAtMost<std::uint32_t>(in, static_cast<std::uint32_t>(WireType::kBf16)));
  batch.first_stage = GetAtMost<std::uint16_t>(in, kStageIndexMax);
  batch.last_stage = GetAtMost<std::uint16_t>(in, kStageIndexMax);
  frame.timings = GetTimings(in, timings);
  const bool sane = rows >= 1 && rows <= kRowsMax && batch.first_stage <= batch.last_stage;
  if (in.failed() || !sane) return BrokenFrame("the head of a batch is out of range");
  const std::uint64_t values = static_cast<std::uint64_t>(rows) * batch.n_embd;
  const std::size_t exponents = HasRowExponents(batch.n_embd, batch.wire_type) ? rows : 0;
  if (in.remaining() != rows * kRowBytes + exponents + values * WireTypeBytes(batch.wire_type)) {
    return BrokenFrame("a batch's length is not that of its rows");
  }

  batch.rows.resize(rows);
  for (BatchRow& row : batch.rows) {
    const auto sequence = in.Get<std::uint32_t>();
    row.sequence = static_cast<SequenceId>(sequence & ~kOutputBit);
    row.output = (sequence & kOutputBit) != 0;
    row.position = GetNonNegative(in);
    row.generation = in.Get<GenerationId>();
  }
  batch.tokens = GetTokens(in, rows);
  if (batch.n_embd > 0 && !in.failed()) {
    const std::span<const std::uint8_t> row_exponents = in.Take(exponents);
    batch.hidden.resize(static_cast<std::size_t>(values));
    DecodeTensor(in.Take(values * WireTypeBytes(batch.wire_type)), batch.wire_type, batch.hidden);
    if (!ScaleRows(row_exponents, batch)) return BrokenFrame("a row's exponent is out of range");
  }
  if (!in.AtEnd()) return BrokenFrame("a batch has a negative token or position");
  return frame;
}

SamplingParams GetSampling(ByteReader& in) {
  SamplingParams p;
  p.temperature = in.Get<float>();
  p.top_k = in.Get<std::int32_t>();
  p.top_p = in.Get<float>();
  p.min_p = in.Get<float>();
  p.typical_p = in.Get<float>();
  p.penalty_last_n = in.Get<std::int32_t>();
  p.repeat_penalty = in.Get<float>();
  p.frequency_penalty = in.Get<float>();
  p.presence_penalty = in.Get<float>();
  p.seed = in.Get<std::uint64_t>();
  p.logprobs = in.Get<std::int32_t>();
  const auto flags = GetAtMost<std::uint8_t>(in, kIgnoreEndBit | kGrammarLazyBit);
  p.ignore_end = (flags & kIgnoreEndBit) != 0;
  p.grammar_lazy = (flags & kGrammarLazyBit) != 0;
  p.logit_bias.resize(in.GetCount(kLogitBiasMax, kLogitBiasBytes));
  for (LogitBias& entry : p.logit_bias) {
    entry.token = in.Get<TokenId>();
    entry.bias = in.Get<float>();
  }
  p.grammar = in.GetText(in.GetCount(kGrammarBytesMax, 1));
  p.grammar_triggers.resize(in.GetCount(kGrammarTriggersMax, kTriggerBytesMin));
  for (GrammarTrigger& trigger : p.grammar_triggers) {
    trigger.token = in.Get<TokenId>();
    trigger.pattern = in.GetText(in.GetCount(kGrammarBytesMax, 1));
  }
  p.preserved_tokens = GetTokens(in, in.GetCount(kPreservedTokensMax, sizeof(TokenId)));
  p.grammar_prefill = GetTokens(in, in.GetCount(kGrammarPrefillMax, sizeof(TokenId)));
  return p;
}

Result<ControlOp> GetOpen(ByteReader& in) {
  OpenSequence op;
  op.sequence = GetNonNegative(in);
  op.generation = in.Get<GenerationId>();
  op.emitted = in.Get<std::uint32_t>();
  op.sampling = GetSampling(in);
  op.history = GetTokens(in, in.GetCount(kHistoryMax, sizeof(TokenId)));
  if (in.failed() || op.emitted > op.history.size()) return BrokenFrame("an Open is cut short or out of range");
  if (const Status valid = Validate(op.sampling); !valid.ok()) return BrokenFrame(valid.error().message);
  return ControlOp(std::move(op));
}

// A failure of the reader shows at the caller.
Result<ControlOp> GetOp(ByteReader& in) {
  switch (static_cast<OpKind>(in.Get<std::uint8_t>())) {
    case OpKind::kOpen: return GetOpen(in);
    case OpKind::kRewind: {
      RewindSequence op;
      op.sequence = GetNonNegative(in);
      op.position = GetNonNegative(in);
      op.stage = in.Get<StageIndex>();
      if (op.stage < kAllStages || op.stage > kStageIndexMax) in.Fail();
      return ControlOp(op);
    }
    case OpKind::kCopy: {
      CopySequence op;
      op.from = GetNonNegative(in);
      op.to = GetNonNegative(in);
      op.position = GetNonNegative(in);
      return ControlOp(op);
    }
    case OpKind::kClose: {
      CloseSequence op;
      op.sequence = GetNonNegative(in);
      op.generation = in.Get<GenerationId>();
      return ControlOp(op);
    }
  }
  return BrokenFrame("an unknown operation");
}

Result<ControlMessage> DecodeControl(ByteReader& in) {
  ControlMessage control;
  const std::uint32_t count = in.GetCount(kControlsMax, kControlOpBytesMin);
  for (std::uint32_t i = 0; i < count; ++i) {
    SHOAL_ASSIGN_OR_RETURN(ControlOp op, GetOp(in));
    if (in.failed()) break;
    control.ops.push_back(std::move(op));
  }
  if (!in.AtEnd()) return BrokenFrame("a Control is too long, too short or out of range");
  return control;
}

SampledToken GetSampled(ByteReader& in) {
  SampledToken sampled;
  sampled.token = GetNonNegative(in);
  sampled.logprob = in.Get<float>();
  sampled.end = GetAtMost<std::uint8_t>(in, 1) != 0;
  sampled.alternatives.resize(in.CheckCount(in.Get<std::uint8_t>(), kLogprobsMax, kTokenLogprobBytes));
  for (TokenLogprob& alternative : sampled.alternatives) {
    alternative.token = GetNonNegative(in);
    alternative.logprob = in.Get<float>();
  }
  return sampled;
}

Result<ResultMessage> DecodeResult(ByteReader& in) {
  ResultMessage result;
  result.batch = in.Get<BatchId>();
  const auto rows = in.Get<std::uint32_t>();
  const auto timings = in.Get<std::uint32_t>();
  result.timings = GetTimings(in, timings);
  result.rows.resize(in.CheckCount(rows, kRowsMax, kRowResultBytesMin));
  for (RowResult& row : result.rows) {
    row.sequence = GetNonNegative(in);
    row.position = GetNonNegative(in);
    row.generation = in.Get<GenerationId>();
    row.sampled = GetSampled(in);
  }
  if (!in.AtEnd()) return BrokenFrame("a Result is too long, too short or out of range");
  return result;
}

Result<FailureMessage> DecodeFailure(ByteReader& in) {
  FailureMessage failure;
  failure.batch = in.Get<BatchId>();
  failure.generation = in.Get<GenerationId>();
  failure.stage = GetNonNegative(in);
  const auto code = in.Get<std::uint8_t>();
  failure.message = in.GetText(in.GetCount(kFailureBytesMax, 1));
  if (!in.AtEnd() || code < 1 || code > kErrorCodes.size()) return BrokenFrame("a Failure is out of range");
  failure.code = kErrorCodes[code - 1U];
  if (!IsValidUtf8(failure.message)) return BrokenFrame("a Failure's message is not UTF-8");
  return failure;
}

Result<InventoryMessage> DecodeInventory(ByteReader& in) {
  InventoryMessage inventory;
  inventory.stage = GetNonNegative(in);
  std::uint32_t tokens_left = kInventoryTokensMax;
  SequenceId last = -1;
  const std::uint32_t count = in.GetCount(kInventorySequencesMax, kHeldSequenceBytesMin);
  for (std::uint32_t i = 0; i < count && !in.failed(); ++i) {
    HeldSequence held;
    held.sequence = GetNonNegative(in);
    held.log_from = GetNonNegative(in);
    held.tokens = GetTokens(in, in.GetCount(tokens_left, sizeof(TokenId)));
    if (held.sequence <= last || held.log_from > static_cast<Position>(held.tokens.size())) in.Fail();
    last = held.sequence;
    tokens_left -= static_cast<std::uint32_t>(held.tokens.size());
    inventory.sequences.push_back(std::move(held));
  }
  if (!in.AtEnd() || inventory.stage > kStageIndexMax) {
    return BrokenFrame("an Inventory is too long, too short or out of range");
  }
  return inventory;
}

template <typename T>
Result<DecodedFrame> WithHeader(const FrameHeader& header, Result<T> message) {
  if (!message.ok()) return std::move(message).error();
  return DecodedFrame{header, std::move(message).value()};
}

}  // namespace

Result<DecodedFrame> DecodeFrame(std::span<const std::uint8_t> bytes) {
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrame(bytes));
  ByteReader in(FramePayload(bytes));
  switch (header.type) {
    case FrameType::kBatch: return WithHeader(header, DecodeBatch(in));
    case FrameType::kControl: return WithHeader(header, DecodeControl(in));
    case FrameType::kResult: return WithHeader(header, DecodeResult(in));
    case FrameType::kFailure: return WithHeader(header, DecodeFailure(in));
    case FrameType::kInventory: return WithHeader(header, DecodeInventory(in));
    default: return BrokenFrame("a frame that is not the pipeline's");
  }
}

}  // namespace shoal
