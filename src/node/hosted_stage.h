// A stage of a placement on this node, or the copy of one: loaded, perhaps running, ended.
//
// Knows not when: StageHost calls, from its tasks and the loop. Each member says who may touch it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/ids.h"
#include "cluster/cluster.h"
#include "model/model_info.h"
#include "node/copy_outlet.h"
#include "node/head.h"
#include "pipeline/stage_worker.h"
#include "schedule/scheduler.h"
#include "stage/stage.h"

namespace shoal {

struct EndedHeads {
  std::mutex mutex;
  HeadCounts counts;  // guarded by mutex
};

struct HostedStage {
  PlacementRecord placement;
  std::int32_t index = 0;
  StageSource source;
  std::atomic<bool> cancelled{false};
  bool linking = false;               // loop only
  bool taken = false;                 // loop only: another one will end it
  std::shared_ptr<HostedStage> from;  // set on the loop before its task starts: whose stage it takes

  std::mutex work;                         // held by the task that loads, links or ends it
  std::shared_ptr<const ModelFile> model;  // guarded by work
  std::unique_ptr<Stage> stage;            // guarded by work; while it does not run

  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;                                     // guarded by mutex: nothing will be started any more
  std::shared_ptr<Head> head;                             // guarded by mutex
  std::shared_ptr<EndedHeads> ended_heads;                // of the host
  std::unique_ptr<StageWorker> worker;                    // guarded by mutex
  std::map<NodeId, std::shared_ptr<CopyOutlet>> outlets;  // guarded by mutex: to copies elsewhere
  std::atomic<std::uint64_t> feeding{0};                  // of a copy: which stream tells it what it holds

  ~HostedStage();

  LayerRange layers() const { return placement.LayersOf(index); }
  std::string Name() const { return placement.model + " stage " + std::to_string(index); }

  // `mutex` is held.
  void TellWhoCopies();

  // Ends what runs, and gives the stage back as it is then; null when there is none, or it failed. Blocks while it is
  // loaded or linked, which it cancels.
  std::unique_ptr<Stage> Release();
};

}  // namespace shoal
