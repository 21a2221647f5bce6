// Guesses and their judgement alone, and the scheduler with drafts one micro-batch at a time; simulation_test.cc and
// the simulator try them against everything else.
#include "schedule/drafts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "schedule/test_scheduler.h"

namespace shoal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<StageTiming> Took(std::uint32_t us) { return {{us / 2, 0, 0}, {us / 2, 0, 0}}; }

// Of a model whose slowest stage takes this share of a token's time.
DraftJudge JudgeOf(double slowest_share, std::int64_t elapsed_us = 0) {
  DraftJudge judge;
  const auto slowest = static_cast<std::uint32_t>(1000 * slowest_share);
  for (int i = 0; i < 5; ++i)
    judge.LearnTime(std::vector<StageTiming>{{slowest, 0, 0}, {1000 - slowest, 0, 0}}, elapsed_us, false);
  return judge;
}

TEST(GuessNext, IsWhatFollowedTheLongestEndThatWasThereBefore) {
  const auto guess = [](std::vector<TokenId> tokens) { return GuessNext(tokens); };
  EXPECT_FALSE(guess({}).has_value());
  EXPECT_FALSE(guess({5}).has_value());
  EXPECT_FALSE(guess({1, 2, 3}).has_value());
  EXPECT_EQ(guess({7, 7})->token, 7);
  const auto one = guess({1, 9, 2, 1});
  EXPECT_EQ(one->token, 9);
  EXPECT_EQ(one->match, 1);
  // 3 4 is longer than the later 4.
  const auto two = guess({3, 4, 5, 4, 6, 3, 4});
  EXPECT_EQ(two->token, 5);
  EXPECT_EQ(two->match, 2);
  EXPECT_EQ(guess({4, 5, 4, 6, 4})->token, 6);  // of equals the latest
}

