// Messages to frames. Knows the layout, not who reads it.
#include <algorithm>
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

using Bytes = std::vector<std::uint8_t>;

// The bytes of a Batch's payload, hidden states and all.
std::uint64_t BatchBytes(std::uint64_t rows, std::uint64_t n_embd, WireType type, std::uint64_t timings) {
  const std::uint64_t row_bytes = kRowBytes + EncodedHiddenBytes(static_cast<std::uint32_t>(n_embd), type);
  return kBatchHeadBytes + kTimingBytes * timings + row_bytes * rows;
}

void PutTimings(ByteWriter& out, std::span<const StageTiming> timings) {
  for (const StageTiming& timing : timings) {
    out.Put(timing.compute_us);
    out.Put(timing.wait_us);
    out.Put(timing.wire_us);
  }
}

void PutCounted(ByteWriter& out, std::string_view text) {
  out.Put(static_cast<std::uint32_t>(text.size()));
  out.PutText(text);
}

void PutCounted(ByteWriter& out, const std::vector<TokenId>& tokens) {
  out.Put(static_cast<std::uint32_t>(tokens.size()));
  out.PutArray(std::span<const TokenId>(tokens));
}

void PutSampling(ByteWriter& out, const SamplingParams& p) {
  out.Put(p.temperature);
  out.Put(p.top_k);
  out.Put(p.top_p);
  out.Put(p.min_p);
  out.Put(p.typical_p);
  out.Put(p.penalty_last_n);
  out.Put(p.repeat_penalty);
  out.Put(p.frequency_penalty);
  out.Put(p.presence_penalty);
  out.Put(p.seed);
  out.Put(p.logprobs);
  out.Put(static_cast<std::uint8_t>((p.ignore_end ? kIgnoreEndBit : 0) | (p.grammar_lazy ? kGrammarLazyBit : 0)));
  out.Put(static_cast<std::uint32_t>(p.logit_bias.size()));
  for (const LogitBias& entry : p.logit_bias) {
    out.Put(entry.token);
    out.Put(entry.bias);
  }
  PutCounted(out, p.grammar);
  out.Put(static_cast<std::uint32_t>(p.grammar_triggers.size()));
  for (const GrammarTrigger& trigger : p.grammar_triggers) {
    out.Put(trigger.token);
    PutCounted(out, trigger.pattern);
  }
  PutCounted(out, p.preserved_tokens);
  PutCounted(out, p.grammar_prefill);
}

void PutOp(ByteWriter& out, const OpenSequence& op) {
  SHOAL_CHECK(op.sequence >= 0 && op.history.size() <= kHistoryMax && op.emitted <= op.history.size());
  out.Put(static_cast<std::uint8_t>(OpKind::kOpen));
  out.Put(op.sequence);
  out.Put(op.generation);
  out.Put(op.emitted);
  PutSampling(out, op.sampling);
  PutCounted(out, op.history);
}

void PutOp(ByteWriter& out, const RewindSequence& op) {
  SHOAL_CHECK(op.sequence >= 0 && op.position >= 0 && op.stage >= kAllStages && op.stage <= kStageIndexMax);
  out.Put(static_cast<std::uint8_t>(OpKind::kRewind));
  out.Put(op.sequence);
  out.Put(op.position);
  out.Put(op.stage);
}

void PutOp(ByteWriter& out, const CopySequence& op) {
  SHOAL_CHECK(op.from >= 0 && op.to >= 0 && op.position >= 0);
  out.Put(static_cast<std::uint8_t>(OpKind::kCopy));
  out.Put(op.from);
  out.Put(op.to);
  out.Put(op.position);
}

void PutOp(ByteWriter& out, const CloseSequence& op) {
  SHOAL_CHECK(op.sequence >= 0);
  out.Put(static_cast<std::uint8_t>(OpKind::kClose));
  out.Put(op.sequence);
  out.Put(op.generation);
}

void CheckBatch(const BatchMessage& batch, std::size_t timings) {
  const std::size_t rows = batch.rows.size();
  SHOAL_CHECK(rows >= 1 && rows <= kRowsMax && timings <= kTimingsMax && batch.n_embd <= kEmbdMax);
  SHOAL_CHECK(batch.first_stage >= 0 && batch.first_stage <= batch.last_stage && batch.last_stage <= kStageIndexMax);
  SHOAL_CHECK(batch.tokens.size() == rows);
  if (batch.encoded.empty()) {
    SHOAL_CHECK(batch.hidden.size() == rows * batch.n_embd);
  } else {
    SHOAL_CHECK(batch.hidden.empty());
    SHOAL_CHECK(batch.encoded.size() == rows * EncodedHiddenBytes(batch.n_embd, batch.wire_type));
  }
}

