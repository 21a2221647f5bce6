// What a slot keeps for the next request, who gives up cells, and how cells are counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/kv_cells.h"
#include "schedule/test_scheduler.h"

namespace shoal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(SchedulerTest, AFollowUpPrefillsOnlyWhatIsNew) {
  RunToEnd(Request(1, {1, 2, 3}, 3), 7);  // the slot holds 1 2 3 7 7
  Submit(Request(2, {1, 2, 3, 7, 7, 7, 4}));
  const MicroBatch batch = Next();
  EXPECT_THAT(batch.tokens, ElementsAre(7, 4));
  EXPECT_EQ(batch.rows[0].position, 5);
  EXPECT_THAT(Ops<RewindSequence>(batch), IsEmpty());
  EXPECT_EQ(scheduler_->ReusedTokens(2), 5);
  EXPECT_EQ(scheduler_->stats().tokens_reused, 5U);
  Finish(batch, 1, true);
  EXPECT_EQ(scheduler_->ReusedTokens(2), 5);  // still known
}

TEST_F(SchedulerTest, TheSamePromptKeepsItsLastTokenToRun) {
  options_.slots_max = 1;
  RunToEnd(Request(1, {1, 2, 3}, 3));
  Submit(Request(2, {1, 2, 3}));
  const MicroBatch batch = Next();
  EXPECT_THAT(Ops<RewindSequence>(batch), ElementsAre(RewindSequence{0, 2}));
  EXPECT_THAT(batch.tokens, ElementsAre(3));
}

TEST_F(SchedulerTest, AnotherBranchCopiesThePrefixAndSparesTheRest) {
  RunToEnd(Request(1, {1, 2, 3, 4}, 3));
  Submit(Request(2, {1, 2, 9}));
  const MicroBatch batch = Next();
  EXPECT_THAT(Ops<CopySequence>(batch), ElementsAre(CopySequence{0, 1, 2}));
  EXPECT_THAT(batch.tokens, ElementsAre(9));
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, 6 + 1);  // the shared cells count once
}

TEST_F(SchedulerTest, SiblingsWaitForTheFirstAndCopyItsPrompt) {
  options_.batch_rows_max = 8;
  for (GenerationId id = 1; id <= 3; ++id) Submit(Request(id, Count(0, 20)));
  const MicroBatch first = Next(), second = Next();
  EXPECT_EQ(RowsOf(first, 1), 8);
  EXPECT_EQ(RowsOf(second, 1), 8);
  Finish(first, 5);
  const MicroBatch third = Next();
  EXPECT_EQ(Generations(third), (std::vector<GenerationId>{1, 1, 1, 1}));
  Finish(second, 5);
  const MicroBatch copies = Next();
  EXPECT_THAT(Ops<CopySequence>(copies), ElementsAre(CopySequence{0, 1, 19}, CopySequence{0, 2, 19}));
  EXPECT_THAT(Generations(copies), ElementsAre(2, 3));
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, 22);
}

TEST_F(SchedulerTest, CellsOfTheirOwnAreNeverCopied) {
  options_.kv_shared = false;
  Submit(Request(1, Count(0, 20)));
  Submit(Request(2, Count(0, 20)));
  const MicroBatch batch = Next();
  EXPECT_THAT(Ops<CopySequence>(batch), IsEmpty());
  EXPECT_EQ(RowsOf(batch, 1), 20);
  EXPECT_EQ(RowsOf(batch, 2), 20);
}

TEST_F(SchedulerTest, WithoutRewindOnlyAWholePrefixIsReused) {
  options_.rewindable = false;
  options_.slots_max = 1;
  RunToEnd(Request(1, {1, 2, 3}, 2), 7);  // holds 1 2 3 7
  Submit(Request(2, {1, 2, 3, 7, 5}));
  MicroBatch batch = Next();
  EXPECT_THAT(batch.tokens, ElementsAre(5));
  Finish(batch, 7, true);
  Submit(Request(3, {1, 2, 3, 9}));
  batch = Next();
  EXPECT_THAT(Ops<RewindSequence>(batch), ElementsAre(RewindSequence{0, 0}));
  EXPECT_THAT(batch.tokens, ElementsAre(1, 2, 3, 9));
}

TEST_F(SchedulerTest, ReproducibleChunksAndReuseAreAligned) {
  options_.reproducible = true;
  options_.kv_shared = false;
  options_.slots_max = 1;
  options_.batch_rows_max = 4;
  RunToEnd(Request(1, Count(0, 6), 4), 6);
  Submit(Request(2, {0, 1, 2, 3, 4, 5, 6, 6, 6, 9}));
  // 4..8 are there too, but not from a whole chunk: only the first chunk is as it would be alone.
  MicroBatch batch = Next();
  EXPECT_EQ(batch.rows.front().position, 4);
  EXPECT_THAT(batch.rows, SizeIs(4));
  batch = Next();
  EXPECT_EQ(batch.rows.front().position, 8);
  EXPECT_THAT(batch.rows, SizeIs(2));
  EXPECT_EQ(scheduler_->ReusedTokens(2), 4);
}

