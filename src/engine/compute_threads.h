// The threads that compute one engine: ggml's pool and the thread that calls Forward, on the CPUs they were given.
//
// Where a system takes CPUs away while it runs (a cpuset, a core taken offline), threads that wait for each other by
// spinning would share the rest: then the pool is made anew for what is left, and again when they come back. Where it
// refuses to place threads they run where it puts them. Where other programs want the same CPUs, fewer threads compute,
// on any of them (ContentionGuard).
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/result.h"
#include "engine/contention_guard.h"
#include "engine/llama_shard.h"

namespace shoal {

struct ThreadPlan {
  std::int32_t threads = 1;
  std::vector<int> cpus;  // as many as threads: one each; else all threads on any of them; empty: the system decides
  bool operator==(const ThreadPlan&) const = default;
};

// What is left of `asked` when the process may use `allowed` only; as asked if `allowed` is empty (unknown). Pure.
ThreadPlan PlanThreads(const ThreadPlan& asked, const std::vector<int>& allowed);
// `plan` with `threads` of its threads, on any of its CPUs if those are not all. Pure.
ThreadPlan FewerThreads(const ThreadPlan& plan, int threads);

class ComputeThreads {
 public:
  static constexpr std::chrono::seconds kLookEvery{1};

  // `yields`: fewer threads compute while other programs want the same CPUs.
  ComputeThreads(ThreadPlan asked, bool yields)
      : asked_(std::move(asked)), yields_(yields), plan_(asked_), guard_(asked_.threads) {}
  ComputeThreads(const ComputeThreads&) = delete;
  ComputeThreads& operator=(const ComputeThreads&) = delete;

  // Makes the pool for `context`, which must end before this does. Errors: kUnavailable: the system starts no threads.
  Status Attach(llama_context* context);
  // Before each pass, on the thread of Forward: sees to it that this thread is where it should be, and looks now and
  // then whether the process may still use the same CPUs.
  void Prepare();
  // After it, of `rows` rows; `computed`: to its end.
  void Passed(std::size_t rows, bool computed);

 private:
  Status Run(ThreadPlan plan);
  void PlaceThisThread();
  bool IsJudged() const { return yields_ && plan_.threads > 1 && !stuck_; }
  void Judge(std::size_t rows);
  void Follow(std::vector<int> allowed);

  const ThreadPlan asked_;
  const bool yields_;
  ThreadPlan plan_;     // of asked_, what is allowed
  ThreadPlan running_;  // of plan_, what computes: of this is the pool
  ContentionGuard guard_;
  int told_ = 0;                          // threads that the log said last
  bool stuck_ = false;                    // the system started no threads for another pool: running_ stays
  double began_s_ = 0, began_own_s_ = 0;  // the pass: time, and processor time of this thread
  double ended_s_ = 0, ended_all_s_ = 0;  // the pass before: time, and processor time of the process; 0: none is known
  std::vector<int> first_allowed_, allowed_;  // when the first plan was made, and this one
  bool followed_ = false;                     // they have differed
  llama_context* context_ = nullptr;
  ThreadpoolPtr pool_;
  std::vector<ThreadpoolPtr> replaced_;  // ggml's backend holds on to its last pool until it computes with the next
  std::chrono::steady_clock::time_point look_due_;
  std::thread::id placed_;     // the thread that was last placed
  std::vector<int> own_cpus_;  // its
};

}  // namespace shoal
