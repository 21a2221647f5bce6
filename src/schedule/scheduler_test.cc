// The scheduler's rules one at a time: from prompt to last token, the window, fairness, failures. reuse_test.cc has
// those of slots and cells; simulation_test.cc tries them against each other.
#include "schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/test_scheduler.h"

namespace shoal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(SchedulerTest, OneRequestFromPromptToLastToken) {
  Submit(Request(1, {10, 11, 12}, 2));
  const MicroBatch prefill = Next();
  ASSERT_THAT(Ops<OpenSequence>(prefill), SizeIs(1));
  EXPECT_EQ(Ops<OpenSequence>(prefill)[0].history, (std::vector<TokenId>{10, 11, 12}));
  EXPECT_THAT(prefill.tokens, ElementsAre(10, 11, 12));
  EXPECT_FALSE(prefill.rows[1].output);
  EXPECT_EQ(prefill.rows[2], (BatchRow{0, 2, true, 1}));
  EXPECT_TRUE(Idle());

  std::vector<ScheduleEvent> events = Finish(prefill, 20);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].token->token, 20);
  EXPECT_EQ(events[0].position, 3);
  EXPECT_FALSE(events[0].finish.has_value());

  const MicroBatch decode = Next();
  EXPECT_THAT(decode.ops, IsEmpty());
  EXPECT_THAT(decode.rows, ElementsAre(BatchRow{0, 3, true, 1}));
  EXPECT_THAT(decode.tokens, ElementsAre(20));
  events = Finish(decode, 21);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].position, 4);
  EXPECT_EQ(events[0].finish, FinishReason::kLength);

  const MicroBatch close = Next();
  EXPECT_THAT(close.rows, IsEmpty());
  EXPECT_THAT(Ops<CloseSequence>(close), ElementsAre(CloseSequence{0, 1}));
  EXPECT_TRUE(Idle());
  EXPECT_EQ(scheduler_->stats().slots_free, options_.slots_max);
  EXPECT_EQ(scheduler_->stats().tokens_prefilled, 3U);
  EXPECT_EQ(scheduler_->stats().tokens_decoded, 2U);
}

TEST_F(SchedulerTest, AnEndTokenComesWithItsFinish) {
  Submit(Request(1, {10}));
  const std::vector<ScheduleEvent> events = Finish(Next(), 2, true);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_TRUE(events[0].token->end);
  EXPECT_EQ(events[0].finish, FinishReason::kStop);
}

TEST_F(SchedulerTest, ResumedTokensCountAsEmitted) {
  GenerationRequest request = Request(1, {10, 11, 12, 13}, 1);
  request.emitted = 2;
  Submit(std::move(request));
  const MicroBatch batch = Next();
  EXPECT_EQ(Ops<OpenSequence>(batch)[0].emitted, 2U);
  EXPECT_EQ(Finish(batch, 5)[0].position, 4);
}

TEST_F(SchedulerTest, RefusesWhatCannotBeServed) {
  options_.kv_tokens_max = 8;
  Make();
  const auto code = [&](GenerationRequest request) { return scheduler_->Submit(std::move(request)).error().code; };
  EXPECT_EQ(code(Request(0, {1})), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(Request(1, {})), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(Request(1, {1}, 0)), ErrorCode::kInvalidArgument);
  GenerationRequest more_emitted = Request(1, {1});
  more_emitted.emitted = 2;
  EXPECT_EQ(code(more_emitted), ErrorCode::kInvalidArgument);
  const Status full = scheduler_->Submit(Request(1, Count(0, 8)));
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kContextFull);
  EXPECT_THAT(full.error().message, ::testing::HasSubstr("8 tokens"));
  Submit(Request(1, Count(0, 7)));
  EXPECT_EQ(code(Request(1, {1})), ErrorCode::kInvalidArgument);  // the id is in use
}

TEST_F(SchedulerTest, RefusesSamplingThatNoFrameCarries) {
  Make();
  GenerationRequest request = Request(1, {1, 2});
  request.sampling.grammar.assign(kGrammarBytesMax + 1, 'x');
  const Status status = scheduler_->Submit(request);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(scheduler_->stats().waiting, 0);
}

TEST_F(SchedulerTest, TheQueueIsBoundedBesidesTheSlots) {
  options_.slots_max = 2;
  options_.queue_max = 1;
  Make();
  for (GenerationId id = 1; id <= 3; ++id) Submit(Request(id, {static_cast<TokenId>(id)}));
  EXPECT_EQ(scheduler_->Submit(Request(4, {4})).error().code, ErrorCode::kOverloaded);
  Next();
  EXPECT_EQ(scheduler_->stats().running, 2);
  EXPECT_EQ(scheduler_->stats().waiting, 1);
  EXPECT_EQ(scheduler_->Submit(Request(4, {4})).error().code, ErrorCode::kOverloaded);
  scheduler_->Cancel(3);
  Submit(Request(4, {4}));
}

