// The pipeline over 1 to 4 stages on threads, with hashing engines: same tokens whatever the cut and whatever else
// runs; cancels, failures, dead stages and garbage end what they must and hang nothing.
#include "pipeline/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

#include "pipeline/fake_engine.h"

namespace shoal {
namespace {

constexpr std::chrono::seconds kPatience{600};  // only a hang takes so long, also with sanitizers

std::vector<TokenId> Prompt(GenerationId id, int count) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>((id * 7919 + i * 31) % 40000));
  return tokens;
}

// A hundred stages once asked for more than there is room for, which ended the process.
TEST(DraftsMax, LeavesRoomForAllElseThatIsInFlight) {
  for (const std::int32_t in_flight_max : {2, 4, 61, 102, kPipelineInFlightMax}) {
    ScheduleOptions schedule;
    schedule.in_flight_max = in_flight_max;
    schedule.decode_groups_max = 16;
    const std::int32_t drafts = DraftsMax(schedule);
    EXPECT_GE(drafts, 0);
    EXPECT_LE(std::max(in_flight_max, 16) + drafts, kPipelineInFlightMax);
    if (in_flight_max <= 4) { EXPECT_EQ(drafts, in_flight_max); }
  }
}

// Collects what the generations emit, and waits for their ends.
class Collector {
 public:
  struct Answer {
    std::vector<TokenId> tokens;
    std::vector<Position> positions;
    std::optional<FinishReason> finish;
    Error error;
    int events_after_end = 0;
  };

  Pipeline::EventHandler Handler() {
    return [this](const ScheduleEvent& event) { Take(event); };
  }
  void Take(const ScheduleEvent& event) {
    const std::lock_guard lock(mutex_);
    Answer& answer = answers_[event.generation];
    answer.events_after_end += answer.finish.has_value();
    if (event.token) {
      answer.tokens.push_back(event.token->token);
      answer.positions.push_back(event.position);
    }
    if (event.finish) {
      answer.finish = event.finish;
      answer.error = event.error;
      ++ended_;
    }
    changed_.notify_all();
  }
  bool WaitForEnds(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return ended_ >= count; });
  }
  bool WaitForTokens(GenerationId id, std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return answers_[id].tokens.size() >= count; });
  }
  Answer operator[](GenerationId id) {
    const std::lock_guard lock(mutex_);
    return answers_[id];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<GenerationId, Answer> answers_;
  int ended_ = 0;
};

class PipelineTest : public ::testing::Test {
 protected:
  void Make() { placement_ = std::make_unique<FakePlacement>(options_); }
  Status Submit(GenerationId id, int prompt, int answer) {
    GenerationRequest request;
    request.id = id;
    request.tokens = Prompt(id, prompt);
    request.tokens_max = answer;
    request.sampling = Greedy();
    Status status;
    placement_->OnLoop([&] { status = placement_->pipeline().Submit(std::move(request), collector_.Handler()); });
    return status;
  }
  void ExpectAnswer(GenerationId id, int prompt, int answer) {
    const Collector::Answer got = collector_[id];
    EXPECT_EQ(got.tokens, FakeAnswer(Prompt(id, prompt), answer, placement_->n_vocab())) << "generation " << id;
    EXPECT_EQ(got.finish, FinishReason::kLength) << got.error.message;
    EXPECT_EQ(got.events_after_end, 0);
    for (std::size_t i = 0; i < got.positions.size(); ++i) EXPECT_EQ(got.positions[i], prompt + static_cast<int>(i));
  }
  ScheduleStats Stats() {
    ScheduleStats stats;
    placement_->OnLoop([&] { stats = placement_->pipeline().stats(); });
    return stats;
  }

  FakePlacement::Options options_;
  Collector collector_;  // outlives the pipeline, whose end it hears of
  std::unique_ptr<FakePlacement> placement_;
};

class PipelineCuts : public PipelineTest, public ::testing::WithParamInterface<std::tuple<int, WireType>> {};

