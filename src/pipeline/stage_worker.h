// One stage's compute thread: takes frames from the stage before, runs them, passes frames on. Its first word to the
// head is what the stage's KV cache holds.
//
// Knows its two (or three) links and its Stage; not which model, how many stages, or who asked.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/ids.h"
#include "pipeline/copy_sink.h"
#include "stage/stage.h"
#include "transport/transport.h"
#include "wire/messages.h"

namespace shoal {

struct StageWorkerOptions {
  StageIndex index = 0;
  Epoch epoch = 0;
  WireType wire_type = WireType::kF16;  // of the hidden states it sends
  std::uint64_t sent_bytes_max = 0;     // memory for those it keeps (Stage::KeepSent)
  // On its thread, when what came of a micro-batch has gone on, also that it failed.
  std::function<void(BatchId)> on_passed_on = {};
};

// The longest rest after one micro-batch.
inline constexpr std::chrono::milliseconds kRestMax{2000};

// Between which numbers of rows of a micro-batch a row more costs otherwise. Beyond the last, a pass takes as long as
// more of them do.
inline constexpr std::array<std::int32_t, 5> kCountedRows = {1, 2, 4, 8, 64};
inline constexpr std::size_t kCountedFewRows = 8;
// Rows of each micro-batch beyond kCountedRows[i], up to kCountedRows[i + 1].
using CountedRows = std::array<std::uint64_t, kCountedRows.size() - 1>;

struct StageWorkerStats {
  std::uint64_t batches = 0, rows = 0;
  CountedRows more_rows = {};
  // K and V that rows looked back on, in micro-batches of at most kCountedFewRows rows, and of more.
  std::uint64_t kv_rows = 0, kv_many_rows = 0;
  std::uint64_t output_batches = 0;  // of rows with an output
  CountedRows output_more_rows = {};
  std::uint64_t compute_us = 0, wait_us = 0, wire_us = 0;
  std::uint64_t rest_us = 0;         // by SetRest
  std::uint64_t frames_refused = 0;  // stale epoch or malformed
  std::uint64_t bytes_out = 0;
  std::uint64_t rows_replayed = 0;  // hidden states sent again
  std::uint64_t sent_bytes = 0;     // memory that those kept take
  std::uint64_t rows_copied = 0;    // told to copies elsewhere
};

class StageWorker {
 public:
  // `next` leads to the next stage; null on the last stage. `results` leads to the head.
  StageWorker(std::unique_ptr<Stage> stage, const StageWorkerOptions& options, std::unique_ptr<FrameReceiver> input,
              std::unique_ptr<FrameSender> next, std::unique_ptr<FrameSender> results);
  ~StageWorker();  // Stop()

  void Start();
  // Copies of the stage elsewhere: as it computes, they are told what its cache holds, as fast as they take it. Those
  // that it had and still has go on. Any thread; also before Start.
  void SetCopies(std::vector<std::shared_ptr<CopySink>> copies);
  // From now on a micro-batch begins at the earliest (1 + `rest`) times what one of its size takes at full speed after
  // the one before: it rests in between, and not at all if it is slower than that anyway. Any thread; 0: no rest.
  void SetRest(double rest);
  // Closes the links, aborts what is computing, joins. Idempotent.
  void Stop();
  // After Stop: the stage with its KV cache and what it sent, for the worker of the next epoch; its generations are
  // closed. Null when the engine failed: then it has to be loaded anew. At most once; then stage() may not be called.
  std::unique_ptr<Stage> TakeStage();
  StageWorkerStats stats() const;  // any thread
  const Stage& stage() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal
