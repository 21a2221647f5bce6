// Every message there and back, every limit, and every valid frame broken in every byte and cut at every length.
#include "wire/messages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/rng.h"
#include "wire/test_messages.h"

namespace shoal {
namespace {

using namespace test_messages;

// A payload under a sound header, to get past the checksum.
Bytes Sealed(FrameType type, Bytes payload) {
  payload.insert(payload.begin(), kFrameHeaderBytes, 0);
  SealFrame(type, 1, payload);
  return payload;
}

// A valid frame with `bytes` written at `payload_at` of its payload, sealed again.
Bytes Patched(Bytes frame, std::size_t payload_at, const Bytes& bytes) {
  std::copy(bytes.begin(), bytes.end(), frame.begin() + static_cast<std::ptrdiff_t>(kFrameHeaderBytes + payload_at));
  SealFrame(static_cast<FrameType>(frame[5]), 1, frame);
  return frame;
}

void ExpectCorrupt(const Bytes& frame, const std::string& what) {
  const auto decoded = DecodeFrame(frame);
  ASSERT_FALSE(decoded.ok()) << what;
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt) << what;
}

TEST(BatchFrame, RoundTrip) {
  const BatchMessage batches[] = {TokenBatch(1),
                                  TokenBatch(kRowsMax),
                                  HiddenBatch(1, 1, WireType::kF32),
                                  HiddenBatch(64, 576, WireType::kF32),
                                  HiddenBatch(64, 576, WireType::kF16),
                                  HiddenBatch(7, 640, WireType::kBf16),
                                  HiddenBatch(1, kEmbdMax, WireType::kF16),
                                  PartBatch()};
  for (const BatchMessage& batch : batches) {
    for (const std::uint32_t stages : {0U, 1U, 30U, kTimingsMax}) {
      const Bytes frame = EncodeBatch(batch, Timings(stages), 0xABCDEF0123456789);
      const auto decoded = DecodeFrame(frame);
      ASSERT_TRUE(decoded.ok()) << decoded.error().message;
      EXPECT_EQ(decoded->header.type, FrameType::kBatch);
      EXPECT_EQ(decoded->header.epoch, 0xABCDEF0123456789U);
      const auto& message = std::get<BatchFrame>(decoded->message);
      EXPECT_EQ(message.batch, batch);
      EXPECT_EQ(message.timings, Timings(stages));
    }
  }
}

TEST(BatchFrame, IsCompact) {
  const BatchMessage batch = HiddenBatch(64, 576, WireType::kF16);
  EXPECT_EQ(EncodeBatch(batch, Timings(3), 1).size(), kFrameHeaderBytes + 28 + 3 * 12 + 64 * 20 + 64 + 64 * 576 * 2);
}

TEST(BatchFrame, HiddenF32IsBitExactNanIncluded) {
  BatchMessage batch = HiddenBatch(2, 512, WireType::kF32);
  Rng rng(3);
  for (float& value : batch.hidden) {
    const auto bits = static_cast<std::uint32_t>(rng.Next());
    std::memcpy(&value, &bits, sizeof value);
  }
  batch.hidden[0] = std::numeric_limits<float>::quiet_NaN();
  batch.hidden[1] = -std::numeric_limits<float>::infinity();
  const auto decoded = DecodeFrame(EncodeBatch(batch, {}, 1));
  ASSERT_TRUE(decoded.ok());
  const auto& hidden = std::get<BatchFrame>(decoded->message).batch.hidden;
  ASSERT_EQ(hidden.size(), batch.hidden.size());
  EXPECT_EQ(std::memcmp(hidden.data(), batch.hidden.data(), hidden.size() * sizeof(float)), 0);
}

TEST(BatchFrame, RefusesWhatIsOutOfRange) {
  const Bytes hidden = EncodeBatch(HiddenBatch(2, 4, WireType::kF32), Timings(1), 1);
  const Bytes tokens = EncodeBatch(TokenBatch(2), {}, 1);
  ASSERT_TRUE(DecodeFrame(Patched(hidden, 0, {})).ok());
  ExpectCorrupt(Patched(hidden, 8, {0, 0, 0, 0}), "no rows");
  ExpectCorrupt(Patched(hidden, 8, {1, 0, 0, 0}), "fewer rows than there are");
  ExpectCorrupt(Patched(hidden, 8, {3, 0, 0, 0}), "more rows than there are");
  ExpectCorrupt(Patched(hidden, 8, {0xFF, 0xFF, 0xFF, 0xFF}), "more rows than the limit");
  ExpectCorrupt(Patched(hidden, 12, {5, 0, 0, 0}), "longer rows");
  ExpectCorrupt(Patched(hidden, 12, {0xFF, 0xFF, 0xFF, 0xFF}), "n_embd over its limit");
  ExpectCorrupt(Patched(hidden, 12, {1, 0, 1, 0}), "n_embd just over its limit");
  ExpectCorrupt(Patched(hidden, 12, {0, 0, 0, 0}), "tokens and the bytes of hidden states");
  ExpectCorrupt(Patched(hidden, 16, {0xFF, 0xFF, 0xFF, 0xFF}), "timings over their limit");
  ExpectCorrupt(Patched(hidden, 16, {2, 0, 0, 0}), "more timings than there are");
  ExpectCorrupt(Patched(hidden, 20, {1, 0, 0, 0}), "f16 of the length of f32");
  ExpectCorrupt(Patched(hidden, 20, {3, 0, 0, 0}), "an unknown wire type");
  ExpectCorrupt(Patched(hidden, 24, {2, 0, 1, 0}), "a last stage before the first");
  ExpectCorrupt(Patched(hidden, 24, {0, 0, 0, 0x10}), "a last stage over the limit");
  ExpectCorrupt(Patched(hidden, 28 + 12 + 4, {0, 0, 0, 0x80}), "a negative position");
  ExpectCorrupt(Patched(tokens, 28 + 2 * 16 + 4, {0xFF, 0xFF, 0xFF, 0xFF}), "a negative token");
}

// rows * n_embd overflows 32 bits: the length must still be held against the bytes that are there.
TEST(BatchFrame, ProductsDoNotWrap) {
  Bytes payload(28 + 20);
  const auto put = [&](std::size_t at, std::uint32_t value) { std::memcpy(&payload[at], &value, sizeof value); };
  put(8, kRowsMax);
  put(12, kEmbdMax);
  put(20, static_cast<std::uint32_t>(WireType::kF32));
  ExpectCorrupt(Sealed(FrameType::kBatch, payload), "2^30 bytes that are not there");
}

TEST(BatchFrameDeathTest, EncodingOverTheLimitsIsABug) {
  EXPECT_DEATH(EncodeBatch(BatchMessage{}, {}, 1), "rows >= 1");
  EXPECT_DEATH(EncodeBatch(TokenBatch(kRowsMax + 1), {}, 1), "kRowsMax");
  EXPECT_DEATH(EncodeBatch(TokenBatch(1), Timings(kTimingsMax + 1), 1), "kTimingsMax");
  BatchMessage tokenless = HiddenBatch(1, 2, WireType::kF16);
  tokenless.tokens.clear();
  EXPECT_DEATH(EncodeBatch(tokenless, {}, 1), "tokens.size");
  BatchMessage both = HiddenBatch(1, 2, WireType::kF16);
  both.encoded.resize(5);
  EXPECT_DEATH(EncodeBatch(both, {}, 1), "hidden.empty");
  BatchMessage backwards = PartBatch();
  backwards.last_stage = 1;
  EXPECT_DEATH(EncodeBatch(backwards, {}, 1), "first_stage");
  BatchMessage uneven = HiddenBatch(2, 2, WireType::kF16);
  uneven.hidden.pop_back();
  EXPECT_DEATH(EncodeBatch(uneven, {}, 1), "hidden.size");
  BatchMessage negative = TokenBatch(1);
  negative.rows[0].sequence = -1;
  EXPECT_DEATH(EncodeBatch(negative, {}, 1), "row.sequence >= 0");
  const BatchMessage huge = HiddenBatch(kRowsMax, 4096, WireType::kF32);
  EXPECT_DEATH(EncodeBatch(huge, {}, 1), "kFrameBytesMax");
}

TEST(CheckBatchFits, SaysWhatTheEncoderWouldTake) {
  EXPECT_TRUE(CheckBatchFits(64, 16384, WireType::kF32).ok());
  EXPECT_TRUE(CheckBatchFits(kRowsMax, 4096, WireType::kF16).ok());
  const Status wide = CheckBatchFits(kRowsMax, 4096, WireType::kF32);
  ASSERT_FALSE(wide.ok());
  EXPECT_EQ(wide.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(wide.error().message.find("at most 4090 rows"), std::string::npos) << wide.error().message;
  EXPECT_TRUE(CheckBatchFits(4090, 4096, WireType::kF32).ok());
  EXPECT_FALSE(CheckBatchFits(4091, 4096, WireType::kF32).ok());
  const BatchMessage largest = HiddenBatch(4090, 4096, WireType::kF32);
  EXPECT_LE(EncodeBatch(largest, Timings(kTimingsMax), 1).size(), kFrameBytesMax);
  EXPECT_FALSE(CheckBatchFits(0, 8, WireType::kF16).ok());
  EXPECT_FALSE(CheckBatchFits(kRowsMax + 1, 8, WireType::kF16).ok());
  EXPECT_EQ(CheckBatchFits(1, kEmbdMax + 1, WireType::kF16).error().code, ErrorCode::kUnsupported);
}

TEST(ControlFrame, RoundTrip) {
  for (const ControlMessage& control : {AllControls(), ControlMessage{}}) {
    const auto decoded = DecodeFrame(EncodeControl(control, 12));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(decoded->header.epoch, 12U);
    EXPECT_EQ(std::get<ControlMessage>(decoded->message), control);
  }
}

TEST(ControlFrame, LimitsThemselvesAreAllowed) {
  ControlMessage many;
  many.ops.assign(kControlsMax, RewindSequence{1, 2});
  OpenSequence large;
  large.history.assign(kHistoryMax, 5);
  large.emitted = kHistoryMax;
  large.sampling.grammar.assign(kGrammarBytesMax, 'x');
  large.sampling.logit_bias.assign(kLogitBiasMax, {1, 2});
  large.sampling.grammar_triggers.assign(kGrammarTriggersMax, {-1, "abc"});
  large.sampling.preserved_tokens.assign(kPreservedTokensMax, 9);
  large.sampling.grammar_prefill.assign(kGrammarPrefillMax, 9);
  for (const ControlMessage& control : {many, ControlMessage{{large}}}) {
    const auto decoded = DecodeFrame(EncodeControl(control, 1));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(std::get<ControlMessage>(decoded->message), control);
  }
}

// The operations of the frames, in order.
std::vector<ControlOp> Joined(const std::vector<Bytes>& frames) {
  std::vector<ControlOp> ops;
  for (const Bytes& frame : frames) {
    const auto decoded = DecodeFrame(frame);
    EXPECT_TRUE(decoded.ok()) << decoded.error().message;
    if (!decoded.ok()) continue;
    const auto& part = std::get<ControlMessage>(decoded->message).ops;
    ops.insert(ops.end(), part.begin(), part.end());
  }
  return ops;
}

TEST(ControlFrame, MoreThanOneFrameHoldsIsSplitInOrder) {
  EXPECT_TRUE(EncodeControls({}, 1).empty());
  std::vector<ControlOp> many;
  for (std::uint32_t i = 0; i < 2 * kControlsMax + 1; ++i)
    many.emplace_back(RewindSequence{1, static_cast<Position>(i)});
  const auto by_count = EncodeControls(many, 1);
  EXPECT_EQ(by_count.size(), 3U);
  EXPECT_EQ(Joined(by_count), many);

  OpenSequence large;
  large.history.assign(kHistoryMax, 5);
  const std::vector<ControlOp> wide(17, large);  // 4 MiB each, and 16 are a little more than a frame
  const auto by_bytes = EncodeControls(wide, 1);
  EXPECT_EQ(by_bytes.size(), 2U);
  EXPECT_EQ(Joined(by_bytes), wide);
}

TEST(ControlFrame, RefusesSamplingThatIsNotValid) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<SamplingParams> bad(12);
  bad[0].temperature = kNan;
  bad[1].top_p = kNan;
  bad[2].min_p = kNan;
  bad[3].typical_p = kNan;
  bad[4].repeat_penalty = kNan;
  bad[5].frequency_penalty = kNan;
  bad[6].presence_penalty = kNan;
  bad[7].logit_bias = {{1, kNan}};
  bad[8].top_k = -1;
  bad[9].logit_bias.resize(kLogitBiasMax + 1);
  bad[10].preserved_tokens = {-1};
  bad[11].grammar_prefill = {-1};
  for (const SamplingParams& sampling : bad) {
    OpenSequence open;
    open.sampling = sampling;
    ExpectCorrupt(EncodeControl({{open}}, 1), "sampling " + std::to_string(&sampling - bad.data()));
  }
}

TEST(ControlFrame, RefusesWhatIsOutOfRange) {
  ExpectCorrupt(Sealed(FrameType::kControl, {}), "no count");
  ExpectCorrupt(Sealed(FrameType::kControl, {1, 0, 0, 0}), "no operation");
  ExpectCorrupt(Sealed(FrameType::kControl, {0, 0, 0, 0, 0}), "a trailing byte");
  ExpectCorrupt(Sealed(FrameType::kControl, {0xFF, 0xFF, 0xFF, 0xFF}), "count over its limit");
  const Bytes rewind = EncodeControl({{RewindSequence{1, 2}}}, 1);
  ASSERT_TRUE(DecodeFrame(rewind).ok());
  ExpectCorrupt(Patched(rewind, 4, {0}), "operation 0");
  ExpectCorrupt(Patched(rewind, 4, {5}), "operation 5");
  ExpectCorrupt(Patched(rewind, 8, {0x80}), "a negative sequence");
  ExpectCorrupt(Patched(rewind, 12, {0x80}), "a negative position");
  ExpectCorrupt(Patched(rewind, 13, {0xFE, 0xFF, 0xFF, 0xFF}), "stage -2");
  ExpectCorrupt(Patched(rewind, 13, {0, 0x10, 0, 0}), "a stage over the limit");
  OpenSequence open;
  open.history = {1, 2};
  ExpectCorrupt(Patched(EncodeControl({{open}}, 1), 4 + 1 + 4 + 8, {3, 0, 0, 0}), "more emitted than history");
  open.history = {1, -2};
  ExpectCorrupt(EncodeControl({{open}}, 1), "a negative token");
}

TEST(ControlFrameDeathTest, EncodingOverTheLimitsIsABug) {
  ControlMessage many;
  many.ops.assign(kControlsMax + 1, RewindSequence{});
  EXPECT_DEATH(EncodeControl(many, 1), "kControlsMax");
  OpenSequence open;
  open.emitted = 1;
  EXPECT_DEATH(EncodeControl({{open}}, 1), "emitted");
}

TEST(ResultFrame, RoundTrip) {
  ResultMessage many;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(kRowsMax); ++i) {
    many.rows.push_back(
        {i, 5, i + 1, {i, i % 2 == 0, -1.5F, std::vector<TokenLogprob>(i % (kLogprobsMax + 1), {i, -2.0F})}});
  }
  for (const ResultMessage& result : {FullResult(), ResultMessage{}, many}) {
    const auto decoded = DecodeFrame(EncodeResult(result, 3));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(std::get<ResultMessage>(decoded->message), result);
  }
}

