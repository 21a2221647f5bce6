// One message of every kind and shape, for the tests of this module and the fuzzer's corpus.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "runtime/rng.h"
#include "wire/messages.h"

namespace shoal::test_messages {

using Bytes = std::vector<std::uint8_t>;

inline BatchMessage TokenBatch(std::uint32_t rows) {
  BatchMessage batch;
  batch.batch = 0x1122334455667788;
  for (std::uint32_t i = 0; i < rows; ++i) {
    batch.rows.push_back({static_cast<SequenceId>(i % 3), static_cast<Position>(i), i + 1 == rows, 99 + i});
    batch.tokens.push_back(static_cast<TokenId>(i * 7));
  }
  return batch;
}

// Values that every wire type holds exactly, so that messages compare equal after a round trip.
inline BatchMessage HiddenBatch(std::uint32_t rows, std::uint32_t n_embd, WireType type) {
  BatchMessage batch = TokenBatch(rows);
  batch.n_embd = n_embd;
  batch.wire_type = type;
  Rng rng(rows + n_embd);
  for (std::uint32_t i = 0; i < rows * n_embd; ++i) {
    batch.hidden.push_back(static_cast<float>(static_cast<int>(rng.Below(255)) - 127) / 16.0F);
  }
  return batch;
}

// For stages 2 and 3, on its way to stage 1.
inline BatchMessage PartBatch() {
  BatchMessage batch = TokenBatch(2);
  batch.first_stage = 2;
  batch.last_stage = 3;
  return batch;
}

inline std::vector<StageTiming> Timings(std::uint32_t stages) {
  std::vector<StageTiming> timings;
  for (std::uint32_t i = 0; i < stages; ++i) timings.push_back({i + 1, i * 1000, 0xFFFFFFFFU - i});
  return timings;
}

inline SamplingParams FullSampling() {
  SamplingParams p;
  p.temperature = 1.25F;
  p.top_k = 50;
  p.top_p = 0.5F;
  p.min_p = 0.125F;
  p.typical_p = 0.75F;
  p.penalty_last_n = -1;
  p.repeat_penalty = 1.5F;
  p.frequency_penalty = -0.5F;
  p.presence_penalty = 0.25F;
  p.logit_bias = {{3, 4.5F}, {7, -std::numeric_limits<float>::infinity()}};
  p.seed = 0xFEDCBA9876543210;
  p.logprobs = 5;
  p.ignore_end = true;
  p.grammar = "root ::= \"a\" | \"\xC3\xA9\"";
  p.grammar_lazy = true;
  p.grammar_triggers = {{11, ""}, {-1, "<tool_call>"}};
  p.preserved_tokens = {11, 12};
  p.grammar_prefill = {13};
  return p;
}

inline ControlMessage AllControls() {
  OpenSequence open{2, 77, FullSampling(), {1, 2, 3, 4}, 2};
  OpenSequence plain{0, 78, SamplingParams{}, {}, 0};
  return {{open, RewindSequence{1, 9}, RewindSequence{2, 0, 4}, CopySequence{0, 3, 5}, CloseSequence{2, 77}, plain}};
}

inline ResultMessage FullResult() {
  ResultMessage result;
  result.batch = 5;
  result.rows.push_back(
      {1, 42, 17, {1234, true, -0.5F, {{1234, -0.5F}, {5, -std::numeric_limits<float>::infinity()}}}});
  result.rows.push_back({2, 43, 1, {6, false, 0.0F, {}}});
  result.timings = Timings(3);
  return result;
}

inline InventoryMessage FullInventory() { return {3, {{0, 2, {5, 6, 7}}, {2, 0, {}}, {7, 1, {9}}}}; }

inline FailureMessage FullFailure() { return {5, 42, 2, ErrorCode::kKvFull, "no room left: caf\xC3\xA9"}; }

// Small valid frames, with names for the corpus files.
inline std::vector<std::pair<std::string, Bytes>> SmallFrames() {
  return {{"batch_tokens", EncodeBatch(TokenBatch(3), {}, 1)},
          {"batch_f32", EncodeBatch(HiddenBatch(2, 5, WireType::kF32), Timings(2), 2)},
          {"batch_f16", EncodeBatch(HiddenBatch(3, 4, WireType::kF16), Timings(1), 3)},
          {"batch_bf16", EncodeBatch(HiddenBatch(1, 9, WireType::kBf16), {}, 4)},
          {"batch_part", EncodeBatch(PartBatch(), Timings(1), 4)},
          {"control", EncodeControl(AllControls(), 5)},
          {"control_empty", EncodeControl({}, 6)},
          {"result", EncodeResult(FullResult(), 7)},
          {"result_empty", EncodeResult({9, {}, {}}, 8)},
          {"failure", EncodeFailure(FullFailure(), 9)},
          {"inventory", EncodeInventory(FullInventory(), 10)},
          {"inventory_empty", EncodeInventory({}, 11)}};
}

}  // namespace shoal::test_messages