std::size_t OpBytes(const ControlOp& op) {
  const auto* open = std::get_if<OpenSequence>(&op);
  if (open == nullptr) return 16;
  const SamplingParams& p = open->sampling;
  const std::size_t tokens = open->history.size() + p.preserved_tokens.size() + p.grammar_prefill.size();
  std::size_t bytes = 128 + sizeof(TokenId) * tokens + p.grammar.size() + kLogitBiasBytes * p.logit_bias.size();
  for (const GrammarTrigger& trigger : p.grammar_triggers) bytes += kTriggerBytesMin + trigger.pattern.size();
  return bytes;
}

// f16: an exponent for each row, then the rows times 2^-exponent.
void PutHidden(const BatchMessage& batch, Bytes& frame) {
  if (!batch.encoded.empty()) {
    frame.insert(frame.end(), batch.encoded.begin(), batch.encoded.end());
    return;
  }
  if (!HasRowExponents(batch.n_embd, batch.wire_type)) return EncodeTensor(batch.hidden, batch.wire_type, frame);
  const std::span<const float> hidden(batch.hidden);
  const std::size_t first = frame.size();
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    frame.push_back(F16RowExponent(hidden.subspan(i * batch.n_embd, batch.n_embd)));
  }
  std::vector<float> scaled;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    std::span<const float> row = hidden.subspan(i * batch.n_embd, batch.n_embd);
    if (const int exponent = frame[first + i]; exponent > 0) {
      const float factor = std::ldexp(1.0F, -exponent);
      scaled.assign(row.begin(), row.end());
      for (float& value : scaled) value *= factor;
      row = scaled;
    }
    EncodeTensor(row, batch.wire_type, frame);
  }
}

}  // namespace

std::size_t EncodedHiddenBytes(std::uint32_t n_embd, WireType type) {
  return (HasRowExponents(n_embd, type) ? 1 : 0) + n_embd * WireTypeBytes(type);
}

std::span<const std::uint8_t> EncodedHidden(std::span<const std::uint8_t> frame, const BatchMessage& batch) {
  const std::size_t bytes = batch.rows.size() * EncodedHiddenBytes(batch.n_embd, batch.wire_type);
  SHOAL_CHECK(bytes <= frame.size());
  return frame.last(bytes);
}

Status CheckBatchFits(std::int64_t rows, std::int64_t n_embd, WireType type) {
  if (n_embd < 1 || n_embd > kEmbdMax) {
    return Error{ErrorCode::kUnsupported, "hidden states of " + std::to_string(n_embd) + " values cannot be sent; " +
                                              std::to_string(kEmbdMax) + " is the limit"};
  }
  if (rows < 1 || rows > kRowsMax) {
    return Error{ErrorCode::kInvalidArgument, "micro-batches of " + std::to_string(rows) + " rows; 1 to " +
                                                  std::to_string(kRowsMax) + " are possible"};
  }
  const auto bytes = [&](std::int64_t n) {
    return kFrameHeaderBytes +
           BatchBytes(static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(n_embd), type, kTimingsMax);
  };
  if (bytes(rows) <= kFrameBytesMax) return {};
  const std::uint64_t rows_max = (kFrameBytesMax - bytes(0)) / (bytes(1) - bytes(0));
  return Error{ErrorCode::kInvalidArgument,
               "micro-batches of " + std::to_string(rows) + " rows with " + std::to_string(n_embd) +
                   " values each do not fit a frame; use at most " + std::to_string(rows_max) + " rows"};
}

std::vector<std::uint8_t> EncodeBatch(const BatchMessage& batch, std::span<const StageTiming> timings, Epoch epoch) {
  CheckBatch(batch, timings.size());
  Bytes frame = StartFrame(BatchBytes(batch.rows.size(), batch.n_embd, batch.wire_type, timings.size()));
  ByteWriter out(frame);
  out.Put(batch.batch);
  out.Put(static_cast<std::uint32_t>(batch.rows.size()));
  out.Put(batch.n_embd);
  out.Put(static_cast<std::uint32_t>(timings.size()));
  out.Put(static_cast<std::uint32_t>(batch.wire_type));
  out.Put(static_cast<std::uint16_t>(batch.first_stage));
  out.Put(static_cast<std::uint16_t>(batch.last_stage));
  PutTimings(out, timings);
  for (const BatchRow& row : batch.rows) {
    SHOAL_CHECK(row.sequence >= 0 && row.position >= 0);
    out.Put(static_cast<std::uint32_t>(row.sequence) | (row.output ? kOutputBit : 0U));
    out.Put(row.position);
    out.Put(row.generation);
  }
  out.PutArray(std::span<const TokenId>(batch.tokens));
  PutHidden(batch, frame);
  SealFrame(FrameType::kBatch, epoch, frame);
  return frame;
}