TEST(ResultFrame, ANanLogprobPasses) {
  ResultMessage result = FullResult();
  result.rows[0].sampled.logprob = std::numeric_limits<float>::quiet_NaN();
  const auto decoded = DecodeFrame(EncodeResult(result, 3));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(std::isnan(std::get<ResultMessage>(decoded->message).rows[0].sampled.logprob));
}

TEST(ResultFrame, RefusesWhatIsOutOfRange) {
  ResultMessage one;
  one.rows.push_back({1, 2, 3, {4, true, -1, {{5, -2}}}});
  const Bytes frame = EncodeResult(one, 1);
  constexpr std::size_t kRow = 16;  // no timings
  ASSERT_TRUE(DecodeFrame(Patched(frame, 0, {})).ok());
  ExpectCorrupt(Patched(frame, 8, {2, 0, 0, 0}), "more rows than there are");
  ExpectCorrupt(Patched(frame, 8, {0, 0, 0, 0}), "trailing rows");
  ExpectCorrupt(Patched(frame, 8, {0xFF, 0xFF, 0xFF, 0xFF}), "rows over their limit");
  ExpectCorrupt(Patched(frame, 12, {0xFF, 0xFF, 0xFF, 0xFF}), "timings over their limit");
  ExpectCorrupt(Patched(frame, kRow + 3, {0x80}), "a negative sequence");
  ExpectCorrupt(Patched(frame, kRow + 7, {0x80}), "a negative position");
  ExpectCorrupt(Patched(frame, kRow + 19, {0x80}), "a negative token");
  ExpectCorrupt(Patched(frame, kRow + 24, {2}), "end is neither 0 nor 1");
  ExpectCorrupt(Patched(frame, kRow + 25, {21}), "alternatives over their limit");
  ExpectCorrupt(Patched(frame, kRow + 25, {2}), "more alternatives than there are");
  ExpectCorrupt(Patched(frame, kRow + 26 + 3, {0x80}), "a negative alternative");
}

