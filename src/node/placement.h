// One model placed on this process: its stages on compute threads, linked in memory, and the pipeline that feeds them.
//
// Knows no HTTP and no text. Stages talk in frames only, so that a stage in another process changes nothing above.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "node/stage_plan.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage_worker.h"
#include "runtime/loop.h"

namespace shoal {

struct StageReport {
  LayerRange layers;
  EngineMemory memory;
  std::int32_t threads = 0;
  StageWorkerStats stats;
};

class Placement {
 public:
  // Checks the cuts and the memory of all stages, then loads them one after the other, the last one's `vocabulary`
  // meanwhile.
  // Errors: kInvalidArgument, kUnsupported, kOutOfMemory, kCancelled, kIo, kCorrupt. Blocks while loading.
  static Result<std::unique_ptr<Placement>> Open(Loop& loop, const std::shared_ptr<const ModelFile>& model,
                                                 const Stage::OpenVocabulary& vocabulary,
                                                 const PlacementOptions& options);
  ~Placement();  // Stop(); not on the loop

  // Ends running generations with kUnavailable and joins all threads. Not on the loop.
  void Stop();

  // A stage is lost for good, and nothing will be answered. Any thread.
  bool broken() const { return broken_; }

  Pipeline& pipeline() { return *pipeline_; }  // use on the loop only
  std::int32_t context_tokens() const { return context_tokens_; }
  std::vector<StageReport> Report() const;  // any thread

 private:
  Placement() = default;
  std::atomic<bool> broken_{false};
  std::int32_t context_tokens_ = 0;
  std::vector<LayerRange> ranges_;
  std::vector<std::unique_ptr<StageWorker>> workers_;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace shoal
