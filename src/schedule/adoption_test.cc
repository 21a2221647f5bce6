// What stages bring along from an earlier epoch: what is used of it, what is forgotten, in which micro-batches the rest
// is filled, and what happens when a stage cannot do what it said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/test_scheduler.h"

namespace shoal {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class AdoptionTest : public SchedulerTest {
 protected:
  AdoptionTest() {
    options_.stages = 3;
    options_.in_flight_max = 8;
    options_.batch_rows_max = 8;
    options_.stage_layers = {10, 10, 10};
  }
  // Slot 0 of each stage; the last one keeps nothing of what it sends, for it sends nothing.
  Status Adopt(const std::vector<std::vector<TokenId>>& held) {
    std::vector<InventoryMessage> stages(held.size());
    for (std::size_t i = 0; i < held.size(); ++i) {
      stages[i].stage = static_cast<StageIndex>(i);
      const auto sent_from = i + 1 == held.size() ? static_cast<Position>(held[i].size()) : 0;
      if (!held[i].empty()) stages[i].sequences = {{0, sent_from, held[i]}};
    }
    if (!scheduler_) Make();
    return scheduler_->Adopt(std::move(stages));
  }
  static std::vector<Position> Positions(const MicroBatch& batch) {
    std::vector<Position> positions;
    for (const BatchRow& row : batch.rows) positions.push_back(row.position);
    return positions;
  }
  void ExpectStages(const MicroBatch& batch, StageIndex first, StageIndex last) {
    EXPECT_EQ(batch.first_stage, first);
    EXPECT_EQ(batch.last_stage, last);
  }
};

TEST_F(AdoptionTest, ALostStageIsFilledAloneAndThenAllGoOn) {
  ASSERT_TRUE(Adopt({Count(0, 20), {}, Count(0, 20)}).ok());
  Submit(Request(1, Count(0, 21)));
  for (const Position from : {0, 8, 16}) {
    const MicroBatch fill = Next();
    ExpectStages(fill, 1, 1);
    EXPECT_EQ(Positions(fill), Count(from, from == 16 ? 4 : 8));
    EXPECT_EQ(fill.tokens, Count(from, from == 16 ? 4 : 8));
    EXPECT_THAT(Ops<RewindSequence>(fill), IsEmpty());
    for (const BatchRow& row : fill.rows) EXPECT_FALSE(row.output);
    EXPECT_THAT(Finish(fill, 0), IsEmpty());
  }
  const MicroBatch last = Next();
  ExpectStages(last, 0, kStageIndexMax);
  EXPECT_THAT(Positions(last), ElementsAre(20));
  EXPECT_EQ(Finish(last, 5).size(), 1U);
  const ScheduleStats stats = scheduler_->stats();
  EXPECT_EQ(stats.recovery.generations, 1U);
  EXPECT_EQ(stats.recovery.row_layers, 200U);
  EXPECT_EQ(stats.recovery.row_layers_from_nothing, 600U);
  EXPECT_EQ(stats.row_layers_filled, 200U);
  EXPECT_EQ(stats.row_layers_whole, 30U);
}

// Of the last row only the last stage has to run again: the others' output of it was sent before.
TEST_F(AdoptionTest, TheRowThatGivesTheNextTokenIsSentAgainWhereItWasSent) {
  ASSERT_TRUE(Adopt({Count(0, 21), {}, Count(0, 21)}).ok());
  Submit(Request(1, Count(0, 21)));
  for (int i = 0; i < 3; ++i) ExpectStages(Next(), 1, 1);
  const MicroBatch last = Next();
  ExpectStages(last, 1, 2);
  EXPECT_THAT(Positions(last), ElementsAre(20));
  EXPECT_THAT(Ops<RewindSequence>(last), IsEmpty());
  EXPECT_TRUE(last.rows[0].output);
  EXPECT_EQ(Finish(last, 5).size(), 1U);
  ExpectStages(Next(), 0, kStageIndexMax);
}

TEST_F(AdoptionTest, WhatDoesNotFitTogetherIsForgottenOnTheLaterStage) {
  std::vector<TokenId> newer = Count(0, 4);
  newer.resize(9, 50);
  ASSERT_TRUE(Adopt({newer, Count(0, 12), newer}).ok());
  Submit(Request(1, newer));
  const MicroBatch fill = Next();
  EXPECT_THAT(Ops<RewindSequence>(fill), testing::Contains(RewindSequence{0, 4, 1}));
}

TEST_F(AdoptionTest, FillsAndRunningAnswersTakeTurns) {
  ASSERT_TRUE(Adopt({Count(0, 60), {}, Count(0, 60)}).ok());
  Submit(Request(1, {90, 91}));
  EXPECT_EQ(Finish(Next(), 5).size(), 1U);  // it answers
  Submit(Request(2, Count(0, 61)));
  for (int i = 0; i < 5; ++i) {
    const MicroBatch fill = Next(), decode = Next();
    ExpectStages(fill, 1, 1);
    EXPECT_EQ(fill.rows.size(), 8U);
    EXPECT_THAT(Generations(decode), ElementsAre(1));
    Finish(fill, 0);
    EXPECT_EQ(Finish(decode, 5).size(), 1U);
  }
}

TEST_F(AdoptionTest, ARefusedReplayCostsAWholePrefillAndNotTheGeneration) {
  ASSERT_TRUE(Adopt({Count(0, 20), {}, Count(0, 20)}).ok());
  Submit(Request(1, Count(0, 21)));
  const MicroBatch fill = Next();
  EXPECT_THAT(Fail(fill.id), IsEmpty());
  const MicroBatch again = Next();
  ExpectStages(again, 0, kStageIndexMax);
  EXPECT_EQ(Positions(again), Count(0, 8));
  EXPECT_THAT(Ops<RewindSequence>(again), ElementsAre(RewindSequence{0, 0}));
}

// Stages report on links of their own: what a refused replay breaks may be heard of before it.
TEST_F(AdoptionTest, ARefusedReplayThatIsHeardOfLateEndsNobody) {
  ASSERT_TRUE(Adopt({Count(0, 8), Count(0, 8), {}}).ok());
  Submit(Request(1, Count(0, 14)));
  const MicroBatch fill = Next(), rest = Next();
  ExpectStages(fill, 2, 2);
  ExpectStages(rest, 0, kStageIndexMax);
  EXPECT_THAT(Fail(rest.id), IsEmpty());
  EXPECT_TRUE(Idle());  // until its cause is known
  EXPECT_THAT(Fail(fill.id), IsEmpty());
  EXPECT_EQ(Positions(Next()), Count(0, 8));
}

TEST_F(AdoptionTest, ModelsThatCannotBeRewoundAndReproducibleRunsStartFromNothing) {
  for (const bool reproducible : {false, true}) {
    options_.rewindable = reproducible;
    options_.reproducible = reproducible;
    options_.kv_shared = !reproducible;
    scheduler_.reset();
    ASSERT_TRUE(Adopt({Count(0, 20), {}, Count(0, 20)}).ok());
    Submit(Request(1, Count(0, 21)));
    const MicroBatch first = Next();
    ExpectStages(first, 0, kStageIndexMax);
    EXPECT_THAT(Positions(first), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    EXPECT_THAT(Ops<RewindSequence>(first), ElementsAre(RewindSequence{0, 0, 0}, RewindSequence{0, 0, 2}));
  }
}

TEST_F(AdoptionTest, MoreThanTheCacheHoldsIsForgotten) {
  options_.kv_tokens_max = 30;
  Make();
  std::vector<InventoryMessage> stages(3);
  for (StageIndex i = 0; i < 3; ++i) stages[i] = {i, {{0, 0, Count(0, 20)}, {1, 0, Count(0, 20)}}};
  ASSERT_TRUE(scheduler_->Adopt(stages).ok());  // together only where they share cells, which a fresh stage would not
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, 20);
  EXPECT_THAT(Ops<RewindSequence>(Next()),
              ElementsAre(RewindSequence{1, 0, 0}, RewindSequence{1, 0, 1}, RewindSequence{1, 0, 2}));
}

TEST_F(AdoptionTest, RefusesWhatNoStageCanHold) {
  options_.slots_max = 2;
  options_.kv_tokens_max = 10;
  const auto refused = [&](std::vector<InventoryMessage> stages) {
    Make();
    const Status status = scheduler_->Adopt(std::move(stages));
    return !status.ok() && status.error().code == ErrorCode::kCorrupt;
  };
  std::vector<InventoryMessage> good = {{0, {{1, 0, Count(0, 10)}}}, {1, {}}, {2, {}}};
  EXPECT_FALSE(refused(good));
  EXPECT_TRUE(refused({good[0], good[1]}));
  EXPECT_TRUE(refused({good[0], good[2], good[1]}));
  std::vector<InventoryMessage> bad = good;
  bad[0].sequences[0].sequence = 2;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad[0].sequences[0].tokens = Count(0, 11);
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad[0].sequences[0].log_from = 11;
  EXPECT_TRUE(refused(bad));
}

}  // namespace
}  // namespace shoal
