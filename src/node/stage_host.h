// The stages that run on this node: loaded, linked to their neighbours, drained and dropped as the cluster says.
//
// Knows no members and no rules of placement: cluster/ decides, this obeys. What blocks (loading, links, unloading) is
// done by tasks; nothing here blocks the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "api/backend.h"
#include "base/ids.h"
#include "base/result.h"
#include "cluster/placement_record.h"
#include "node/model_library.h"
#include "node/pipe_rendezvous.h"
#include "pipeline/pipeline.h"
#include "runtime/blocking_tasks.h"
#include "runtime/loop.h"
#include "transport/stream_link.h"

namespace shoal {

struct StageHostOptions {
  std::uint64_t memory_bytes_max = 0;  // of one stage; 0: what the machine has
  std::int32_t threads = 0;            // of a stage; 0: all cores
  // A stream of activations to `peer`. Blocks, at most some seconds; any thread.
  std::function<Result<StreamLink>(const NodeId& peer)> open_pipe;
  // On the loop. `on_ready`: a load has ended; or later, with an error, a stage is broken.
  std::function<void(const std::string& model, Epoch epoch, Status status)> on_ready;
  std::function<void(const std::string& model, Epoch epoch)> on_drained;
};

class StageHost {
 public:
  // All must outlive it.
  StageHost(Loop& loop, ModelLibrary& library, BlockingTasks& tasks, PipeRendezvous& pipes, StageHostOptions options);
  ~StageHost();  // Stop(); not on the loop

  // On the loop. Unknown stages are ignored.
  void Load(const PlacementRecord& placement, std::int32_t index);
  void Activate(const PlacementRecord& placement, std::int32_t index);
  void Drain(const PlacementRecord& placement, std::int32_t index);
  void Unload(const std::string& model, Epoch epoch);

  // A generation on the head that is here. Any thread; blocks until the head is linked with its stages, at most some
  // seconds. Errors: kStale (no such head here, or it takes no more), kUnavailable, and as StartGeneration.
  Result<std::unique_ptr<GenerationHandle>> Generate(const std::string& model, Epoch epoch, GenerateOptions options);

  // Time of all stages of each model whose head is here, by model. Not on the loop.
  std::map<std::string, std::vector<StageTotals>> HeadTotals();

  // Ends everything. Not on the loop; nothing else may be called after.
  void Stop();

 private:
  struct Hosted;
  using Key = std::pair<std::string, Epoch>;
  std::shared_ptr<Hosted> Find(const std::string& model, Epoch epoch);
  Status LoadNow(Hosted& hosted);
  Status LinkNow(Hosted& hosted);
  Status StartWorker(Hosted& hosted, std::unique_ptr<FrameSender> next);
  Status StartHead(Hosted& hosted, std::unique_ptr<FrameSender> next);
  Result<StreamLink> OpenPipe(const Hosted& hosted, std::int32_t to, PipeKind kind);
  void Report(const std::shared_ptr<Hosted>& hosted, Status status);
  void PollDrained(const std::shared_ptr<Hosted>& hosted);

  Loop& loop_;
  ModelLibrary& library_;
  BlockingTasks& tasks_;
  PipeRendezvous& pipes_;
  const StageHostOptions options_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Hosted>> hosted_;  // guarded by mutex_
  bool stopped_ = false;                           // guarded by mutex_
};

}  // namespace shoal
