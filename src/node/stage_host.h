// The stages that run on this node, and the copies it keeps: loaded, taken over, linked to their neighbours and dropped
// as the cluster says.
//
// Knows no members and no rules of placement: cluster/ decides, this obeys. What blocks (loading, links, unloading) is
// done by tasks; nothing here blocks the loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "api/backend.h"
#include "base/ids.h"
#include "base/result.h"
#include "cluster/cluster.h"
#include "node/head.h"
#include "node/model_library.h"
#include "node/pipe_rendezvous.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage_worker.h"
#include "runtime/blocking_tasks.h"
#include "runtime/loop.h"
#include "schedule/scheduler.h"
#include "transport/stream_link.h"

namespace shoal {

struct HostedStage;
struct EndedHeads;

struct StageHostOptions {
  NodeId self;
  std::uint64_t memory_bytes_max = 0;  // of one stage; 0: what the machine has
  bool drafts = true;                  // heads here may compute what probably comes next (schedule/drafts.h)
  // Threads of a stage with weights of a type, 0: one on each fast core. Any thread. Empty: 0.
  std::function<std::int32_t(const std::string& quantization)> threads;
  // The model of a placement with the layers of a stage here. Blocks while they come; a task; `cancelled` from any
  // thread. Errors: as NodeWeights::Obtain.
  std::function<Result<LibraryModel>(const PlacementRecord&, LayerRange, const std::function<bool()>& cancelled)>
      obtain;
  // Opens the engine of a stage; any thread; blocks. Empty: Engine::Open.
  EngineOpener open_engine;
  // A stream of activations to `peer`. Blocks, at most some seconds; any thread.
  std::function<Result<StreamLink>(const NodeId& peer)> open_pipe;
  // The same for what copies of stages here are told: it waits behind activations. Empty: they are told nothing.
  std::function<Result<StreamLink>(const NodeId& peer)> open_copy;
  // On the loop. `on_ready`: a load has ended; or later, with an error, a stage is gone. `on_broken`: the stages here
  // are whole, their links to the others are not.
  std::function<void(const std::string& model, Epoch epoch, std::int32_t index, Status status)> on_ready;
  std::function<void(const std::string& model, Epoch epoch)> on_broken;
  std::function<void(const std::string& model, LayerRange layers, Status status)> on_copy_ready;
};

class StageHost {
 public:
  // All must outlive it.
  StageHost(Loop& loop, ModelLibrary& library, BlockingTasks& tasks, PipeRendezvous& pipes, StageHostOptions options);
  ~StageHost();  // Stop(); not on the loop

  // On the loop. Unknown stages are ignored.
  void Load(const PlacementRecord& placement, std::int32_t index, const StageSource& source);
  void Activate(const PlacementRecord& placement, std::int32_t index);
  void Unload(const std::string& model, Epoch epoch, std::int32_t index);
  void LoadCopy(const PlacementRecord& placement, std::int32_t index);
  void DropCopy(const std::string& model, LayerRange layers);
  // Who keeps copies of each stage of a placement: those of the stages here are told what the stages' caches hold.
  void SetCopies(const std::string& model, Epoch epoch, const std::vector<std::vector<NodeId>>& copies);

  // As StageWorker::SetRest, of every stage here, those to come too.
  void SetRest(double rest);
  // Nodes that compute a draft only if it is right at least so often: heads here, those to come too, keep to that.
  void SetDraftChances(std::map<NodeId, double> chances);

  // A stream on which the stage of a copy here tells it what it holds, to its end. Blocks: a thread of its own.
  void ServeCopy(int fd);

  // A generation on the head that is here. Any thread; blocks until the head is linked with its stages, at most some
  // seconds. Errors: kStale (no such head here, or it takes no more), kUnavailable, and as StartGeneration.
  Result<std::unique_ptr<GenerationHandle>> Generate(const std::string& model, Epoch epoch, GenerateOptions options);

  // Time of all stages of each model whose head is here, by model. Not on the loop.
  std::map<std::string, std::vector<StageTotals>> HeadTotals();
  // The stages that run here, and what they have done. Any thread but a stage's.
  struct Work {
    PlacementRecord placement;
    std::int32_t index = 0;
    StageWorkerStats stats;
    ObservedSpeeds observed;  // of the whole placement, where its head is
  };
  std::vector<Work> Works();
  // Of all heads that were here since start. Not on the loop.
  HeadCounts Counts();

  // Ends everything. Not on the loop; nothing else may be called after.
  void Stop();

 private:
  using Key = std::tuple<std::string, Epoch, std::int32_t>;
  using CopyKey = std::tuple<std::string, std::int32_t, std::int32_t>;  // model, layers
  std::shared_ptr<HostedStage> Make(const PlacementRecord& placement, std::int32_t index);
  std::shared_ptr<HostedStage> Find(const std::string& model, Epoch epoch, std::int32_t index);
  std::shared_ptr<HostedStage> TakeCopy(const std::string& model, LayerRange layers);
  void EndSoon(const std::shared_ptr<HostedStage>& hosted);
  void TakeOutlets(HostedStage& hosted);
  void Report(const std::shared_ptr<HostedStage>& hosted, Status status);
  void ReportBroken(const std::shared_ptr<HostedStage>& hosted, const std::string& why);
  // Tasks; but for LoadAfter, hosted.work is held.
  Status LoadAfter(const std::vector<std::shared_ptr<HostedStage>>& dropped, HostedStage& hosted);
  Status LoadNow(HostedStage& hosted);
  Status Obtain(HostedStage& hosted);
  Status LinkNow(const std::shared_ptr<HostedStage>& hosted);
  Status StartWorker(HostedStage& hosted, std::unique_ptr<FrameSender> next);
  Status StartHead(const std::shared_ptr<HostedStage>& shared, std::unique_ptr<FrameSender> next);
  double DraftChance(const PlacementRecord& placement) const;  // mutex_ is held
  Result<std::unique_ptr<FrameSender>> OpenPipe(const HostedStage& hosted, std::int32_t to, PipeKind kind);

  Loop& loop_;
  ModelLibrary& library_;
  BlockingTasks& tasks_;
  PipeRendezvous& pipes_;
  const StageHostOptions options_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<HostedStage>> hosted_;      // guarded by mutex_
  std::map<CopyKey, std::shared_ptr<HostedStage>> copies_;  // guarded by mutex_
  bool stopped_ = false;                                    // guarded by mutex_
  std::atomic<double> rest_{0};
  std::map<NodeId, double> draft_chances_;             // guarded by mutex_
  const std::shared_ptr<EndedHeads> ended_;            // of the heads that have ended
  std::vector<std::shared_ptr<HostedStage>> dropped_;  // loop only: since the last load
};

}  // namespace shoal
