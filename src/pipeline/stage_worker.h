// One stage's compute thread: takes frames from the stage before, runs them, passes frames on.
//
// Knows its two (or three) links and its Stage; not which model, how many stages, or who asked.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "base/ids.h"
#include "stage/stage.h"
#include "transport/transport.h"
#include "wire/messages.h"

namespace shoal {

struct StageWorkerOptions {
  StageIndex index = 0;
  Epoch epoch = 0;
  WireType wire_type = WireType::kF16;  // of the hidden states it sends
};

struct StageWorkerStats {
  std::uint64_t batches = 0, rows = 0;
  std::uint64_t compute_us = 0, wait_us = 0, wire_us = 0;
  std::uint64_t frames_refused = 0;  // stale epoch or malformed
  std::uint64_t bytes_out = 0;
};

class StageWorker {
 public:
  // `next` leads to the next stage; null on the last stage. `results` leads to the head.
  StageWorker(std::unique_ptr<Stage> stage, const StageWorkerOptions& options, std::unique_ptr<FrameReceiver> input,
              std::unique_ptr<FrameSender> next, std::unique_ptr<FrameSender> results);
  ~StageWorker();  // Stop()

  void Start();
  // Closes the links, aborts what is computing, joins. Idempotent.
  void Stop();
  StageWorkerStats stats() const;  // any thread
  const Stage& stage() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal
