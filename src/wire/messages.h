// What stages tell each other, as structs and as frames. Every length is checked against a limit before any allocation.
//
// The order of a link is the order of effect: a Control before a Batch takes effect on the KV cache before it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "sample/params.h"
#include "wire/frame.h"
#include "wire/tensor.h"

namespace shoal {

inline constexpr std::uint32_t kRowsMax = 4096;          // rows of one micro-batch
inline constexpr std::uint32_t kEmbdMax = 65536;         // values of one hidden state
inline constexpr std::uint32_t kHistoryMax = 1U << 20;   // tokens of an Open's history
inline constexpr std::uint32_t kControlsMax = 1024;      // operations of one Control frame
inline constexpr std::uint32_t kTimingsMax = 1024;       // stages whose timings one frame carries
inline constexpr std::uint32_t kFailureBytesMax = 4096;  // of a failure's message
inline constexpr std::uint32_t kInventorySequencesMax = 256;
inline constexpr std::uint32_t kInventoryTokensMax = 8U << 20;  // of all sequences together
inline constexpr StageIndex kStageIndexMax = 4095;
inline constexpr StageIndex kAllStages = -1;

// One token's place. `output`: sample after it (last stage), unless its token is not the one that was sampled last, or
// the last of the Open's history, or ended the text: then it was a guess, and the result has no row for it.
struct BatchRow {
  SequenceId sequence = 0;
  Position position = 0;
  bool output = false;
  GenerationId generation = 0;
  bool operator==(const BatchRow&) const = default;
};

// One micro-batch of T rows. It runs on the stages first_stage to last_stage, both included; the last of them sends the
// result. Each row carries its token to every stage, so that a stage knows what its KV cache holds.
//
// Up to stage first_stage - 1 there are no hidden states: the stages before that one pass it on, that one adds the
// hidden states that it sent for these rows before (a replay). From first_stage on each sends its output along.
struct BatchMessage {
  BatchId batch = 0;
  StageIndex first_stage = 0, last_stage = kStageIndexMax;  // kStageIndexMax: to the end
  std::vector<BatchRow> rows;                               // [T], 1 <= T <= kRowsMax
  std::vector<TokenId> tokens;                              // [T]
  std::uint32_t n_embd = 0;                                 // 0: no hidden states
  WireType wire_type = WireType::kF16;
  std::vector<float> hidden;  // f32 [T, n_embd] row-major; encoded as wire_type
  // For EncodeBatch in place of `hidden`: what EncodedHidden gave of these rows. DecodeFrame leaves it empty.
  std::vector<std::uint8_t> encoded;
  bool operator==(const BatchMessage&) const = default;
};

// A generation takes a slot: the last stage makes its sampler. `history` is the prompt and what was emitted before;
// the last `emitted` tokens of it were sampled, so that grammar and penalties continue where they were.
struct OpenSequence {
  SequenceId sequence = 0;
  GenerationId generation = 0;
  SamplingParams sampling;
  std::vector<TokenId> history;
  std::uint32_t emitted = 0;
  bool operator==(const OpenSequence&) const = default;
};
// Forgets positions >= position, on one stage or on all.
struct RewindSequence {
  SequenceId sequence = 0;
  Position position = 0;
  StageIndex stage = kAllStages;
  bool operator==(const RewindSequence&) const = default;
};
// Makes positions [0, position) of `to` the same as those of `from`; `to` is empty before.
struct CopySequence {
  SequenceId from = 0, to = 0;
  Position position = 0;
  bool operator==(const CopySequence&) const = default;
};
// The generation is over: drops its sampler, keeps the KV cache (a later request may continue it).
struct CloseSequence {
  SequenceId sequence = 0;
  GenerationId generation = 0;
  bool operator==(const CloseSequence&) const = default;
};
using ControlOp = std::variant<OpenSequence, RewindSequence, CopySequence, CloseSequence>;

struct ControlMessage {
  std::vector<ControlOp> ops;
  bool operator==(const ControlMessage&) const = default;
};

// What one stage spent on one micro-batch, also if it only passed it on; the result carries all of them, in stage
// order.
struct StageTiming {
  std::uint32_t compute_us = 0;  // in the engine
  std::uint32_t wait_us = 0;     // idle before this micro-batch arrived
  std::uint32_t wire_us = 0;     // encoding, decoding and sending
  bool operator==(const StageTiming&) const = default;
};

struct RowResult {
  SequenceId sequence = 0;
  GenerationId generation = 0;
  Position position = 0;  // of the sampled token: the row's position + 1
  SampledToken sampled;
  bool operator==(const RowResult&) const = default;
};
// Sent for every micro-batch, also when nothing was sampled: it opens the in-flight window.
struct ResultMessage {
  BatchId batch = 0;
  std::vector<RowResult> rows;
  std::vector<StageTiming> timings;
  bool operator==(const ResultMessage&) const = default;
};

// A stage could not run `batch`; its rows are lost on every stage from `stage` on. `generation` != 0: only that
// generation failed (say, a grammar that does not compile) and the micro-batch as such went on.
struct FailureMessage {
  BatchId batch = 0;
  GenerationId generation = 0;
  StageIndex stage = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // when encoded it becomes valid UTF-8, cut between characters to kFailureBytesMax
  bool operator==(const FailureMessage&) const = default;
};

// What a stage's KV cache holds in one sequence: these tokens at positions 0, 1, ...; and the hidden states it sent of
// the positions from `log_from` on (tokens.size(): of none).
struct HeldSequence {
  SequenceId sequence = 0;
  Position log_from = 0;
  std::vector<TokenId> tokens;
  bool operator==(const HeldSequence&) const = default;
};
// The first a stage sends to the head. A sequence that is not named is empty there.
struct InventoryMessage {
  StageIndex stage = 0;
  std::vector<HeldSequence> sequences;  // ascending
  bool operator==(const InventoryMessage&) const = default;
};

// The stages' timings so far ride along with a BatchMessage.
struct BatchFrame {
  BatchMessage batch;
  std::vector<StageTiming> timings;
};

// Whether every micro-batch of up to `rows` rows with hidden states of `n_embd` values can be sent as `type`: to be
// asked before a model runs in stages. Errors: kInvalidArgument, saying how many rows fit; kUnsupported (n_embd).
Status CheckBatchFits(std::int64_t rows, std::int64_t n_embd, WireType type);

// Whole frames, each in one allocation. Precondition (CHECK): within the limits above and kFrameBytesMax; sequences and
// positions >= 0; rows.size(), tokens.size() and hidden.size() agree. Sampling parameters and token ids are not checked
// here, since a client chose them: DecodeFrame refuses what Validate does, and token ids below 0.
std::vector<std::uint8_t> EncodeBatch(const BatchMessage& batch, std::span<const StageTiming> timings, Epoch epoch);
std::vector<std::uint8_t> EncodeControl(const ControlMessage& control, Epoch epoch);
// Any number of operations in as many frames as the limits demand, in their order; none for no operations. Each alone
// is within the limits (CHECK).
std::vector<std::vector<std::uint8_t>> EncodeControls(std::vector<ControlOp> ops, Epoch epoch);
std::vector<std::uint8_t> EncodeResult(const ResultMessage& result, Epoch epoch);
std::vector<std::uint8_t> EncodeFailure(const FailureMessage& failure, Epoch epoch);
std::vector<std::uint8_t> EncodeInventory(const InventoryMessage& inventory, Epoch epoch);

// The bytes of one hidden state of `n_embd` values, its exponent included.
std::size_t EncodedHiddenBytes(std::uint32_t n_embd, WireType type);
// The hidden states in `frame`, which EncodeBatch made of `batch`: with f16 first the exponents of all rows; then the
// values row by row.
std::span<const std::uint8_t> EncodedHidden(std::span<const std::uint8_t> frame, const BatchMessage& batch);

struct DecodedFrame {
  FrameHeader header;
  std::variant<BatchFrame, ControlMessage, ResultMessage, FailureMessage, InventoryMessage> message;
};
// Errors: kCorrupt (also: trailing bytes, a count over its limit, a negative id or position, sampling parameters that
// Validate refuses), kUnsupported (another version). Hidden states and log-probabilities may be anything, NaN included.
// Allocates at most a small multiple of bytes.size().
Result<DecodedFrame> DecodeFrame(std::span<const std::uint8_t> bytes);

}  // namespace shoal