TEST_F(SchedulerTest, ALongPromptFillsTheWindowAndNoMore) {
  options_.batch_rows_max = 4;
  options_.in_flight_max = 3;
  Submit(Request(1, Count(0, 18)));
  std::vector<MicroBatch> sent;
  for (int i = 0; i < 3; ++i) sent.push_back(Next());
  EXPECT_TRUE(Idle());
  EXPECT_EQ(sent[2].rows.front().position, 8);
  for (const MicroBatch& batch : sent) EXPECT_THAT(Finish(batch, 1), IsEmpty());
  EXPECT_THAT(Next().rows, SizeIs(4));
  const MicroBatch last = Next();
  EXPECT_THAT(last.rows, SizeIs(2));
  EXPECT_TRUE(last.rows.back().output);
  EXPECT_TRUE(Idle());
}

TEST_F(SchedulerTest, DecodeRowsRideInFrontOfPrefill) {
  options_.batch_rows_max = 4;
  Submit(Request(1, {1}));
  Finish(Next(), 5);
  Submit(Request(2, Count(100, 20)));
  for (int i = 0; i < 4; ++i) {
    const MicroBatch batch = Next();
    EXPECT_EQ(Generations(batch), (std::vector<GenerationId>{1, 2, 2, 2}));
    Finish(batch, 5);
  }
}

TEST_F(SchedulerTest, PrefillsTakeTurns) {
  options_.batch_rows_max = 4;
  Submit(Request(1, Count(100, 12)));
  Submit(Request(2, Count(200, 6)));
  Submit(Request(3, Count(300, 2)));
  std::vector<std::vector<int>> shares;
  for (int i = 0; i < 5; ++i) {
    const MicroBatch batch = Next();
    shares.push_back({RowsOf(batch, 1), RowsOf(batch, 2), RowsOf(batch, 3)});
    Finish(batch, 5, true);
  }
  EXPECT_THAT(shares, ElementsAre(ElementsAre(4, 0, 0), ElementsAre(0, 4, 0), ElementsAre(2, 0, 2),
                                  ElementsAre(4, 0, 0), ElementsAre(2, 2, 0)));
}

TEST_F(SchedulerTest, DecodersAreSharedOutOverTheStages) {
  options_.stages = 2;
  options_.in_flight_max = 3;
  for (GenerationId id = 1; id <= 4; ++id) Submit(Request(id, {static_cast<TokenId>(id * 10)}));
  Finish(Next(), 5);
  const MicroBatch first = Next(), second = Next();
  EXPECT_THAT(Generations(first), ElementsAre(1, 2));
  EXPECT_THAT(Generations(second), ElementsAre(3, 4));
  EXPECT_TRUE(Idle());
  Finish(first, 5);
  EXPECT_THAT(Generations(Next()), ElementsAre(1, 2));
}

TEST_F(SchedulerTest, DecodersGoAloneWhereThatProvesFastestAndTogetherInFrontOfAPrompt) {
  options_.stages = 2;
  options_.in_flight_max = 3;
  options_.decode_groups_max = 8;
  for (GenerationId id = 1; id <= 4; ++id) Submit(Request(id, {static_cast<TokenId>(id * 10)}, 1000));
  Finish(Next(), 5);
  const auto round = [&] {
    std::vector<MicroBatch> sent;
    while (std::optional<MicroBatch> batch = scheduler_->Next()) sent.push_back(std::move(*batch));
    for (const MicroBatch& batch : sent) {
      // Two rows take more than twice as long as one.
      const auto us = static_cast<std::uint32_t>(batch.rows.size() == 1 ? 1000 : 1500 * batch.rows.size());
      Finish(batch, 5, false, {{us, 0, 0}, {us, 0, 0}});
    }
    return sent.size();
  };
  for (int i = 0; i < 20; ++i) round();
  EXPECT_EQ(round(), 4U);
  Submit(Request(9, Count(100, 200)));
  EXPECT_EQ(Generations(Next()).size(), 64U);
  const MicroBatch second = Next();
  EXPECT_EQ(RowsOf(second, 9), 62);
}

TEST_F(SchedulerTest, GroupsThatFellApartMergeAgain) {
  options_.in_flight_max = 2;
  Submit(Request(1, {10}));
  Submit(Request(2, {20}));
  Finish(Next(), 5);
  const MicroBatch both = Next();
  Submit(Request(3, {30}));
  const MicroBatch joins = Next();
  Finish(joins, 5);
  // One stage, and it has work: 3 waits for 1 and 2 to come back.
  EXPECT_TRUE(Idle());
  Finish(both, 5);
  EXPECT_THAT(Generations(Next()), ::testing::UnorderedElementsAre(1, 2, 3));
}

TEST_F(SchedulerTest, LimitsOfAMicroBatchHoldAndStarveNobody) {
  options_.batch_sequences_max = 2;
  options_.output_rows_max = 2;
  options_.in_flight_max = 1;
  for (GenerationId id = 1; id <= 2; ++id) Submit(Request(id, {static_cast<TokenId>(id * 10)}));
  Finish(Next(), 5);
  Submit(Request(3, {30, 31}));
  std::vector<int> waits(4, 0);
  bool third_ran = false;
  for (int i = 0; i < 12; ++i) {
    const MicroBatch batch = Next();
    EXPECT_LE(batch.rows.size(), 3U);
    for (GenerationId id = 1; id <= 2; ++id) {
      waits[id] = RowsOf(batch, id) > 0 ? 0 : waits[id] + 1;
      EXPECT_LE(waits[id], 2);
    }
    third_ran = third_ran || RowsOf(batch, 3) > 0;
    Finish(batch, 5);
  }
  EXPECT_TRUE(third_ran);
}

