// An engine for tests of the pipeline: hidden states are hashes of (token, position, layer) and of what the layer's KV
// cache holds, so that a lost, doubled or reordered activation changes every token after it, and the cut changes none.
//
// A hash crosses the wire as eight small integers, which f32, f16 and bf16 all carry exactly.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/vocabulary.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage_worker.h"

namespace shoal {

inline constexpr std::int32_t kFakeLayers = 12;

struct FakeEngineOptions {
  LayerRange layers;
  std::int32_t n_vocab = 0;
  std::int32_t sequences_max = 8;
  std::int32_t batch_rows_max = 64;
  std::int32_t kv_tokens_max = 4096;
  std::chrono::microseconds compute{0};  // of one Forward
  std::int64_t fail_at = -1;             // the Forward (counted from 0) that gives kInternal
};

std::unique_ptr<Engine> MakeFakeEngine(const FakeEngineOptions& options);

// The tokens that `count` greedy steps after `prompt` give.
std::vector<TokenId> FakeAnswer(std::vector<TokenId> prompt, int count, std::int32_t n_vocab);

// Greedy, and not ended by a token.
SamplingParams Greedy();

LayerRange FakeLayers(int stage, int stages);

// Stages over fake engines in this process, with a pipeline in front.
class FakePlacement {
 public:
  struct Options {
    int stages = 1;
    ScheduleOptions schedule;  // its `stages` is set from the above
    WireType wire_type = WireType::kF16;
    std::chrono::microseconds compute{0};
    int failing_stage = -1;
    std::int64_t fail_at = -1;
    Epoch epoch = 1;
    std::uint64_t sent_bytes_max = 0;
    DurationUs hold_events_max_us = 0;
    bool first_tells = false;  // the pipeline, what it has passed on
  };
  // `stages`: those of an earlier epoch; null or none: fresh.
  explicit FakePlacement(const Options& options, std::vector<std::unique_ptr<Stage>> stages = {});
  ~FakePlacement();
  // Stops everything in the middle of what it does.
  std::vector<std::unique_ptr<Stage>> TakeStages();

  RealLoop& loop() { return loop_; }
  Pipeline& pipeline() { return *pipeline_; }
  StageWorker& worker(int stage) { return *workers_[stage]; }
  std::int32_t n_vocab() const { return n_vocab_; }
  // Runs `task` on the loop and waits for it.
  void OnLoop(const std::function<void()>& task);
  // Puts a frame on the link to stage 0, between those of the pipeline.
  void Inject(FrameBytes frame) { (void)injector_->Send(std::move(frame)); }
  // The same for the link to the head.
  void InjectResult(FrameBytes frame) { (void)result_injector_->Send(std::move(frame)); }

 private:
  RealLoop loop_;
  std::int32_t n_vocab_ = 0;
  std::vector<std::unique_ptr<StageWorker>> workers_;
  std::unique_ptr<FrameSender> injector_, result_injector_;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace shoal
