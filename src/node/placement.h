// One model placed on this process: its stages on compute threads, linked in memory, and the pipeline that feeds them.
//
// Knows no HTTP and no text. Stages talk in frames only, so that a stage in another process changes nothing above.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage_worker.h"
#include "runtime/loop.h"
#include "wire/tensor.h"

namespace shoal {

struct PlacementOptions {
  std::string stages = "1";         // "3", or ranges "0-9,10-19,20-29"
  std::int32_t context_tokens = 0;  // KV cells; 0: what the model was trained for, at most 4096
  std::int32_t slots = 8;           // generations that run at once
  std::int32_t queue_max = 64;      // more wait
  std::int32_t micro_batch_tokens = 64;
  std::int32_t threads = 0;            // of each stage; 0: the machine's cores shared out
  std::vector<std::vector<int>> cpus;  // of each stage; empty: the OS decides
  WireType wire_type = WireType::kF16;
  KvType kv_type = KvType::kF16;
  bool flash_attention = true;
  bool reproducible = false;           // a generation's tokens never depend on what else runs (slower)
  std::uint64_t memory_bytes_max = 0;  // all stages together; 0: what the machine has
  std::function<bool(std::size_t stage, float fraction)> on_progress;  // false cancels
};

struct StageReport {
  LayerRange layers;
  EngineMemory memory;
  std::int32_t threads = 0;
  StageWorkerStats stats;
};

class Placement {
 public:
  // Checks the cuts and the memory of all stages, then loads them one after the other.
  // Errors: kInvalidArgument, kUnsupported, kOutOfMemory, kCancelled, kIo, kCorrupt. Blocks while loading.
  static Result<std::unique_ptr<Placement>> Open(Loop& loop, std::shared_ptr<const ModelFile> model,
                                                 std::shared_ptr<const Vocabulary> vocabulary,
                                                 const PlacementOptions& options);
  ~Placement();  // Stop(); not on the loop

  // Ends running generations with kUnavailable and joins all threads. Not on the loop.
  void Stop();

  Pipeline& pipeline() { return *pipeline_; }  // use on the loop only
  std::int32_t context_tokens() const { return context_tokens_; }
  std::vector<StageReport> Report() const;  // any thread

 private:
  Placement() = default;
  std::int32_t context_tokens_ = 0;
  std::vector<LayerRange> ranges_;
  std::vector<std::unique_ptr<StageWorker>> workers_;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace shoal
