// A pipeline for tests of the scheduler: stages whose "model" hashes what their KV cache holds, so that a lost,
// doubled, reordered or wrongly reused row changes the tokens that come out. Each stage keeps its cache as a real one
// would and reports every row that does not continue it. A stage may be lost: the next epoch starts with what the
// others hold, and what they sent.
//
// Links are queues that the test drains one frame at a time, in any order between links; knows no clock.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "schedule/scheduler.h"

namespace shoal {

struct FakeModel {
  std::uint64_t vocabulary = 6;
  std::uint64_t end_every = 0;  // about one token in this many ends the text; 0: none
  bool shaped = false;          // results depend on the shape of the micro-batch (reproducible mode must not show it)
  std::int32_t stages = 1;
  std::int32_t chunk = 1;  // prefill chunk that the reference uses when `shaped`
};

std::uint64_t Mix(std::uint64_t a, std::uint64_t b);

// The tokens of one request that runs alone: what everything else is compared with. `emitted` as in GenerationRequest.
struct ReferenceRun {
  std::vector<SampledToken> tokens;
  FinishReason finish = FinishReason::kStop;
};
ReferenceRun RunAlone(const FakeModel& model, const GenerationRequest& request, std::int64_t context_max);

// One position of one sequence on one stage.
struct FakeCell {
  std::uint64_t id = 0;       // shared by copies
  std::uint64_t history = 0;  // hash of everything up to here
  TokenId token = 0;
  std::uint64_t sent = 0;  // the hidden state that went to the next stage
  bool logged = true;      // and the stage still has it
};

class FakeStages {
 public:
  FakeStages(const FakeModel& model, const ScheduleOptions& options);

  void Send(MicroBatch batch) { links_[0].push_back({std::move(batch), {}, {}}); }
  bool CanStep(int stage) const { return !links_[stage].empty(); }
  // Lets `stage` take one frame. `fail`: its rows (if any) fail here.
  void Step(int stage, bool fail);
  bool HasResult() const { return !results_.empty(); }
  ResultMessage TakeResult();

  // The epoch ends: nothing is in flight or open any more, and the stages `lost` hold nothing.
  void NextEpoch(const std::set<int>& lost);
  // The stage no longer has what it sent of the first `count` positions of each sequence.
  void ForgetSent(int stage, std::size_t count);
  std::vector<InventoryMessage> Inventories() const;
  std::uint64_t rows_run() const { return rows_run_; }  // summed over the stages
  std::uint64_t refused_replays() const { return refused_replays_; }

  bool HasFailure(int stage) const { return !failures_[stage].empty(); }
  FailureMessage TakeFailure(int stage);

  // What a real stage would have tripped over; empty when all is well.
  const std::string& violation() const { return violation_; }
  // Generations that had rows in a micro-batch that was made to fail: who only came behind one goes on.
  const std::set<GenerationId>& touched_by_failure() const { return touched_by_failure_; }
  // Generations with an open sampler on the last stage.
  std::size_t samplers() const { return samplers_.size(); }
  // The next row of this generation is answered by a failure of the generation alone.
  std::set<GenerationId> failing_generations;

 private:
  struct Frame {
    MicroBatch batch;
    std::vector<std::uint64_t> hidden;         // [rows]; empty: tokens
    std::vector<SequenceId> lost;              // had rows in it that failed on a stage before
    StageIndex lost_first = 0, lost_last = 0;  // where those were to run
  };
  struct Sequence {
    std::vector<FakeCell> cells;
    bool broken = false;  // a failed batch left less here than the head believes
  };
  struct Sampler {
    SequenceId sequence = 0;
    std::uint64_t seed = 0;
    Position position = 0;  // of the row that it samples after
    TokenId token = 0;      // and that row's: another one was a wrong guess
  };
  void Apply(int stage, const ControlOp& op);
  void Rewind(int stage, const RewindSequence& op);
  void Copy(int stage, const CopySequence& op);
  bool Continues(int stage, const MicroBatch& batch);
  bool Replay(int stage, Frame& frame);
  void Lose(int stage, Frame& frame, bool injected);
  void Run(int stage, Frame& frame);
  void Sample(const Frame& frame);
  void CheckRoom(int stage);
  void Violate(int stage, const std::string& what);

  const FakeModel model_;
  const ScheduleOptions options_;
  std::vector<std::deque<Frame>> links_;
  std::vector<std::vector<Sequence>> caches_;  // [stage][sequence]
  std::deque<ResultMessage> results_;
  std::vector<std::deque<FailureMessage>> failures_;
  std::map<GenerationId, Sampler> samplers_;
  std::set<GenerationId> touched_by_failure_;
  std::uint64_t cell_ids_ = 0, rows_run_ = 0, refused_replays_ = 0;
  std::string violation_;
};

}  // namespace shoal