TEST_F(SchedulerTest, CancelFreesTheSlotAtOnceAndDropsWhatIsInFlight) {
  options_.slots_max = 1;
  Submit(Request(1, {1, 2, 3}));
  const MicroBatch batch = Next();
  scheduler_->Cancel(1);
  EXPECT_EQ(scheduler_->stats().slots_free, 1);
  Submit(Request(2, {9, 8}));
  const MicroBatch next = Next();
  EXPECT_THAT(next.ops, ElementsAre(ControlOp(CloseSequence{0, 1}), ControlOp(RewindSequence{0, 0}),
                                    ControlOp(OpenSequence{0, 2, {}, {9, 8}, 0})));
  EXPECT_THAT(Finish(batch, 5), IsEmpty());
  EXPECT_THAT(Finish(next, 6), SizeIs(1));
  scheduler_->Cancel(77);
}

TEST_F(SchedulerTest, AFailedMicroBatchEndsItsGenerationsOnce) {
  options_.batch_rows_max = 4;
  options_.in_flight_max = 3;
  Submit(Request(1, Count(0, 12)));
  const MicroBatch a = Next(), b = Next();
  std::vector<ScheduleEvent> events = Fail(a.id);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].finish, FinishReason::kError);
  EXPECT_EQ(events[0].error.code, ErrorCode::kInternal);
  EXPECT_THAT(events[0].error.message, ::testing::HasSubstr("stage 1"));
  EXPECT_THAT(Fail(b.id), IsEmpty());
  EXPECT_THAT(Fail(b.id), IsEmpty());
  const MicroBatch cleanup = Next();
  EXPECT_THAT(cleanup.ops, ElementsAre(ControlOp(CloseSequence{0, 1}), ControlOp(RewindSequence{0, 0})));
  EXPECT_EQ(scheduler_->stats().kv_tokens_used, 0);
}

TEST_F(SchedulerTest, WhoOnlySharedAMicroBatchWithAFailedSequenceStartsAgain) {
  options_.batch_rows_max = 4;
  options_.in_flight_max = 4;
  Submit(Request(2, {50}));
  Finish(Next(), 5);
  Submit(Request(1, Count(0, 12)));
  const MicroBatch a = Next();  // 2's row and 1's first three
  EXPECT_THAT(Generations(a), ElementsAre(2, 1, 1, 1));
  const MicroBatch b = Next();  // 1 only
  ResultMessage result{a.id, {{a.rows[0].sequence, 2, 2, {}}}, {}};
  std::vector<ScheduleEvent> events;
  scheduler_->OnResult(result, events);  // a went well
  const MicroBatch c = Next();           // 2 again, and 1
  EXPECT_THAT(Generations(c), ::testing::Contains(2));
  EXPECT_THAT(Fail(b.id), SizeIs(1));  // 1 ends
  EXPECT_THAT(Fail(c.id), IsEmpty());  // 2 does not
  const MicroBatch again = Next();
  EXPECT_EQ(RowsOf(again, 2), 3);
  EXPECT_THAT(Finish(again, 5), SizeIs(1));
}

TEST_F(SchedulerTest, OneGenerationsFailureLeavesTheOthers) {
  Submit(Request(1, {10}));
  Submit(Request(2, {20}));
  const MicroBatch batch = Next();
  EXPECT_THAT(Fail(batch.id, 1), SizeIs(1));
  EXPECT_THAT(Fail(batch.id, 1), IsEmpty());
  const std::vector<ScheduleEvent> events = Finish(batch, 5);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].generation, 2U);
}

TEST_F(SchedulerTest, AMissingTokenIsAnErrorAndNotAHang) {
  Submit(Request(1, {10}));
  const MicroBatch batch = Next();
  std::vector<ScheduleEvent> events;
  scheduler_->OnResult({batch.id, {}, {}}, events);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].finish, FinishReason::kError);
}

TEST_F(SchedulerTest, NonsenseFromTheStagesIsIgnored) {
  Submit(Request(1, {10, 11}));
  const MicroBatch batch = Next();
  std::vector<ScheduleEvent> events;
  scheduler_->OnResult({999, {{0, 1, 2, {}}}, {}}, events);
  scheduler_->OnFailure({998, 0, 0, ErrorCode::kInternal, ""}, events);
  scheduler_->OnFailure({batch.id, 55, 0, ErrorCode::kInternal, ""}, events);
  EXPECT_THAT(events, IsEmpty());
  scheduler_->OnResult({batch.id, {{0, 55, 2, {}}, {0, 1, 7, {}}, {0, 1, 2, {}}, {0, 1, 2, {}}}, {}}, events);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].position, 2);
}

}  // namespace
}  // namespace shoal