TEST(GuessNext, LooksForNoMoreThanItCounts) {
  std::vector<TokenId> tokens;
  tokens.reserve(100);
  for (int i = 0; i < 100; ++i) tokens.push_back(i % 20);
  const auto guess = GuessNext(tokens);
  EXPECT_EQ(guess->token, 0);
  EXPECT_EQ(guess->match, kDraftMatchMax);
  // What stood too far back is not looked at.
  std::vector<TokenId> long_ago = {1, 2};
  for (int i = 0; i < 20'000; ++i) long_ago.push_back(1000 + i);
  long_ago.push_back(1);
  EXPECT_FALSE(GuessNext(long_ago).has_value());
}

TEST(DraftJudge, LearnsHowOftenGuessesAreRight) {
  DraftJudge judge;
  EXPECT_LT(judge.Chance({0, 1}), 0.5);
  EXPECT_GT(judge.Chance({0, 8}), judge.Chance({0, 3}));
  for (int i = 0; i < 1000; ++i) judge.Learn({0, 8}, i % 4 == 0);
  EXPECT_NEAR(judge.Chance({0, 8}), 0.25, 0.05);
  EXPECT_LT(judge.Chance({0, 1}), 0.5);  // each length for itself
  for (int i = 0; i < 100; ++i) judge.Learn({0, 8}, true);
  EXPECT_GT(judge.Chance({0, 8}), 0.7);  // what was is forgotten
}

TEST(DraftJudge, PaysWhereRowsDoNotBecomeSlowerByIt) {
  DraftJudge judge;
  EXPECT_FALSE(judge.Pays(1, 0));  // nothing to compare with
  for (int i = 0; i < 5; ++i) judge.LearnTime(Took(1000), 0, false);
  EXPECT_TRUE(judge.Pays(0.5, 0));  // to be tried
  for (int i = 0; i < 5; ++i) judge.LearnTime(Took(1300), 0, true);
  EXPECT_TRUE(judge.Pays(0.5, 0));
  EXPECT_FALSE(judge.Pays(0.2, 0));
  for (int i = 0; i < 5; ++i) judge.LearnTime(Took(2000), 0, true);
  EXPECT_FALSE(judge.Pays(1, 0));  // two rows at a time take as long as two in turn: one core
}

TEST(DraftJudge, AsksForMoreWhereTheRightRowWouldWait) {
  EXPECT_TRUE(JudgeOf(0.5).Pays(0.1, 0));  // while one stage computes the row the other is free for the guess
  EXPECT_FALSE(JudgeOf(0.8).Pays(0.7, 0));
  EXPECT_TRUE(JudgeOf(0.8).Pays(0.8, 0));
  EXPECT_FALSE(JudgeOf(1).Pays(0.99, 0));  // a stage alone
  EXPECT_FALSE(JudgeOf(0.5).Pays(0.4, 1));
  EXPECT_TRUE(JudgeOf(0.5).Pays(0.6, 1));
  EXPECT_FALSE(JudgeOf(0.5).Pays(0.6, 2));  // the more are ahead, the longer it would
  EXPECT_TRUE(JudgeOf(0.5).Pays(0.7, 2));
  // While a token is between stages these wait.
  EXPECT_TRUE(JudgeOf(0.8, 2000).Pays(0.1, 0));
  EXPECT_FALSE(JudgeOf(0.8, 2000).Pays(0.2, 1));
  EXPECT_TRUE(JudgeOf(0.8, 2000).Pays(0.4, 1));
}

TEST(DraftJudge, MeasuresAgain) {
  DraftJudge judge;
  for (int i = 0; i < 5; ++i) judge.LearnTime(Took(1000), 0, false);
  // Answers grow: some row goes alone now and then, or all beside drafts would look slow.
  int alone = 0;
  for (int i = 0; i < 1000; ++i) {
    const bool pays = judge.Pays(0.9, 0);
    alone += !pays;
    judge.LearnTime(Took(1000 + 4 * static_cast<std::uint32_t>(i)), 0, pays);
  }
  EXPECT_GE(alone, 10);
  EXPECT_LE(alone, 50);
  // A device that was slow for a while gets another try.
  for (int i = 0; i < 5; ++i) judge.LearnTime(Took(50'000), 0, true);
  int until = 0;
  for (; until < 1000 && !judge.Pays(0.9, 0); ++until) judge.LearnTime(Took(5000), 0, false);
  EXPECT_GT(until, 100);
  EXPECT_LT(until, 1000);
}

// A text of period four, 11 12 13 14 11 ..., on two stages; drafts go out whatever their chance.
class DraftingScheduler : public SchedulerTest {
 protected:
  DraftingScheduler() {
    options_.stages = 2;
    options_.in_flight_max = 4;
    options_.drafts_max = 1;
    options_.draft_chance_min = 0;
  }
  static TokenId At(Position position) { return 11 + position % 4; }
  static std::vector<TokenId> Text(Position length) {
    std::vector<TokenId> text;
    text.reserve(static_cast<std::size_t>(length));
    for (Position i = 0; i < length; ++i) text.push_back(At(i));
    return text;
  }
  // Until the next row may have a draft behind it: the first rows run alone, to be timed. Returns its position.
  Position Begin(int tokens_max = 100) {
    Submit(Request(1, Text(8), tokens_max));
    Position position = 8;
    Finish(Next(), At(position));
    for (int i = 0; i < 5; ++i) {
      const MicroBatch row = Next();
      EXPECT_TRUE(Idle());
      Finish(row, At(++position), false, Took(1000));
    }
    return position;
  }
  void FinishEmpty(const MicroBatch& batch) {
    std::vector<ScheduleEvent> events;
    scheduler_->OnResult({batch.id, {}, Took(1000)}, events);
    EXPECT_THAT(events, IsEmpty());
  }
};

TEST_F(DraftingScheduler, ARightGuessIsNotComputedAgain) {
  const Position position = Begin();
  const MicroBatch row = Next();
  EXPECT_THAT(row.rows, ElementsAre(BatchRow{0, position, true, 1}));
  const MicroBatch draft = Next();
  EXPECT_THAT(draft.rows, ElementsAre(BatchRow{0, position + 1, true, 1}));
  EXPECT_THAT(draft.tokens, ElementsAre(At(position + 1)));
  EXPECT_THAT(draft.ops, IsEmpty());
  EXPECT_TRUE(Idle());  // no more than drafts_max
  ASSERT_THAT(Finish(row, At(position + 1)), SizeIs(1));
  EXPECT_TRUE(Idle());  // its row is on its way
  const auto events = Finish(draft, At(position + 2));
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].position, position + 2);
  const MicroBatch next = Next();
  EXPECT_THAT(next.rows, ElementsAre(BatchRow{0, position + 2, true, 1}));
  EXPECT_THAT(next.ops, IsEmpty());
  EXPECT_EQ(scheduler_->stats().drafts.sent, 1U);
  EXPECT_EQ(scheduler_->stats().drafts.right, 1U);
}

TEST_F(DraftingScheduler, AWrongGuessIsRewoundAndWhatComesOfItIgnored) {
  const Position position = Begin();
  const MicroBatch row = Next(), draft = Next();
  const auto events = Finish(row, 99);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].token->token, 99);
  const MicroBatch next = Next();
  EXPECT_THAT(Ops<RewindSequence>(next), ElementsAre(RewindSequence{0, position + 1}));
  EXPECT_THAT(next.rows, ElementsAre(BatchRow{0, position + 1, true, 1}));
  EXPECT_THAT(next.tokens, ElementsAre(99));
  FinishEmpty(draft);                        // as the last stage gives it
  EXPECT_THAT(Finish(draft, 7), IsEmpty());  // or once more, from nowhere
  EXPECT_THAT(Finish(next, At(1), false), SizeIs(1));
  EXPECT_EQ(scheduler_->stats().drafts.sent, 1U);
  EXPECT_EQ(scheduler_->stats().drafts.right, 0U);
  EXPECT_EQ(scheduler_->stats().drafts.wrong, 1U);
}