TEST(FailureFrame, RoundTripOfEveryCode) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    FailureMessage failure = FullFailure();
    failure.code = static_cast<ErrorCode>(code);
    const auto decoded = DecodeFrame(EncodeFailure(failure, 3));
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(std::get<FailureMessage>(decoded->message), failure);
  }
}

TEST(FailureFrame, ALongMessageIsCut) {
  FailureMessage failure = FullFailure();
  failure.message.assign(kFailureBytesMax + 100, 'x');
  const auto decoded = DecodeFrame(EncodeFailure(failure, 3));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<FailureMessage>(decoded->message).message, std::string(kFailureBytesMax, 'x'));
}

TEST(FailureFrame, TextBecomesUtf8AndIsCutBetweenCharacters) {
  FailureMessage failure = FullFailure();
  failure.message = "bad \xFF name";
  auto decoded = DecodeFrame(EncodeFailure(failure, 3));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(std::get<FailureMessage>(decoded->message).message, "bad \xEF\xBF\xBD name");
  const std::string fits(kFailureBytesMax - 2, 'x');
  failure.message = fits + "\xE2\x82\xAC";
  decoded = DecodeFrame(EncodeFailure(failure, 3));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(std::get<FailureMessage>(decoded->message).message, fits);
}

TEST(FailureFrame, RefusesWhatIsOutOfRange) {
  const Bytes frame = EncodeFailure(FullFailure(), 1);
  ExpectCorrupt(Patched(frame, 19, {0x80}), "a negative stage");
  ExpectCorrupt(Patched(frame, 20, {0}), "code 0");
  ExpectCorrupt(Patched(frame, 20, {14}), "code 14");
  ExpectCorrupt(Patched(frame, 21, {0xFF, 0xFF, 0xFF, 0xFF}), "a message over its limit");
  ExpectCorrupt(Patched(frame, 21, {1}), "trailing text");
  ExpectCorrupt(Patched(frame, 25, {0xFF}), "text that is not UTF-8");
}

