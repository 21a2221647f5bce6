// A stage over a made-up engine (what it refuses, what it leaves alone), and the whole of SmolLM2 as two real stages.
#include "stage/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_models.h"

namespace shoal {
namespace {

using testing::HasSubstr;

// Counts rows; its hidden state is the input plus one.
class FakeEngine final : public Engine {
 public:
  FakeEngine(bool first, bool last) : first_(first), last_(last), lengths_(4, 0) {
    options_.sequences_max = 4;
    options_.batch_rows_max = 8;
    options_.output_rows_max = 2;
  }
  const EngineOptions& options() const override { return options_; }
  EngineMemory memory() const override { return {}; }
  std::int32_t n_embd() const override { return 2; }
  std::int32_t n_vocab() const override { return 3; }
  bool is_first() const override { return first_; }
  bool is_last() const override { return last_; }
  Status Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) override {
    hidden.clear();
    for (const TokenId token : tokens) {
      if (token < 0 || token >= 3) return Error{ErrorCode::kInvalidArgument, "token"};
      hidden.insert(hidden.end(), 2, static_cast<float>(token));
    }
    return {};
  }
  Status Forward(std::span<const EngineRow> rows, std::span<const float> hidden, std::vector<float>& out) override {
    if (gone_) return Error{ErrorCode::kUnavailable, "gone"};
    if (full_) {
      for (int i = 0; i < kept_on_failure_; ++i) ++lengths_[static_cast<std::size_t>(rows[i].sequence)];
      return Error{ErrorCode::kKvFull, "full"};
    }
    for (const EngineRow& row : rows) ++lengths_[static_cast<std::size_t>(row.sequence)];
    out.assign(hidden.begin(), hidden.end());
    for (float& v : out) v += 1;
    if (last_) {
      out.clear();
      for (const EngineRow& row : rows) out.insert(out.end(), row.output ? 3U : 0U, 0.0F);
    }
    return {};
  }
  void Abort() override { ++aborts_; }
  Status Rewind(SequenceId sequence, Position position) override {
    auto& length = lengths_[static_cast<std::size_t>(sequence)];
    length = std::min(length, position);
    return {};
  }
  Status Copy(SequenceId from, SequenceId to, Position position) override {
    if (position > Length(from)) return Error{ErrorCode::kInvalidArgument, "too far"};
    lengths_[static_cast<std::size_t>(to)] = position;
    return {};
  }
  Position Length(SequenceId sequence) const override { return lengths_[static_cast<std::size_t>(sequence)]; }