TEST_F(DraftingScheduler, AWrongGuessThatFailsEndsNothing) {
  Begin();
  const MicroBatch row = Next(), draft = Next();
  Finish(row, 99);
  const MicroBatch next = Next();
  EXPECT_THAT(Fail(draft.id), IsEmpty());
  EXPECT_THAT(Finish(next, 5), SizeIs(1));
  EXPECT_EQ(scheduler_->stats().running, 1);
}

TEST_F(DraftingScheduler, AFailureOfTheRowBeforeEndsItOnce) {
  Begin();
  const MicroBatch row = Next(), draft = Next();
  const auto events = Fail(row.id);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].finish, FinishReason::kError);
  EXPECT_THAT(Fail(draft.id), IsEmpty());
  EXPECT_EQ(scheduler_->stats().in_flight, 0);
  EXPECT_EQ(scheduler_->stats().slots_free, options_.slots_max);
}

TEST_F(DraftingScheduler, AnAnswerThatEndsLeavesNoDraftBehind) {
  const Position position = Begin();
  const MicroBatch row = Next(), draft = Next();
  EXPECT_EQ(Finish(row, At(position + 1), true)[0].finish, FinishReason::kStop);
  FinishEmpty(draft);
  const MicroBatch close = Next();
  // As without drafts: the last token was never sent.
  EXPECT_THAT(Ops<RewindSequence>(close), ElementsAre(RewindSequence{0, position + 1}));
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, position + 1);
  EXPECT_THAT(Ops<CloseSequence>(close), SizeIs(1));
}

TEST_F(DraftingScheduler, ACancelLeavesNoDraftBehind) {
  const Position position = Begin();
  const MicroBatch row = Next(), draft = Next();
  scheduler_->Cancel(1);
  EXPECT_THAT(Finish(row, At(position + 1)), IsEmpty());
  EXPECT_THAT(Finish(draft, At(position + 2)), IsEmpty());
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, position + 1);
  EXPECT_EQ(scheduler_->stats().slots_free, options_.slots_max);
}

TEST_F(DraftingScheduler, NoRowIsSentThatNoAnswerNeeds) {
  const Position position = Begin(8);  // six have come: the seventh's row, then its token and the eighth's
  const MicroBatch row = Next();
  const MicroBatch draft = Next();
  Finish(row, At(position + 1));
  EXPECT_TRUE(Idle());
  EXPECT_EQ(Finish(draft, At(position + 2))[0].finish, FinishReason::kLength);
}