// A replay sends again what was sent, to the bit, also where encoding anew would round differently.
TEST(BatchFrame, EncodedHiddenStatesAreSentAsTheyAre) {
  for (const WireType type : {WireType::kF32, WireType::kF16, WireType::kBf16}) {
    BatchMessage batch = HiddenBatch(3, 7, type);
    Rng rng(11);
    for (float& value : batch.hidden) value = static_cast<float>(rng.Uniform() * 3e5 - 1e5);
    const Bytes frame = EncodeBatch(batch, {}, 1);
    const auto encoded = EncodedHidden(frame, batch);
    ASSERT_EQ(encoded.size(), 3 * EncodedHiddenBytes(7, type));
    BatchMessage again = batch;
    again.hidden.clear();
    again.encoded.assign(encoded.begin(), encoded.end());
    EXPECT_EQ(EncodeBatch(again, {}, 1), frame);
  }
  EXPECT_EQ(EncodedHiddenBytes(0, WireType::kF16), 0U);
}

TEST(InventoryFrame, RoundTrip) {
  InventoryMessage many;
  for (SequenceId i = 0; i < static_cast<SequenceId>(kInventorySequencesMax); ++i)
    many.sequences.push_back({i, 1, {i}});
  InventoryMessage large;
  large.stage = kStageIndexMax;
  large.sequences = {{3, 0, std::vector<TokenId>(kInventoryTokensMax, 8)}};
  for (const InventoryMessage& inventory : {FullInventory(), InventoryMessage{}, many, large}) {
    const auto decoded = DecodeFrame(EncodeInventory(inventory, 3));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(std::get<InventoryMessage>(decoded->message), inventory);
  }
}