TEST_P(PipelineCuts, EveryCutGivesTheSameTokensAloneAndInCompany) {
  std::tie(options_.stages, options_.wire_type) = GetParam();
  Make();
  ASSERT_TRUE(Submit(1, 150, 20).ok());
  ASSERT_TRUE(collector_.WaitForEnds(1));
  ExpectAnswer(1, 150, 20);
  for (GenerationId id = 2; id <= 25; ++id) ASSERT_TRUE(Submit(id, 1 + static_cast<int>(id * 13 % 170), 25).ok());
  ASSERT_TRUE(collector_.WaitForEnds(25));
  for (GenerationId id = 2; id <= 25; ++id) ExpectAnswer(id, 1 + static_cast<int>(id * 13 % 170), 25);
  placement_->OnLoop([&] {
    const std::vector<StageTotals> totals = placement_->pipeline().stage_totals();
    ASSERT_EQ(totals.size(), static_cast<std::size_t>(options_.stages));
    for (const StageTotals& total : totals) EXPECT_EQ(total.batches, totals[0].batches);
  });
  const ScheduleStats stats = Stats();
  EXPECT_EQ(stats.running + stats.waiting + stats.in_flight, 0);
  EXPECT_EQ(placement_->worker(0).stats().batches, placement_->worker(options_.stages - 1).stats().batches);
}

INSTANTIATE_TEST_SUITE_P(Stages, PipelineCuts,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4),
                                            ::testing::Values(WireType::kF32, WireType::kF16, WireType::kBf16)));

TEST_F(PipelineTest, SmallCachesPreemptAndStillGiveTheSameTokens) {
  options_.stages = 3;
  options_.schedule.kv_tokens_max = 128;
  Make();
  for (GenerationId id = 1; id <= 12; ++id) ASSERT_TRUE(Submit(id, 20, 30).ok());
  ASSERT_TRUE(collector_.WaitForEnds(12));
  for (GenerationId id = 1; id <= 12; ++id) ExpectAnswer(id, 20, 30);
  EXPECT_GT(Stats().preemptions, 0U);
}

TEST_F(PipelineTest, WhatItGivesIsMeasured) {
  options_.stages = 2;
  options_.compute = std::chrono::microseconds(200);
  Make();
  EXPECT_EQ(placement_->pipeline().speeds(), ObservedSpeeds());
  ASSERT_TRUE(Submit(1, 200, 40).ok());
  ASSERT_TRUE(collector_.WaitForEnds(1));
  const ObservedSpeeds alone = placement_->pipeline().speeds();
  EXPECT_GT(alone.tokens_s, 0);
  EXPECT_GT(alone.prompt_tokens_s, 0);
  EXPECT_EQ(alone.tokens_s_many, 0);
  placement_->OnLoop([&] {
    for (GenerationId id = 2; id <= 5; ++id) {
      GenerationRequest request{id, Prompt(id, 10), 0, 200, Greedy()};
      EXPECT_TRUE(placement_->pipeline().Submit(std::move(request), collector_.Handler()).ok());
    }
  });
  ASSERT_TRUE(collector_.WaitForEnds(5));
  const ObservedSpeeds together = placement_->pipeline().speeds();
  EXPECT_GT(together.tokens_s_many, 0);
  EXPECT_GT(together.streams, 1);
  EXPECT_LT(together.streams, 4.01);
}

TEST_F(PipelineTest, ACancelledGenerationSaysNothingMore) {
  options_.stages = 3;
  options_.compute = std::chrono::microseconds(500);
  options_.schedule.slots_max = 2;
  Make();
  ASSERT_TRUE(Submit(1, 10, 4000).ok());
  ASSERT_TRUE(Submit(2, 10, 60).ok());
  ASSERT_TRUE(Submit(3, 10, 60).ok());
  ASSERT_TRUE(collector_.WaitForTokens(1, 5));
  std::size_t before = 0;
  placement_->OnLoop([&] {
    placement_->pipeline().Cancel(1);
    placement_->pipeline().Cancel(99);
    before = collector_[1].tokens.size();
    EXPECT_EQ(placement_->pipeline().stats().slots_free + placement_->pipeline().stats().running, 2);
  });
  ASSERT_TRUE(collector_.WaitForEnds(2));
  EXPECT_EQ(collector_[1].tokens.size(), before);
  EXPECT_FALSE(collector_[1].finish.has_value());
  ExpectAnswer(2, 10, 60);
  ExpectAnswer(3, 10, 60);
  EXPECT_EQ(Stats().slots_free, 2);
}

