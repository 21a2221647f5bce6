// The head of a placement whose other stages may be on other nodes: the pipeline, stage 0, and what comes back.
//
// Has a loop of its own, so that tokens never wait for the cluster's business. Handles of generations share it: it ends
// after the last of them. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api/backend.h"
#include "node/generate.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage_worker.h"
#include "runtime/loop.h"

namespace shoal {

// What schedulers counted.
struct HeadCounts {
  RecoveryStats recovery;
  DraftStats drafts;
  HeadCounts& operator+=(const HeadCounts& other) {
    recovery += other.recovery;
    drafts += other.drafts;
    return *this;
  }
};
inline HeadCounts CountsOf(const ScheduleStats& stats) { return {stats.recovery, stats.drafts}; }

struct HeadOptions {
  ScheduleOptions schedule;
  Epoch epoch = 0;
  WireType wire_type = WireType::kF16;
  std::uint64_t sent_bytes_max = 0;  // memory of stage 0 for the hidden states it sent
  std::int32_t context_tokens = 0;
  std::int32_t n_vocab = 0;
  bool holds_events = false;  // until stage 0 has passed on what it got for them (PipelineOptions)
  // When a stage or a link is lost, once, on the head's loop: hand it on, do not destroy the Head in it.
  std::function<void(const std::string& why)> on_broken;
};

class Head : public std::enable_shared_from_this<Head> {
 public:
  // `next` leads to stage 1, null when there is one stage only; `results` come from stages 1, 2, ... in order.
  static std::shared_ptr<Head> Start(HeadOptions options, std::unique_ptr<Stage> stage,
                                     std::unique_ptr<FrameSender> next,
                                     std::vector<std::unique_ptr<FrameReceiver>> results);
  ~Head();  // Stop(); not on its loop

  // Errors: as StartGeneration.
  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options);
  void SetCopies(std::vector<std::shared_ptr<CopySink>> copies) {
    worker_->SetCopies(std::move(copies));
  }  // of stage 0
  // As StageWorker::SetRest, of stage 0. Any thread.
  void SetRest(double rest) { worker_->SetRest(rest); }
  // Drafts (schedule/drafts.h) only if they are right at least this often, and as the options say. Any thread.
  void SetDraftChance(double chance_min);
  // Of the stages in order; empty once stopped. Not on its loop.
  std::vector<StageTotals> Totals();
  // Ends running generations with kUnavailable and joins all threads. Idempotent. Not on its loop.
  void Stop();
  // Also after Stop: as of then. Not on its loop.
  ScheduleStats stats();
  ObservedSpeeds speeds() const { return pipeline_->speeds(); }  // any thread
  // Of stage 0. Any thread.
  StageWorkerStats worker_stats() const { return worker_->stats(); }
  // After Stop: stage 0 for the next epoch, as StageWorker::TakeStage.
  std::unique_ptr<Stage> TakeStage();

 private:
  explicit Head(HeadOptions options) : options_(std::move(options)) {}

  const HeadOptions options_;
  RealLoop loop_;
  std::unique_ptr<StageWorker> worker_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<const GenerateTarget> target_;
  std::atomic<GenerationId> next_id_{1};
  std::once_flag stopped_;
  std::mutex mutex_;
  ScheduleStats last_stats_;  // guarded by mutex_
};

}  // namespace shoal