  EngineOptions options_;
  bool first_, last_;
  bool full_ = false, gone_ = false;
  int kept_on_failure_ = 0;
  int aborts_ = 0;
  std::vector<Position> lengths_;
};

BatchMessage Tokens(std::vector<BatchRow> rows) {
  BatchMessage batch;
  batch.batch = 9;
  batch.tokens.assign(rows.size(), 1);
  batch.rows = std::move(rows);
  return batch;
}

class FakeStage : public testing::Test {
 protected:
  void Make(bool first, bool last) {
    auto engine = std::make_unique<FakeEngine>(first, last);
    engine_ = engine.get();
    stage_ = Stage::Over(std::move(engine), nullptr);
  }
  ErrorCode Refusal(const BatchMessage& batch) {
    const std::vector<Position> before = engine_->lengths_;
    const auto out = stage_->Forward(batch);
    EXPECT_EQ(engine_->lengths_, before);
    EXPECT_FALSE(out.ok());
    return out.ok() ? ErrorCode::kInternal : out.error().code;
  }
  FakeEngine* engine_ = nullptr;
  std::unique_ptr<Stage> stage_;
};

TEST_F(FakeStage, RunsRowsThatContinueTheirSequences) {
  Make(true, false);
  auto out = stage_->Forward(Tokens({{1, 0}, {1, 1}, {3, 0}, {1, 2}}));
  ASSERT_TRUE(out.ok()) << out.error().message;
  EXPECT_EQ(out->hidden, std::vector<float>(8, 2.0F));
  EXPECT_TRUE(out->results.empty());
  EXPECT_EQ(engine_->Length(1), 3);
  EXPECT_TRUE(stage_->Forward(Tokens({{1, 3}, {3, 1}})).ok());
}

TEST_F(FakeStage, IsNotUsedAgainOnceItsEngineIsGone) {
  Make(false, false);
  BatchMessage batch = Tokens({{1, 0}});
  batch.n_embd = 2;
  batch.hidden = {1, 2};
  ASSERT_TRUE(stage_->Forward(batch).ok());
  EXPECT_FALSE(stage_->failed());
  engine_->gone_ = true;
  batch.rows[0].position = 1;
  EXPECT_EQ(Refusal(batch), ErrorCode::kUnavailable);
  EXPECT_TRUE(stage_->failed());
}

TEST_F(FakeStage, RefusesWhatDoesNotFit) {
  Make(true, false);
  EXPECT_EQ(Refusal(Tokens({})), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Refusal(Tokens(std::vector<BatchRow>(9, {0, 0}))), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Refusal(Tokens({{0, 1}})), ErrorCode::kInvalidArgument);          // a gap
  EXPECT_EQ(Refusal(Tokens({{0, 0}, {0, 0}})), ErrorCode::kInvalidArgument);  // twice
  EXPECT_EQ(Refusal(Tokens({{4, 0}})), ErrorCode::kInvalidArgument);          // no such sequence
  EXPECT_EQ(Refusal(Tokens({{-1, 0}})), ErrorCode::kInvalidArgument);
  BatchMessage batch = Tokens({{0, 0}});
  batch.tokens[0] = 77;
  EXPECT_EQ(Refusal(batch), ErrorCode::kInvalidArgument);
  batch.tokens = {1, 1};
  EXPECT_EQ(Refusal(batch), ErrorCode::kInvalidArgument);
  batch.tokens.clear();
  batch.n_embd = 2;
  batch.hidden = {1, 2};
  EXPECT_EQ(Refusal(batch), ErrorCode::kInvalidArgument);  // hidden states to the first stage
  engine_->full_ = true;
  EXPECT_EQ(Refusal(Tokens({{0, 0}})), ErrorCode::kKvFull);
}

TEST_F(FakeStage, LaterStagesTakeHiddenStatesOfTheRightWidth) {
  Make(false, false);
  BatchMessage batch;
  batch.rows = {{0, 0}, {0, 1}};
  batch.tokens = {1, 2};
  batch.n_embd = 2;
  batch.hidden = {1, 2, 3, 4};
  auto out = stage_->Forward(batch);
  ASSERT_TRUE(out.ok()) << out.error().message;
  EXPECT_EQ(out->hidden, (std::vector<float>{2, 3, 4, 5}));
  batch.rows = {{0, 2}, {0, 3}};
  batch.n_embd = 3;
  EXPECT_EQ(Refusal(batch), ErrorCode::kInvalidArgument);
  batch.n_embd = 2;
  batch.hidden.pop_back();
  EXPECT_EQ(Refusal(batch), ErrorCode::kInvalidArgument);
}

TEST_F(FakeStage, SeparateCachesTakeOneSequenceABatch) {
  Make(true, false);
  engine_->options_.kv_shared = false;
  EXPECT_EQ(Refusal(Tokens({{0, 0}, {1, 0}})), ErrorCode::kInvalidArgument);
}

TEST_F(FakeStage, TheLastStageLimitsOutputs) {
  Make(true, true);
  EXPECT_EQ(Refusal(Tokens({{0, 0, true}, {1, 0, true}, {2, 0, true}})), ErrorCode::kInvalidArgument);
}

TEST_F(FakeStage, AppliesOperationsInOrderOrNotAtAll) {
  Make(true, false);
  ASSERT_TRUE(stage_->Forward(Tokens({{0, 0}, {0, 1}, {0, 2}})).ok());
  ASSERT_TRUE(stage_->Apply({{CopySequence{0, 1, 3}, RewindSequence{1, 2}, CopySequence{1, 2, 1}}}, 0).ok());
  EXPECT_EQ(engine_->lengths_, (std::vector<Position>{3, 2, 1, 0}));
  for (const ControlOp& bad :
       {ControlOp{RewindSequence{4, 0}}, ControlOp{RewindSequence{0, -1}}, ControlOp{CopySequence{0, 0, 1}},
        ControlOp{CopySequence{0, 9, 1}}, ControlOp{CloseSequence{-1, 1}}, ControlOp{OpenSequence{4, 1, {}, {}, 0}}}) {
    const Status status = stage_->Apply({{RewindSequence{0, 0}, bad}}, 0);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(engine_->lengths_, (std::vector<Position>{3, 2, 1, 0}));
  }
}

TEST_F(FakeStage, AFailedOpenIsReportedOnceWithItsNextRow) {
  Make(true, true);  // without a vocabulary no generation can be opened
  ASSERT_TRUE(stage_->Apply({{OpenSequence{1, 42, {}, {1}, 0}}}, 0).ok());
  auto out = stage_->Forward(Tokens({{0, 0, false, 7}, {1, 0, true, 42}}));
  ASSERT_TRUE(out.ok()) << out.error().message;
  ASSERT_EQ(out->failures.size(), 1U);
  EXPECT_EQ(out->failures[0].generation, 42U);
  EXPECT_EQ(out->failures[0].batch, 9U);
  EXPECT_TRUE(out->results.empty());
  out = stage_->Forward(Tokens({{1, 1, true, 42}}));
  ASSERT_TRUE(out.ok());
  EXPECT_TRUE(out->failures.empty());
}

TEST_F(FakeStage, OutputForAnUnknownGenerationIsAFailure) {
  Make(true, true);
  const auto out = stage_->Forward(Tokens({{1, 0, true, 42}}));
  ASSERT_TRUE(out.ok());
  ASSERT_EQ(out->failures.size(), 1U);
  EXPECT_EQ(out->failures[0].code, ErrorCode::kNotFound);
}

TEST_F(FakeStage, AbortReachesTheEngine) {
  Make(true, false);
  stage_->Abort();
  EXPECT_EQ(engine_->aborts_, 1);
}

// What a worker does with a stage's output: encode it, keep it.
void RunAndKeep(Stage& stage, const BatchMessage& batch) {
  auto out = stage.Forward(batch);
  ASSERT_TRUE(out.ok()) << out.error().message;
  BatchMessage sent = batch;
  sent.n_embd = 2;
  sent.wire_type = WireType::kF16;
  sent.hidden = std::move(out->hidden);
  const auto frame = EncodeBatch(sent, {}, 1);
  stage.Sent(sent.rows, EncodedHidden(frame, sent));
}

TEST_F(FakeStage, KnowsWhatItsCacheHoldsThroughRewindsCopiesAndFailures) {
  Make(true, false);
  EXPECT_TRUE(stage_->Inventory(3).sequences.empty());
  stage_->KeepSent(WireType::kF16, 1 << 20);
  BatchMessage batch = Tokens({{0, 0}, {0, 1}, {0, 2}, {2, 0}});
  batch.tokens = {0, 1, 2, 1};
  RunAndKeep(*stage_, batch);
  EXPECT_EQ(stage_->Inventory(3), (InventoryMessage{3, {{0, 0, {0, 1, 2}}, {2, 0, {1}}}}));
  ASSERT_TRUE(stage_->Apply({{CopySequence{0, 1, 2}, RewindSequence{2, 0}}}, 1).ok());
  EXPECT_EQ(stage_->Inventory(0), (InventoryMessage{0, {{0, 0, {0, 1, 2}}, {1, 0, {0, 1}}}}));
  ASSERT_TRUE(stage_->Apply({{RewindSequence{0, 1, 2}, RewindSequence{1, 1, 1}}}, 1).ok());  // the first is not for us
  EXPECT_EQ(stage_->Inventory(0), (InventoryMessage{0, {{0, 0, {0, 1, 2}}, {1, 0, {0}}}}));
  engine_->full_ = true;
  engine_->kept_on_failure_ = 1;  // rows that stay in the cache
  EXPECT_FALSE(stage_->Forward(Tokens({{0, 3}, {1, 1}})).ok());
  EXPECT_EQ(stage_->Inventory(0), (InventoryMessage{0, {{0, 0, {0, 1, 2}}, {1, 0, {0}}}}));
  EXPECT_EQ(engine_->lengths_, (std::vector<Position>{3, 1, 0, 0}));
  EXPECT_FALSE(stage_->failed());
}

TEST_F(FakeStage, SendsAgainWhatItSentAndNothingElse) {
  Make(true, false);
  BatchMessage batch = Tokens({{0, 0}, {0, 1}});
  batch.tokens = {2, 1};
  BatchMessage again = batch;
  EXPECT_EQ(stage_->Replay(again).error().code, ErrorCode::kNotFound);  // nothing is kept
  stage_->KeepSent(WireType::kF16, 1 << 20);
  RunAndKeep(*stage_, batch);
  EXPECT_GT(stage_->sent_bytes(), 0U);
  EXPECT_LE(stage_->sent_bytes(), Stage::SentBytesMax(engine_->options_, 2, WireType::kF16, 1 << 20));
  stage_->KeepSent(WireType::kF16, 1 << 20);  // the next epoch's worker: all stays
  ASSERT_TRUE(stage_->Replay(again).ok());
  EXPECT_EQ(again.n_embd, 2U);
  const auto decoded = DecodeFrame(EncodeBatch(again, {}, 1));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<BatchFrame>(decoded->message).batch.hidden, (std::vector<float>{3, 3, 2, 2}));
  for (const auto& [rows, tokens] : {std::pair<std::vector<BatchRow>, std::vector<TokenId>>{{{0, 0}}, {1}},
                                     {{{0, 2}}, {1}},
                                     {{{1, 0}}, {2}},
                                     {{{9, 0}}, {2}}}) {
    BatchMessage other = batch;
    other.rows = rows;
    other.tokens = tokens;
    EXPECT_EQ(stage_->Replay(other).error().code, ErrorCode::kNotFound);
  }
  stage_->KeepSent(WireType::kF32, 1 << 20);  // another type: what was kept is of no use
  EXPECT_EQ(stage_->Replay(again).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(stage_->Inventory(0), (InventoryMessage{0, {{0, 2, {2, 1}}}}));
}

TEST_F(FakeStage, TheLastStageKeepsNothing) {
  Make(true, true);
  stage_->KeepSent(WireType::kF16, 1 << 20);
  ASSERT_TRUE(stage_->Forward(Tokens({{0, 0}})).ok());
  EXPECT_EQ(stage_->sent_bytes(), 0U);
  EXPECT_EQ(stage_->Inventory(0), (InventoryMessage{0, {{0, 1, {1}}}}));
}

TEST(StageOpen, RefusesMicroBatchesThatNoFrameHolds) {
  auto model = std::make_shared<ModelFile>();
  model->info.n_layer = 4;
  model->info.n_embd = 65536;
  EngineOptions options;
  options.layers = {0, 2};
  options.batch_rows_max = 4096;
  const auto stage = Stage::Open(model, options, nullptr);
  ASSERT_FALSE(stage.ok());
  EXPECT_EQ(stage.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(stage.error().message, HasSubstr("do not fit a frame"));
}

// Two stages of the real model, frames' contents passed by hand.
class RealStages : public testing::Test {
 protected:
  void SetUp() override {
    auto model = OpenModelFile(TestModelPath("smollm2"));
    ASSERT_TRUE(model.ok()) << model.error().message << "; ./dev model smollm2 fetches this test model";
    auto vocabulary = Vocabulary::Open(*model);
    ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().message;
    vocabulary_ = *vocabulary;
    EngineOptions options;
    options.kv_tokens_max = 256;
    for (const LayerRange layers : {LayerRange{0, 16}, LayerRange{16, 30}}) {
      options.layers = layers;
      auto stage = Stage::Open(*model, options, [this] { return Result(vocabulary_); });
      ASSERT_TRUE(stage.ok()) << stage.error().message;
      stages_.push_back(std::move(stage).value());
    }
  }

  void Apply(const ControlMessage& control) {
    for (const auto& stage : stages_) ASSERT_TRUE(stage->Apply(control, 0).ok());
  }

  Result<StageOutput> Forward(BatchMessage batch) {
    SHOAL_ASSIGN_OR_RETURN(StageOutput first, stages_[0]->Forward(batch));
    batch.n_embd = static_cast<std::uint32_t>(stages_[0]->engine().n_embd());
    batch.hidden = std::move(first.hidden);
    return stages_[1]->Forward(batch);
  }

  // Opens `generation` on `sequence` and emits `n` tokens.
  std::vector<SampledToken> Generate(SequenceId sequence, GenerationId generation, const SamplingParams& params,
                                     const std::vector<TokenId>& prompt, int n) {
    Apply({{RewindSequence{sequence, 0}, OpenSequence{sequence, generation, params, prompt, 0}}});
    std::vector<SampledToken> out;
    std::vector<TokenId> next = prompt;
    Position at = 0;
    for (int i = 0; i < n; ++i) {
      BatchMessage batch;
      batch.tokens = next;
      for (std::size_t k = 0; k < next.size(); ++k) {
        batch.rows.push_back({sequence, at++, k + 1 == next.size(), generation});
      }
      auto result = Forward(batch);
      EXPECT_TRUE(result.ok()) << result.error().message;
      if (!result.ok() || result->results.size() != 1) return out;
      EXPECT_EQ(result->results[0].position, at);
      EXPECT_EQ(result->results[0].generation, generation);
      out.push_back(result->results[0].sampled);
      next = {out.back().token};
    }
    return out;
  }

  std::string Text(const std::vector<SampledToken>& tokens) {
    std::string text;
    for (const SampledToken& t : tokens) text += vocabulary_->Piece(t.token, false);
    return text;
  }

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

TEST_F(RealStages, AnswersAndRepeatsItself) {
  auto prompt = vocabulary_->Tokenize("The capital of France is", true, false);
  ASSERT_TRUE(prompt.ok());
  SamplingParams greedy;
  greedy.temperature = 0;
  greedy.logprobs = 2;
  const auto first = Generate(0, 1, greedy, *prompt, 8);
  ASSERT_EQ(first.size(), 8U);
  EXPECT_THAT(Text(first), HasSubstr("Paris"));
  EXPECT_EQ(first[0].alternatives.size(), 2U);
  EXPECT_LT(first[0].logprob, 0.0F);
  Apply({{CloseSequence{0, 1}}});

  SamplingParams seeded;
  seeded.temperature = 1;
  seeded.seed = 5;
  const auto once = Generate(0, 2, seeded, *prompt, 8);
  const auto again = Generate(0, 3, seeded, *prompt, 8);
  EXPECT_EQ(once, again);
}

// Rows of wrong guesses go through the stages and are rewound: what is sampled is the same to the last digit.
TEST_F(RealStages, NothingIsSampledAfterAWrongGuess) {
  auto prompt = vocabulary_->Tokenize("One two three four one two three", true, false);
  ASSERT_TRUE(prompt.ok());
  SamplingParams params;
  params.temperature = 0.8F;
  params.seed = 3;
  params.logprobs = 1;
  params.repeat_penalty = 1.3F;  // looks back on what was sampled
  params.penalty_last_n = -1;
  const auto expected = Generate(0, 1, params, *prompt, 12);
  ASSERT_EQ(expected.size(), 12U);
  Apply({{CloseSequence{0, 1}}});

  auto position = static_cast<Position>(prompt->size());
  std::vector<SampledToken> got = Generate(0, 2, params, *prompt, 1);
  const auto row = [&](Position at, TokenId token) {
    BatchMessage batch;
    batch.tokens = {token};
    batch.rows = {{0, at, true, 2}};
    auto out = Forward(batch);
    EXPECT_TRUE(out.ok()) << out.error().message;
    EXPECT_TRUE(out->failures.empty());
    return out->results;
  };
  while (got.size() < expected.size()) {
    const auto right = row(position, got.back().token);
    ASSERT_EQ(right.size(), 1U);
    got.push_back(right[0].sampled);
    EXPECT_TRUE(row(position + 1, got.back().token == 7 ? 8 : 7).empty());  // a wrong guess,
    EXPECT_TRUE(row(position + 2, got.back().token).empty());               // and one behind it
    Apply({{RewindSequence{0, ++position}}});
  }
  EXPECT_EQ(got, expected);
}

TEST_F(RealStages, OneGenerationFailsAlone) {
  auto prompt = vocabulary_->Tokenize("Hello", true, false);
  ASSERT_TRUE(prompt.ok());
  SamplingParams broken;
  broken.grammar = "root ::= [";
  SamplingParams good;
  good.temperature = 0;
  Apply({{OpenSequence{0, 1, broken, *prompt, 0}, OpenSequence{1, 2, good, *prompt, 0}}});
  BatchMessage batch;
  for (const SequenceId sequence : {0, 1}) {
    for (std::size_t k = 0; k < prompt->size(); ++k) {
      batch.tokens.push_back((*prompt)[k]);
      batch.rows.push_back(
          {sequence, static_cast<Position>(k), k + 1 == prompt->size(), static_cast<GenerationId>(sequence + 1)});
    }
  }
  const auto out = Forward(batch);
  ASSERT_TRUE(out.ok()) << out.error().message;
  ASSERT_EQ(out->failures.size(), 1U);
  EXPECT_EQ(out->failures[0].generation, 1U);
  ASSERT_EQ(out->results.size(), 1U);
  EXPECT_EQ(out->results[0].generation, 2U);
}

}  // namespace
}  // namespace shoal