TEST_F(PipelineTest, HandlersMaySubmitAndCancel) {
  options_.stages = 2;
  Make();
  GenerationRequest request;
  request.id = 1;
  request.tokens = Prompt(1, 5);
  request.tokens_max = 100;
  request.sampling = Greedy();
  placement_->OnLoop([&] {
    const Status status = placement_->pipeline().Submit(request, [&, seen = 0](const ScheduleEvent& event) mutable {
      collector_.Take(event);
      if (++seen != 3) return;
      placement_->pipeline().Cancel(1);
      GenerationRequest next;
      next.id = 2;
      next.tokens = Prompt(2, 5);
      next.tokens_max = 4;
      next.sampling = Greedy();
      EXPECT_TRUE(placement_->pipeline().Submit(std::move(next), collector_.Handler()).ok());
    });
    EXPECT_TRUE(status.ok());
  });
  ASSERT_TRUE(collector_.WaitForEnds(1));
  ExpectAnswer(2, 5, 4);
  EXPECT_EQ(collector_[1].tokens.size(), 3U);
}

class PipelineDeath : public PipelineTest, public ::testing::WithParamInterface<int> {};

TEST_P(PipelineDeath, ADeadStageEndsEverythingAndHangsNothing) {
  options_.stages = 3;
  options_.compute = std::chrono::microseconds(300);
  Make();
  for (GenerationId id = 1; id <= 12; ++id) ASSERT_TRUE(Submit(id, 10, 3000).ok());
  ASSERT_TRUE(collector_.WaitForTokens(1, 3));
  placement_->worker(GetParam()).Stop();
  ASSERT_TRUE(collector_.WaitForEnds(12));
  for (GenerationId id = 1; id <= 12; ++id) {
    EXPECT_EQ(collector_[id].finish, FinishReason::kError);
    EXPECT_EQ(collector_[id].error.code, ErrorCode::kUnavailable);
    EXPECT_EQ(collector_[id].events_after_end, 0);
  }
  const Status status = Submit(13, 10, 10);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
}

INSTANTIATE_TEST_SUITE_P(Stages, PipelineDeath, ::testing::Values(0, 1, 2));

TEST_F(PipelineTest, AStageThatRestsGivesTheSameTokensAndStopsAtOnce) {
  options_.stages = 2;
  options_.compute = std::chrono::microseconds(500);
  Make();
  placement_->worker(1).SetRest(2);
  ASSERT_TRUE(Submit(1, 20, 30).ok());
  ASSERT_TRUE(collector_.WaitForEnds(1));
  ExpectAnswer(1, 20, 30);
  EXPECT_GT(placement_->worker(1).stats().rest_us, 0U);
  EXPECT_EQ(placement_->worker(0).stats().rest_us, 0U);
  placement_->worker(1).SetRest(1e9);  // never longer than kRestMax, and Stop does not wait for it
  ASSERT_TRUE(Submit(2, 20, 30).ok());
  ASSERT_TRUE(collector_.WaitForTokens(2, 1));
  placement_->pipeline().Stop();
  EXPECT_EQ(collector_[2].error.code, ErrorCode::kUnavailable);
}

TEST_F(PipelineTest, AWorkerCountsRowsBetweenThePointsOfTheCostModel) {
  options_.stages = 2;
  Make();
  ASSERT_TRUE(Submit(1, 70, 3).ok());  // passes of 64, 6 and twice 1 row
  ASSERT_TRUE(collector_.WaitForEnds(1));
  ExpectAnswer(1, 70, 3);
  for (int stage = 0; stage < 2; ++stage) {
    const StageWorkerStats stats = placement_->worker(stage).stats();
    EXPECT_EQ(stats.batches, 4U);
    EXPECT_EQ(stats.more_rows, (CountedRows{2, 4, 6, 56}));
    EXPECT_EQ(stats.output_batches, 3U);
    EXPECT_EQ(stats.output_more_rows, (CountedRows{0, 0, 0, 0}));
    EXPECT_EQ(stats.kv_many_rows, 64U * 65 / 2);
    EXPECT_EQ(stats.kv_rows, 65U + 66 + 67 + 68 + 69 + 70 + 71 + 72);
  }
}

