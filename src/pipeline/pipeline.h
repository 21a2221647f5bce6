// The head of a placement: requests in, micro-batches down the stages, tokens back to whoever asked.
//
// Control side: a Scheduler on the Loop. It sends frames to stage 0 and gets result frames from the last stage; the
// sender and the receiver may lead to threads of this process or to other hosts. Knows no HTTP and no text.
// All methods run on the loop (CHECK), but for Start and Stop, which the owner calls from outside it, and those that
// say so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "planner/observed_speed.h"
#include "runtime/loop.h"
#include "schedule/scheduler.h"
#include "transport/transport.h"
#include "wire/messages.h"

namespace shoal {

// Frames that fit the link to stage 0, and the links between stages: micro-batches in flight, drafts among them (up to
// kPipelineInFlightMax), each with the operations in front of it, and operations that go out alone when nothing is in
// flight. A link of this size never blocks the loop.
inline constexpr std::size_t kPipelineLinkFramesMax = 256;
inline constexpr std::int32_t kPipelineInFlightMax = 120;

// Drafts for `schedule`, as many as it has micro-batches in flight where the links have room for both.
std::int32_t DraftsMax(const ScheduleOptions& schedule);

struct PipelineOptions {
  ScheduleOptions schedule;
  Epoch epoch = 1;
  // Once, on the loop, when a stage or a link is lost: nothing can be submitted any more. Not after Stop.
  std::function<void(const std::string& why)> on_broken = {};
  // The longest that events wait for FirstPassedOn of what was sent because of them: who formats an answer would take a
  // core from the stage that computes its next token, and has time when that has gone on. 0: they do not wait.
  DurationUs hold_events_max_us = 0;
};

// Time per stage, summed over the micro-batches that came back; prefill and decode alike.
struct StageTotals {
  std::uint64_t batches = 0, compute_us = 0, wait_us = 0, wire_us = 0;
};

class Pipeline {
 public:
  using EventHandler = std::function<void(const ScheduleEvent&)>;  // on the loop; may call Submit and Cancel

  // `to_first` must never block longer than the in-flight window is full: its capacity is at least in_flight_max plus
  // some control frames (kPipelineLinkFramesMax). `results` are of the stages, in order, each read by a thread of the
  // pipeline, which posts to `loop`.
  Pipeline(Loop& loop, const PipelineOptions& options, std::unique_ptr<FrameSender> to_first,
           std::vector<std::unique_ptr<FrameReceiver>> results);
  ~Pipeline();  // Stop()

  void Start();
  // Ends every generation with kError (kUnavailable) from the loop, then stops reading. Idempotent.
  void Stop();

  // An id is used once. Errors: as Scheduler::Submit; kUnavailable after the pipeline broke.
  Status Submit(GenerationRequest request, EventHandler handler);
  void Cancel(GenerationId id);  // no event follows
  // The first stage has passed on what came of a micro-batch. Any thread.
  void FirstPassedOn(BatchId batch);
  void SetDraftChanceMin(double chance);
  ScheduleStats stats() const;
  std::int32_t ReusedTokens(GenerationId id) const;
  std::vector<StageTotals> stage_totals() const;
  // What came of it so far. Any thread.
  ObservedSpeeds speeds() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace shoal
