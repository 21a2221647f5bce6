// One stage that a SimHost keeps, shared by host.cc and host_work.cc.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "sim/host.h"

namespace shoal::sim {

struct SimHost::Hosted {
  struct Asked {  // a generation that waits for the head
    std::uint64_t number = 0;
    GenerationRequest request;
    Accepted accepted;
    SimHead::Sink sink;
  };

  std::uint64_t serial = 0;  // of all stages here; the same epoch may be loaded twice
  PlacementRecord placement;
  std::int32_t index = 0;
  StageSource source;
  bool linking = false, started = false;
  std::unique_ptr<SimStage> stage;  // once loaded

  Outgoing next, results;
  std::set<StreamId> inputs;  // from the stage before; at the head: results of the others
  std::set<StageIndex> heard_stages;
  std::vector<FrameBytes> early_results;

  // The worker.
  std::deque<FrameBytes> queue;
  bool busy = false, ended = false, input_ended = false;
  bool failed = false;                                // its stage is not to be used again
  std::map<int, std::shared_ptr<SimOutlet>> outlets;  // to copies elsewhere, by node
  std::size_t rows_untold = 0;
  TimeUs told_us = 0;

  std::unique_ptr<SimHead> head;  // at index 0, once linked
  std::vector<Asked> waiting;
  std::uint64_t last_waiting = 0;
};

}  // namespace shoal::sim