TEST_F(SchedulerTest, ReproducibleMicroBatchesHoldOneSequence) {
  options_.reproducible = true;
  options_.kv_shared = false;
  options_.in_flight_max = 1;
  options_.batch_rows_max = 4;
  Submit(Request(1, {1}));
  Finish(Next(), 5);
  Submit(Request(2, Count(10, 8)));
  for (int i = 0; i < 2; ++i) {
    MicroBatch batch = Next();
    EXPECT_THAT(Generations(batch), ElementsAre(1));
    Finish(batch, 5);
    batch = Next();
    EXPECT_THAT(Generations(batch), ElementsAre(2, 2, 2, 2));
    Finish(batch, 5);
  }
}

TEST_F(SchedulerTest, IdleSlotsAreEvictedLeastRecentlyUsedFirst) {
  options_.kv_tokens_max = 20;
  RunToEnd(Request(1, Count(100, 6), 1));
  RunToEnd(Request(2, Count(200, 6), 1));
  RunToEnd(Request(3, Count(300, 6), 1));
  Submit(Request(4, Count(400, 8)));
  const MicroBatch batch = Next();
  EXPECT_THAT(Ops<RewindSequence>(batch), ElementsAre(RewindSequence{0, 0}));
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, 20);
}

TEST_F(SchedulerTest, APromptWaitsForRoomAndNobodyPassesIt) {
  options_.kv_tokens_max = 20;
  options_.batch_rows_max = 32;
  Submit(Request(1, Count(100, 12)));
  Submit(Request(2, Count(200, 12)));
  Submit(Request(3, Count(300, 1)));
  const MicroBatch batch = Next();
  EXPECT_EQ(RowsOf(batch, 1), 12);
  EXPECT_EQ(scheduler_->stats().waiting, 2);
  Finish(batch, 5, true);
  EXPECT_EQ(RowsOf(Next(), 2), 12);
}

TEST_F(SchedulerTest, TheYoungestGivesWayAndComesBackWithWhatItEmitted) {
  options_.kv_tokens_max = 16;
  Submit(Request(1, Count(100, 5), 9));
  Submit(Request(2, Count(200, 5), 9));
  std::vector<TokenId> second;
  bool preempted = false;
  std::int32_t ended = 0;
  for (int i = 0; i < 60 && ended < 2; ++i) {
    const MicroBatch batch = Next();
    for (const OpenSequence& open : Ops<OpenSequence>(batch)) {
      if (open.generation != 2 || open.history.size() == 5) continue;
      preempted = true;
      EXPECT_EQ(open.emitted, second.size());
      EXPECT_EQ(open.history.size(), 5 + second.size());
    }
    EXPECT_LE(scheduler_->stats().kv_tokens_used, 16);
    for (const ScheduleEvent& event : Finish(batch, static_cast<TokenId>(i))) {
      if (event.generation == 2) {
        EXPECT_EQ(event.position, static_cast<Position>(5 + second.size()));
        second.push_back(event.token->token);
      }
      if (event.finish) {
        EXPECT_EQ(event.generation, static_cast<GenerationId>(++ended));
        EXPECT_EQ(event.finish, FinishReason::kLength);
      }
    }
  }
  EXPECT_EQ(ended, 2);
  EXPECT_TRUE(preempted);
  EXPECT_THAT(second, SizeIs(9));
  EXPECT_EQ(scheduler_->stats().preemptions, 1U);
}

TEST_F(SchedulerTest, FillingTheContextAloneEndsWithLength) {
  options_.kv_tokens_max = 8;
  Submit(Request(1, Count(0, 5)));
  int tokens = 0;
  for (int i = 0; i < 3; ++i) {
    for (const ScheduleEvent& event : Finish(Next(), 5)) {
      ++tokens;
      EXPECT_EQ(event.finish.has_value(), tokens == 3);
    }
  }
  EXPECT_EQ(tokens, 3);  // prompt and answer together are the context
}

TEST(KvCells, CopiesShareCells) {
  KvCells cells(3, 10);
  for (int i = 0; i < 6; ++i) cells.Append(0);
  cells.SetBusy(0, true);
  cells.Copy(0, 1, 4);
  EXPECT_EQ(cells.used(), 6);
  EXPECT_EQ(cells.busy(), 6);
  cells.Append(1);
  EXPECT_EQ(cells.used(), 7);
  EXPECT_EQ(cells.busy(), 6);
  EXPECT_EQ(cells.IdleCells(1, 5), 1);
  cells.SetBusy(0, false);
  EXPECT_EQ(cells.busy(), 0);
  cells.Rewind(0, 0);
  EXPECT_EQ(cells.used(), 5);
  cells.Rewind(1, 2);
  EXPECT_EQ(cells.used(), 2);
}

}  // namespace
}  // namespace shoal
