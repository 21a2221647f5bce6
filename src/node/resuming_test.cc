// A generation over heads that are lost: every token once, whatever is lost when.
#include <gtest/gtest.h>

#include <deque>

#include "node/cluster_backend.h"
#include "node/resuming.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{100};

// What the model says is a function of the history alone, so that a lost or doubled token changes all that follow.
TokenId After(const std::vector<TokenId>& history) {
  std::uint32_t hash = 2166136261U;
  for (const TokenId token : history) hash = (hash ^ static_cast<std::uint32_t>(token)) * 16777619U;
  return static_cast<TokenId>(hash % 1000);
}

// One head's life: how many tokens it gives before it ends, and how it ends.
struct Life {
  std::int32_t tokens = 1'000'000;
  Error loss{ErrorCode::kUnavailable, "the head was lost"};
  bool with_token = false;      // the loss comes in the event of the last token
  std::int32_t stop_after = 0;  // > 0: this token ends the answer
  bool says_end = true;         // false: lost before it said so
};

class ScriptedGeneration final : public GenerationHandle {
 public:
  ScriptedGeneration(Life life, GenerateOptions options) : life_(std::move(life)), options_(std::move(options)) {}
  std::int32_t reused_tokens() const override { return 3; }
  std::optional<GenerationEvent> Next(milliseconds) override {
    GenerationEvent event;
    const bool length = options_.tokens_max > 0 && given_ == options_.tokens_max;
    if (over_ || length || given_ == life_.tokens) {
      event.end = !life_.says_end ? GenerationEnd::kError
                  : over_         ? GenerationEnd::kStop
                  : length        ? GenerationEnd::kLength
                                  : GenerationEnd::kError;
      event.error = life_.loss;
      return event;
    }
    event.token = SampledToken{};
    event.token->token = After(options_.prompt);
    options_.prompt.push_back(event.token->token);
    ++given_;
    over_ = event.token->end = static_cast<std::int32_t>(++options_.emitted) == life_.stop_after;
    if (life_.with_token && given_ == life_.tokens) {
      event.end = GenerationEnd::kError;
      event.error = life_.loss;
    }
    return event;
  }

 private:
  const Life life_;
  GenerateOptions options_;
  std::int32_t given_ = 0;
  bool over_ = false;
};

class ResumingTest : public testing::Test {
 protected:
  ResumingTest() {
    options_.prompt = {7, 8, 9};
    options_.tokens_max = 40;
    SetPlaced(true);
  }

  void SetBroken(bool hopeless, bool alone = false) {
    PlacementView view;
    view.record.model = "fish";
    view.record.epoch = 5;
    view.broken = true;
    view.hopeless = hopeless;
    view.reason = "node 'c' is gone; 9 MiB are missing";
    placements_.Set({view}, alone);
  }

  void SetPlaced(bool placed) {
    std::vector<PlacementView> views;
    if (placed) {
      views.emplace_back();
      views.back().record.model = "fish";
      views.back().record.epoch = 5;
    }
    placements_.Set(views);
  }

  std::shared_ptr<const ResumeTarget> Target() {
    return std::make_shared<const ResumeTarget>(
        ResumeTarget{{"fish", 0, context_},
                     placements_,
                     [this](const PlacementRecord&, GenerateOptions options) { return StartAt(std::move(options)); },
                     resumed_,
                     patience_});
  }

  Result<std::unique_ptr<GenerationHandle>> StartAt(GenerateOptions options) {
    ++attempts_;
    if (refusals_ > 0) {
      --refusals_;
      return refusal_;
    }
    EXPECT_EQ(options.prompt.size(), 3U + options.emitted);
    if (options_.tokens_max > 0) {
      EXPECT_EQ(options.tokens_max + static_cast<std::int32_t>(options.emitted), options_.tokens_max);
    }
    Life life;
    if (!lives_.empty()) {
      life = lives_.front();
      lives_.pop_front();
    }
    return std::unique_ptr<GenerationHandle>(std::make_unique<ScriptedGeneration>(life, std::move(options)));
  }

  struct Outcome {
    std::vector<TokenId> tokens;
    GenerationEnd end = GenerationEnd::kCancelled;
    Error error;
  };
  Outcome Run() {
    Outcome outcome;
    auto handle = StartResuming(Target(), options_);
    if (!handle.ok()) {
      outcome.end = GenerationEnd::kError;
      outcome.error = handle.error();
      return outcome;
    }
    for (int i = 0; i < 10'000; ++i) {
      const std::optional<GenerationEvent> event = (*handle)->Next(milliseconds(10));
      if (!event) continue;
      if (event->token) outcome.tokens.push_back(event->token->token);
      if (!event->end) continue;
      outcome.end = *event->end;
      outcome.error = event->error;
      EXPECT_EQ((*handle)->reused_tokens(), 3);
      return outcome;
    }
    ADD_FAILURE() << "it does not end";
    return outcome;
  }

  std::vector<TokenId> Expected(std::size_t count) const {
    std::vector<TokenId> history = options_.prompt;
    for (std::size_t i = 0; i < count; ++i) history.push_back(After(history));
    return {history.begin() + 3, history.end()};
  }

  PlacementTable placements_;
  Counter resumed_;
  GenerateOptions options_;
  std::int32_t context_ = 4096;
  milliseconds patience_ = kPatience;
  std::deque<Life> lives_;
  std::int32_t refusals_ = 0, attempts_ = 0;
  Error refusal_{ErrorCode::kStale, "of an older epoch"};
};