TEST(InventoryFrame, RefusesWhatIsOutOfRange) {
  const Bytes frame = EncodeInventory({0, {{1, 1, {5, 6}}, {2, 0, {7}}}}, 1);
  ASSERT_TRUE(DecodeFrame(frame).ok());
  ExpectCorrupt(Patched(frame, 0, {0, 0x10}), "a stage over the limit");
  ExpectCorrupt(Patched(frame, 3, {0x80}), "a negative stage");
  ExpectCorrupt(Patched(frame, 4, {3}), "more sequences than there are");
  ExpectCorrupt(Patched(frame, 4, {1}), "sequences behind the last");
  ExpectCorrupt(Patched(frame, 4, {0xFF, 0xFF, 0xFF, 0xFF}), "sequences over the limit");
  ExpectCorrupt(Patched(frame, 8, {2}), "a sequence twice");
  ExpectCorrupt(Patched(frame, 8, {3}), "sequences out of order");
  ExpectCorrupt(Patched(frame, 12, {3}), "sent from behind the end");
  ExpectCorrupt(Patched(frame, 15, {0x80}), "a negative position");
  ExpectCorrupt(Patched(frame, 16, {0xFF, 0xFF, 0xFF, 0xFF}), "tokens over the limit");
  ExpectCorrupt(Patched(frame, 23, {0x80}), "a negative token");
}

