// The threads that compute one engine: ggml's pool and the thread that calls Forward, on the CPUs they were given.
//
// Where a system takes CPUs away while it runs (a cpuset, a core taken offline), threads that wait for each other by
// spinning would share the rest: then the pool is made anew for what is left, and again when they come back. Where it
// refuses to place threads they run where it puts them.
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/result.h"
#include "engine/llama_shard.h"

namespace shoal {

struct ThreadPlan {
  std::int32_t threads = 1;
  std::vector<int> cpus;  // as many as threads: one each; else all threads on any of them; empty: the system decides
  bool operator==(const ThreadPlan&) const = default;
};

// What is left of `asked` when the process may use `allowed` only; as asked if `allowed` is empty (unknown). Pure.
ThreadPlan PlanThreads(const ThreadPlan& asked, const std::vector<int>& allowed);

class ComputeThreads {
 public:
  static constexpr std::chrono::seconds kLookEvery{1};

  explicit ComputeThreads(ThreadPlan asked) : asked_(std::move(asked)) {}
  ComputeThreads(const ComputeThreads&) = delete;
  ComputeThreads& operator=(const ComputeThreads&) = delete;

  // Makes the pool for `context`, which must end before this does. Errors: kInternal.
  Status Attach(llama_context* context);
  // Before each Forward, on its thread: sees to it that this thread is where it should be, and looks now and then
  // whether the process may still use the same CPUs.
  void Prepare();

 private:
  Status MakePool();
  void PlaceThisThread();

  const ThreadPlan asked_;
  ThreadPlan plan_;
  std::vector<int> first_allowed_, allowed_;  // when the first plan was made, and this one
  bool followed_ = false;                     // they have differed
  llama_context* context_ = nullptr;
  ThreadpoolPtr pool_;
  std::chrono::steady_clock::time_point look_due_;
  std::thread::id placed_;     // the thread that was last placed
  std::vector<int> own_cpus_;  // its
};

}  // namespace shoal