TEST_F(ResumingTest, EveryTokenOnceWhateverIsLost) {
  Life with_token;
  with_token.tokens = 3;
  with_token.with_token = true;
  Life stale;
  stale.tokens = 11;
  stale.loss.code = ErrorCode::kStale;
  Life none;
  none.tokens = 0;
  lives_ = {none, stale, with_token, none};
  const Outcome outcome = Run();
  EXPECT_EQ(outcome.end, GenerationEnd::kLength) << outcome.error.message;
  EXPECT_EQ(outcome.tokens, Expected(40));
  EXPECT_EQ(resumed_.value(), 4U);
}

TEST_F(ResumingTest, WaitsForAPlacementThatRuns) {
  lives_.emplace_back().tokens = 5;
  auto handle = StartResuming(Target(), options_);
  ASSERT_TRUE(handle.ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE((*handle)->Next(milliseconds(10))->token);
  refusals_ = 2;
  EXPECT_FALSE((*handle)->Next(milliseconds(1))) << "no longer than asked for, without an event";
  std::optional<GenerationEvent> event;
  while (!event) event = (*handle)->Next(milliseconds(10));
  ASSERT_TRUE(event->token) << event->error.message;
  EXPECT_EQ(event->token->token, Expected(6).back());
}

TEST_F(ResumingTest, AnEndWhoseNewsWasLostIsAnEnd) {
  Life stop;
  stop.stop_after = 4;
  stop.says_end = false;
  lives_ = {stop};
  Outcome outcome = Run();
  EXPECT_EQ(outcome.end, GenerationEnd::kStop);
  EXPECT_EQ(outcome.tokens, Expected(4));

  Life length;
  length.says_end = false;
  lives_ = {length};
  outcome = Run();
  EXPECT_EQ(outcome.end, GenerationEnd::kLength);
  EXPECT_EQ(outcome.tokens, Expected(40));

  context_ = 13;  // of which the prompt has 3
  options_.tokens_max = 0;
  lives_.emplace_back().tokens = 10;
  outcome = Run();
  EXPECT_EQ(outcome.end, GenerationEnd::kLength);
  EXPECT_EQ(outcome.tokens, Expected(10));
  EXPECT_EQ(resumed_.value(), 0U);
}

TEST_F(ResumingTest, WhatAnotherHeadWouldSayTooEndsIt) {
  lives_.emplace_back().tokens = 2;
  lives_.back().loss = {ErrorCode::kInternal, "the engine failed"};
  Outcome outcome = Run();
  EXPECT_EQ(outcome.end, GenerationEnd::kError);
  EXPECT_EQ(outcome.error.code, ErrorCode::kInternal);
  EXPECT_EQ(outcome.tokens, Expected(2));
  EXPECT_EQ(attempts_, 1);

  refusals_ = 1;
  refusal_ = {ErrorCode::kContextFull, "too long"};
  outcome = Run();
  EXPECT_EQ(outcome.error.code, ErrorCode::kContextFull);
}

// A loss after which the others cannot run the model is said long before patience ends; one that is being mended, or
// that this node alone sees, is not.
TEST_F(ResumingTest, SaysAtOnceWhatCannotGoOn) {
  patience_ = milliseconds(60'000);
  lives_.emplace_back().tokens = 5;
  auto handle = StartResuming(Target(), options_);
  ASSERT_TRUE(handle.ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE((*handle)->Next(milliseconds(10))->token);
  const auto waits_for = [&](milliseconds time) { return !(*handle)->Next(time).has_value(); };
  SetBroken(false);
  EXPECT_TRUE(waits_for(milliseconds(300))) << "it is being replaced";
  SetBroken(true, true);
  EXPECT_TRUE(waits_for(PlacementTable::kHopelessWait + milliseconds(300))) << "this node may be the one cut off";
  SetBroken(true);
  std::optional<GenerationEvent> event;
  for (int i = 0; !event && i < 500; ++i) event = (*handle)->Next(milliseconds(10));
  ASSERT_TRUE(event && event->end == GenerationEnd::kError);
  EXPECT_EQ(event->error.code, ErrorCode::kUnavailable);
  EXPECT_NE(event->error.message.find("9 MiB are missing"), std::string::npos) << event->error.message;
  EXPECT_FALSE(StartResuming(Target(), options_).ok()) << "nor is a new one begun";
  SetPlaced(true);
  EXPECT_TRUE(StartResuming(Target(), options_).ok()) << "until it runs again";
}

TEST_F(ResumingTest, GivesUpInBoundedTime) {
  refusals_ = 1'000'000;
  Outcome outcome = Run();
  EXPECT_EQ(outcome.error.code, ErrorCode::kUnavailable);
  EXPECT_GE(attempts_, 2);

  refusals_ = 0;
  lives_.emplace_back().tokens = 2;
  auto handle = StartResuming(Target(), options_);
  ASSERT_TRUE(handle.ok());
  EXPECT_TRUE((*handle)->Next(milliseconds(10))->token);
  EXPECT_TRUE((*handle)->Next(milliseconds(10))->token);
  SetPlaced(false);
  const std::optional<GenerationEvent> event = (*handle)->Next(milliseconds(10));
  ASSERT_TRUE(event && event->end);
  EXPECT_EQ(*event->end, GenerationEnd::kError);
  EXPECT_EQ(event->error.message, "'fish' is not placed any more");
  EXPECT_EQ(Run().error.message, "'fish' is not placed any more");
}

}  // namespace
}  // namespace shoal