std::vector<std::uint8_t> EncodeControl(const ControlMessage& control, Epoch epoch) {
  SHOAL_CHECK(control.ops.size() <= kControlsMax);
  std::size_t bytes_max = sizeof(std::uint32_t);
  for (const ControlOp& op : control.ops) bytes_max += OpBytes(op);
  Bytes frame = StartFrame(bytes_max);
  ByteWriter out(frame);
  out.Put(static_cast<std::uint32_t>(control.ops.size()));
  for (const ControlOp& op : control.ops) std::visit([&](const auto& kind) { PutOp(out, kind); }, op);
  SealFrame(FrameType::kControl, epoch, frame);
  return frame;
}

std::vector<std::vector<std::uint8_t>> EncodeControls(std::vector<ControlOp> ops, Epoch epoch) {
  std::vector<Bytes> frames;
  ControlMessage control;
  std::size_t bytes = kFrameHeaderBytes + sizeof(std::uint32_t);
  const auto finish = [&] {
    frames.push_back(EncodeControl(control, epoch));
    control.ops.clear();
    bytes = kFrameHeaderBytes + sizeof(std::uint32_t);
  };
  for (ControlOp& op : ops) {
    const std::size_t op_bytes = OpBytes(op);
    if (control.ops.size() == kControlsMax || bytes + op_bytes > kFrameBytesMax) finish();
    bytes += op_bytes;
    control.ops.push_back(std::move(op));
  }
  if (!control.ops.empty()) finish();
  return frames;
}

std::vector<std::uint8_t> EncodeResult(const ResultMessage& result, Epoch epoch) {
  SHOAL_CHECK(result.rows.size() <= kRowsMax && result.timings.size() <= kTimingsMax);
  std::size_t bytes = 16 + kTimingBytes * result.timings.size();
  for (const RowResult& row : result.rows) {
    bytes += kRowResultBytesMin + kTokenLogprobBytes * row.sampled.alternatives.size();
  }
  Bytes frame = StartFrame(bytes);
  ByteWriter out(frame);
  out.Put(result.batch);
  out.Put(static_cast<std::uint32_t>(result.rows.size()));
  out.Put(static_cast<std::uint32_t>(result.timings.size()));
  PutTimings(out, result.timings);
  for (const RowResult& row : result.rows) {
    const SampledToken& sampled = row.sampled;
    SHOAL_CHECK(row.sequence >= 0 && row.position >= 0 && sampled.alternatives.size() <= kLogprobsMax);
    out.Put(row.sequence);
    out.Put(row.position);
    out.Put(row.generation);
    out.Put(sampled.token);
    out.Put(sampled.logprob);
    out.Put(static_cast<std::uint8_t>(sampled.end ? 1 : 0));
    out.Put(static_cast<std::uint8_t>(sampled.alternatives.size()));
    for (const TokenLogprob& alternative : sampled.alternatives) {
      out.Put(alternative.token);
      out.Put(alternative.logprob);
    }
  }
  SealFrame(FrameType::kResult, epoch, frame);
  return frame;
}

std::vector<std::uint8_t> EncodeFailure(const FailureMessage& failure, Epoch epoch) {
  SHOAL_CHECK(failure.stage >= 0);
  const auto code = std::find(kErrorCodes.begin(), kErrorCodes.end(), failure.code);
  SHOAL_CHECK(code != kErrorCodes.end());
  const std::string text = ValidUtf8(failure.message, kFailureBytesMax);
  Bytes frame = StartFrame(25 + text.size());
  ByteWriter out(frame);
  out.Put(failure.batch);
  out.Put(failure.generation);
  out.Put(failure.stage);
  out.Put(static_cast<std::uint8_t>(code - kErrorCodes.begin() + 1));
  PutCounted(out, text);
  SealFrame(FrameType::kFailure, epoch, frame);
  return frame;
}

std::vector<std::uint8_t> EncodeInventory(const InventoryMessage& inventory, Epoch epoch) {
  SHOAL_CHECK(inventory.stage >= 0 && inventory.stage <= kStageIndexMax);
  SHOAL_CHECK(inventory.sequences.size() <= kInventorySequencesMax);
  std::size_t tokens = 0;
  for (const HeldSequence& held : inventory.sequences) tokens += held.tokens.size();
  SHOAL_CHECK(tokens <= kInventoryTokensMax);
  Bytes frame = StartFrame(8 + kHeldSequenceBytesMin * inventory.sequences.size() + sizeof(TokenId) * tokens);
  ByteWriter out(frame);
  out.Put(inventory.stage);
  out.Put(static_cast<std::uint32_t>(inventory.sequences.size()));
  for (const HeldSequence& held : inventory.sequences) {
    out.Put(held.sequence);
    out.Put(held.log_from);
    PutCounted(out, held.tokens);
  }
  SealFrame(FrameType::kInventory, epoch, frame);
  return frame;
}

}  // namespace shoal