TEST_F(DraftingScheduler, OthersComeFirst) {
  Begin();
  const MicroBatch row = Next();
  Submit(Request(2, {1, 2, 3}));
  const MicroBatch prompt = Next();
  EXPECT_THAT(Generations(prompt), ElementsAre(2, 2, 2));
  EXPECT_TRUE(Idle());
}

TEST_F(DraftingScheduler, APromptNeedNotWaitForDrafts) {
  options_.in_flight_max = 2;
  Begin();
  const MicroBatch row = Next(), draft = Next();
  Submit(Request(2, {1, 2, 3}));
  EXPECT_THAT(Generations(Next()), ElementsAre(2, 2, 2));
  Finish(row, 99);
  // The wrong draft is still on its way: nothing new beside it.
  EXPECT_THAT(Generations(Next()), ElementsAre(1));
  EXPECT_TRUE(Idle());
}

TEST_F(DraftingScheduler, NothingIsThrownOutForAGuess) {
  options_.kv_tokens_max = 24;
  RunToEnd(Request(9, Count(100, 9), 1));  // nine cells, which an idle slot keeps
  const Position position = Begin();
  ASSERT_EQ(scheduler_->stats().kv_tokens_used, 9 + position);
  const MicroBatch row = Next(), draft = Next();
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, 24);
  Finish(row, At(position + 1));
  EXPECT_TRUE(Idle());
  Finish(draft, At(position + 2));
  EXPECT_THAT(Ops<RewindSequence>(Next()), SizeIs(1));  // the row itself may
}

// The slowest stage takes nearly all of a token's time, unless the token spends as much between stages.
TEST_F(DraftingScheduler, WhatPaysDependsOnHowLongMicroBatchesWereOnTheirWay) {
  for (const std::int64_t elapsed_us : {0, 5000}) {
    scheduler_.reset();
    Submit(Request(1, Text(8)));
    Position position = 8;
    Finish(Next(), At(position));
    for (int i = 0; i < 5; ++i) {
      const MicroBatch row = Next();
      SampledToken sampled;
      sampled.token = At(++position);
      const ResultMessage result{row.id, {{0, 1, position, sampled}}, {{900, 0, 0}, {100, 0, 0}}};
      std::vector<ScheduleEvent> events;
      scheduler_->OnResult(result, events, elapsed_us);
      ASSERT_THAT(events, SizeIs(1));
    }
    Next();
    EXPECT_EQ(Idle(), elapsed_us == 0);
  }
}

TEST_F(DraftingScheduler, OnlyGuessesThatAreRightOftenEnoughGoOut) {
  options_.draft_chance_min = 0.9;  // of what no guess is at first
  Begin();
  Next();
  EXPECT_TRUE(Idle());
}

TEST_F(DraftingScheduler, FewerGoOutOnceADeviceSaves) {
  Begin();
  scheduler_->SetDraftChanceMin(0.9);
  const MicroBatch row = Next();
  EXPECT_TRUE(Idle());
  scheduler_->SetDraftChanceMin(0.5);
  EXPECT_THAT(Next().rows, SizeIs(1));
}

TEST_F(DraftingScheduler, AModelThatCannotBeRewoundHasNone) {
  options_.rewindable = false;
  Begin();
  Next();
  EXPECT_TRUE(Idle());
}

TEST_F(DraftingScheduler, NearlyCertainOnesGoFurtherThanThereAreIdleStages) {
  options_.drafts_max = 3;
  Position position = Begin();
  std::deque<MicroBatch> sent;
  std::size_t most = 0;
  for (int i = 0; i < 60; ++i) {
    while (auto batch = scheduler_->Next()) sent.push_back(*std::move(batch));
    most = std::max(most, sent.size());
    ASSERT_FALSE(sent.empty());
    ASSERT_THAT(Finish(sent.front(), At(++position), false, Took(1000)), SizeIs(1));
    sent.pop_front();
  }
  EXPECT_EQ(most, 3U);
}

}  // namespace
}  // namespace shoal