TEST_F(PipelineTest, StopEndsWhatRuns) {
  options_.stages = 2;
  options_.compute = std::chrono::microseconds(300);
  Make();
  for (GenerationId id = 1; id <= 3; ++id) ASSERT_TRUE(Submit(id, 200, 3000).ok());
  ASSERT_TRUE(collector_.WaitForTokens(1, 1));
  placement_->pipeline().Stop();
  for (GenerationId id = 1; id <= 3; ++id) EXPECT_EQ(collector_[id].error.code, ErrorCode::kUnavailable);
  placement_->pipeline().Stop();
}

TEST_F(PipelineTest, AFailedMicroBatchEndsItsOwnAndTheRestGoesOn) {
  for (int stage = 0; stage < 3; ++stage) {
    Collector collector;
    FakePlacement::Options options = options_;
    options.stages = 3;
    options.failing_stage = stage;
    options.fail_at = 4;
    FakePlacement placement(options);
    placement.OnLoop([&] {
      for (GenerationId id = 1; id <= 6; ++id) {
        GenerationRequest request;
        request.id = id;
        request.tokens = Prompt(id, 90);
        request.tokens_max = 20;
        request.sampling = Greedy();
        EXPECT_TRUE(placement.pipeline().Submit(std::move(request), collector.Handler()).ok());
      }
    });
    ASSERT_TRUE(collector.WaitForEnds(6)) << "failing stage " << stage;
    int failed = 0;
    for (GenerationId id = 1; id <= 6; ++id) {
      const Collector::Answer answer = collector[id];
      const bool error = answer.finish == FinishReason::kError;
      failed += error;
      if (!error) { EXPECT_EQ(answer.tokens, FakeAnswer(Prompt(id, 90), 20, placement.n_vocab())); }
    }
    EXPECT_GE(failed, 1);
    EXPECT_LT(failed, 6);
  }
}

TEST_F(PipelineTest, GarbageOnTheLinksIsRefusedAndHarmless) {
  options_.stages = 2;
  options_.compute = std::chrono::microseconds(200);
  Make();
  ASSERT_TRUE(Submit(1, 100, 50).ok());
  FrameBytes stale = EncodeControl(ControlMessage{{RewindSequence{0, 0}}}, 99);
  FrameBytes cut = EncodeControl(ControlMessage{{RewindSequence{0, 0}}}, 1);
  cut.resize(cut.size() - 3);
  ResultMessage foreign;
  foreign.batch = 1;
  for (int i = 0; i < 20; ++i) {
    placement_->Inject(stale);
    placement_->Inject(cut);
    placement_->Inject({});
    placement_->Inject(FrameBytes(100 + i, static_cast<std::uint8_t>(i)));
    placement_->Inject(EncodeResult(foreign, 1));
    placement_->InjectResult(EncodeResult(foreign, 7));
    placement_->InjectResult(FrameBytes(50, 0xFF));
    placement_->InjectResult(stale);
    ResultMessage unknown;
    unknown.batch = 1'000'000 + i;
    unknown.timings.resize(40);
    placement_->InjectResult(EncodeResult(unknown, 1));
  }
  ASSERT_TRUE(collector_.WaitForEnds(1));
  ExpectAnswer(1, 100, 50);
  // What was injected last may still be queued behind the answer's last frame.
  ASSERT_TRUE(Submit(2, 10, 5).ok());
  ASSERT_TRUE(collector_.WaitForEnds(2));
  EXPECT_EQ(placement_->worker(0).stats().frames_refused, 100U);
  ExpectAnswer(2, 10, 5);
}

// Events that wait for the first stage: until it has passed on the next micro-batch, but not for longer than allowed,
// and whatever ends first lets them go.
class HeldEvents : public PipelineTest {
 protected:
  static constexpr int kTokens = 3000;
  static constexpr DurationUs kForever = 3'600'000'000;

  // How many tokens had been computed when the first of an answer was told.
  std::uint64_t DecodedByTheFirst() {
    Make();
    std::optional<std::uint64_t> decoded;
    GenerationRequest request;
    request.id = 1;
    request.tokens = Prompt(1, 10);
    request.tokens_max = kTokens;
    request.sampling = Greedy();
    placement_->OnLoop([&] {
      EXPECT_TRUE(placement_->pipeline()
                      .Submit(std::move(request),
                              [&](const ScheduleEvent& event) {
                                if (!decoded) decoded = placement_->pipeline().stats().tokens_decoded;
                                collector_.Take(event);
                              })
                      .ok());
    });
    EXPECT_TRUE(collector_.WaitForEnds(1));
    return decoded.value_or(0);
  }
};