TEST(InventoryFrameDeathTest, EncodingOverTheLimitsIsABug) {
  InventoryMessage many;
  many.sequences.resize(kInventorySequencesMax + 1);
  EXPECT_DEATH(EncodeInventory(many, 1), "kInventorySequencesMax");
}

TEST(DecodeFrame, RefusesEveryTruncationAndAnythingBehind) {
  for (const auto& [name, frame] : SmallFrames()) {
    for (std::size_t n = 0; n < frame.size(); ++n) {
      ExpectCorrupt(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(n)), name);
      if (n < kFrameHeaderBytes) continue;
      Bytes sealed(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(n));
      SealFrame(static_cast<FrameType>(frame[5]), 1, sealed);
      ExpectCorrupt(sealed, name + ", sealed again");
    }
    for (const std::uint8_t garbage : {0, 1, 255}) {
      Bytes longer = frame;
      longer.push_back(garbage);
      ExpectCorrupt(longer, name);
      SealFrame(static_cast<FrameType>(frame[5]), 1, longer);
      ExpectCorrupt(longer, name + ", sealed again");
    }
  }
}

TEST(DecodeFrame, NoticesEveryFlippedBitButThoseOfTheEpoch) {
  for (const auto& [name, frame] : SmallFrames()) {
    for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
      Bytes flipped = frame;
      flipped[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
      const bool is_epoch = bit / 8 >= 16 && bit / 8 < 24;
      EXPECT_EQ(DecodeFrame(flipped).ok(), is_epoch) << name << " bit " << bit;
    }
  }
}

TEST(DecodeFrame, AnotherVersionIsUnsupported) {
  Bytes frame = EncodeControl({}, 1);
  frame[4] = 2;
  EXPECT_EQ(DecodeFrame(frame).error().code, ErrorCode::kUnsupported);
}

// Gemma 3 has such rows: one value beyond f16's range must cost the others nothing.
TEST(MessagesTest, RowsBeyondTheRangeOfF16KeepTheirPrecision) {
  BatchMessage batch;
  batch.n_embd = 3;
  batch.wire_type = WireType::kF16;
  batch.rows = {BatchRow{0, 0, false, 1}, BatchRow{0, 1, false, 1}, BatchRow{0, 2, false, 1}};
  batch.tokens = {1, 2, 3};
  batch.hidden = {98407.0F, -1.5F, 0.25F, 1.0F, 2.0F, 65504.0F, 3.0e38F, -3.0e38F, 1.0F};
  auto decoded = DecodeFrame(EncodeBatch(batch, {}, 1));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  const std::vector<float>& got = std::get<BatchFrame>(decoded->message).batch.hidden;
  ASSERT_EQ(got.size(), batch.hidden.size());
  for (std::size_t i = 0; i < 8; ++i) { EXPECT_NEAR(got[i], batch.hidden[i], std::abs(batch.hidden[i]) / 2048) << i; }
}

}  // namespace
}  // namespace shoal
