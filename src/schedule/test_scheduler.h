// A scheduler without stages: the tests play the stages' part one micro-batch at a time. Tests only.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "schedule/scheduler.h"

namespace shoal {

inline std::vector<TokenId> Count(TokenId first, int count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

inline GenerationRequest Request(GenerationId id, std::vector<TokenId> tokens, int tokens_max = 100) {
  GenerationRequest request;
  request.id = id;
  request.tokens = std::move(tokens);
  request.tokens_max = tokens_max;
  return request;
}

template <typename Op>
std::vector<Op> Ops(const MicroBatch& batch) {
  std::vector<Op> found;
  for (const ControlOp& op : batch.ops) {
    if (const auto* match = std::get_if<Op>(&op)) found.push_back(*match);
  }
  return found;
}

inline std::vector<GenerationId> Generations(const MicroBatch& batch) {
  std::vector<GenerationId> ids;
  for (const BatchRow& row : batch.rows) ids.push_back(row.generation);
  return ids;
}

inline int RowsOf(const MicroBatch& batch, GenerationId id) {
  int rows = 0;
  for (const BatchRow& row : batch.rows) rows += row.generation == id;
  return rows;
}

class SchedulerTest : public ::testing::Test {
 protected:
  void Make() { scheduler_ = std::make_unique<Scheduler>(options_); }
  void Submit(GenerationRequest request) {
    if (!scheduler_) Make();
    const Status status = scheduler_->Submit(std::move(request));
    ASSERT_TRUE(status.ok()) << status.error().message;
  }
  // Precondition: there is one.
  MicroBatch Next() {
    std::optional<MicroBatch> batch = scheduler_->Next();
    EXPECT_TRUE(batch.has_value());
    return batch ? std::move(*batch) : MicroBatch{};
  }
  bool Idle() { return !scheduler_->Next().has_value(); }
  // Every row with output gives `token`.
  std::vector<ScheduleEvent> Finish(const MicroBatch& batch, TokenId token, bool end = false,
                                    std::vector<StageTiming> timings = {}) {
    ResultMessage result;
    result.batch = batch.id;
    result.timings = std::move(timings);
    for (const BatchRow& row : batch.rows) {
      if (!row.output) continue;
      SampledToken sampled;
      sampled.token = token;
      sampled.end = end;
      result.rows.push_back({row.sequence, row.generation, row.position + 1, sampled});
    }
    std::vector<ScheduleEvent> events;
    scheduler_->OnResult(result, events);
    return events;
  }
  std::vector<ScheduleEvent> Fail(BatchId batch, GenerationId generation = 0) {
    std::vector<ScheduleEvent> events;
    scheduler_->OnFailure({batch, generation, 1, ErrorCode::kInternal, "broken"}, events);
    return events;
  }
  // Runs one request alone to its end; its slot then holds prompt and answer but for the last token.
  void RunToEnd(GenerationRequest request, TokenId token = 7) {
    const GenerationId id = request.id;
    Submit(std::move(request));
    for (;;) {
      const MicroBatch batch = Next();
      if (batch.rows.empty()) continue;
      for (const ScheduleEvent& event : Finish(batch, token)) {
        if (event.generation == id && event.finish) return;
      }
    }
  }

  ScheduleOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace shoal