TEST_F(HeldEvents, NobodySaysThatTheFirstStageHasPassedAnythingOn) {
  options_.stages = 2;
  options_.hold_events_max_us = kForever;
  EXPECT_EQ(DecodedByTheFirst(), kTokens);
  ExpectAnswer(1, 10, kTokens);
}

TEST_F(HeldEvents, TheFirstStageSaysIt) {
  options_.stages = 2;
  options_.hold_events_max_us = kForever;
  options_.first_tells = true;
  EXPECT_LT(DecodedByTheFirst(), kTokens / 2);
  ExpectAnswer(1, 10, kTokens);
}

TEST_F(HeldEvents, NotForLongerThanAllowed) {
  options_.stages = 2;
  options_.hold_events_max_us = 1;
  EXPECT_LT(DecodedByTheFirst(), kTokens / 2);
  ExpectAnswer(1, 10, kTokens);
}

TEST_F(HeldEvents, AreToldBeforeThePipelineBreaks) {
  options_.stages = 2;
  options_.hold_events_max_us = kForever;
  options_.compute = std::chrono::milliseconds(5);  // so that the cache is not full before it breaks
  Make();
  constexpr int kLong = 1'000'000;
  ASSERT_TRUE(Submit(1, 10, kLong).ok());
  while (Stats().tokens_decoded < 100) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(collector_[1].tokens.empty());
  placement_->worker(1).Stop();
  ASSERT_TRUE(collector_.WaitForEnds(1));
  const Collector::Answer got = collector_[1];
  EXPECT_EQ(got.error.code, ErrorCode::kUnavailable);
  EXPECT_GE(got.tokens.size(), 100U);
  EXPECT_EQ(got.events_after_end, 0);
  EXPECT_EQ(got.tokens, FakeAnswer(Prompt(1, 10), static_cast<int>(got.tokens.size()), placement_->n_vocab()));
}

TEST_F(HeldEvents, OfACancelledAnswerAreNotTold) {
  options_.stages = 2;
  options_.hold_events_max_us = kForever;
  options_.compute = std::chrono::milliseconds(5);
  Make();
  ASSERT_TRUE(Submit(1, 10, 3000).ok());
  ASSERT_TRUE(Submit(2, 10, 40).ok());
  while (Stats().tokens_decoded < 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  placement_->OnLoop([&] { placement_->pipeline().Cancel(1); });
  ASSERT_TRUE(collector_.WaitForEnds(1));
  ExpectAnswer(2, 10, 40);
  EXPECT_TRUE(collector_[1].tokens.empty());
  EXPECT_FALSE(collector_[1].finish);
}

// What one decode step takes by the wall clock with an engine that costs next to nothing: all hops, and a little
// computing, which is the same in total whatever the cut. Rounds alternate between the cuts, so that a machine busy
// with other things is as unfair to one as to the other; the least of them is what the hops cost, the median how loaded
// it is.
TEST_F(PipelineTest, HopsAreCheap) {
  constexpr int kRounds = 15, kSteps = 100;
  std::map<int, std::vector<double>> step_us;
  for (int round = 0; round < kRounds; ++round) {
    for (const int stages : {1, 3}) {
      FakePlacement::Options options = options_;
      options.stages = stages;
      Collector collector;
      FakePlacement placement(options);
      GenerationRequest request;
      request.id = 1;
      request.tokens = Prompt(1, 4);
      request.tokens_max = kSteps;
      request.sampling = Greedy();
      const auto start = std::chrono::steady_clock::now();
      placement.OnLoop([&] { EXPECT_TRUE(placement.pipeline().Submit(request, collector.Handler()).ok()); });
      ASSERT_TRUE(collector.WaitForEnds(1));
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
      step_us[stages].push_back(took.count() / kSteps);
    }
  }
  for (auto& [stages, us] : step_us) {
    std::sort(us.begin(), us.end());
    std::printf("%d stages: a decode step takes %.0f us at best, %.0f us in the median\n", stages, us.front(),
                us[us.size() / 2]);
  }
  // A step of one stage is the way there and back; each stage more is one way more. A queue that is polled, or a thread
  // that is woken late, costs many times that on any machine.
  EXPECT_LT(step_us[3].front(), 10 * step_us[1].front());
}

}  // namespace
}  // namespace shoal
