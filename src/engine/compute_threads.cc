// One pool at a time, attached to the context; sched_getaffinity once a second, three clocks around each pass.
#include "engine/compute_threads.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "device/cpu_affinity.h"
#include "device/system_files.h"
#include "engine/llama_guard.h"
#include "engine/pass_time.h"

namespace shoal {
namespace {

// How long idle worker threads spin before they sleep, of 100: about 2 ms, enough for the gap between two
// micro-batches.
constexpr std::uint32_t kPollLevel = 1;

}  // namespace

ThreadPlan PlanThreads(const ThreadPlan& asked, const std::vector<int>& allowed) {
  if (allowed.empty()) return asked;
  ThreadPlan plan;
  for (const int cpu : asked.cpus) {
    if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) plan.cpus.push_back(cpu);
  }
  // None of those it was given: the system decides, but not for more threads than it has CPUs for.
  const std::size_t room = plan.cpus.empty() ? allowed.size() : plan.cpus.size();
  plan.threads = std::min(asked.threads, static_cast<std::int32_t>(room));
  // More threads than CPUs only where that was asked for, and nothing was taken.
  if (!plan.cpus.empty() && plan.cpus == asked.cpus) return asked;
  return plan;
}

ThreadPlan FewerThreads(const ThreadPlan& plan, int threads) {
  return threads < plan.threads ? ThreadPlan{threads, plan.cpus} : plan;
}

Status ComputeThreads::Attach(llama_context* context) {
  context_ = context;
  told_ = plan_.threads;
  first_allowed_ = allowed_ = ProcessCpus();
  return Run(plan_);
}

// What runs stays when the pool cannot be made.
Status ComputeThreads::Run(ThreadPlan plan) {
  const bool one_each = plan.cpus.size() == static_cast<std::size_t>(plan.threads);
  ThreadpoolPtr pool;
  if (plan.threads > 1) {
    ggml_threadpool_params params = ggml_threadpool_params_default(plan.threads);
    for (const int cpu : plan.cpus) params.cpumask[cpu] = true;
    params.strict_cpu = one_each;
    params.poll = kPollLevel;
    params.paused = true;  // else ggml pins this thread, which is not the one that will compute
    try {
      const LlamaGuard guard;  // a thread that is not started is an abort
      pool.reset(NewThreadpool(&params));
    } catch (const LlamaAbort&) {}
    if (pool == nullptr) return Error{ErrorCode::kUnavailable, "the system starts no more threads to compute with"};
  }
  if (pool_) {
    llama_detach_threadpool(context_);
    replaced_.push_back(std::move(pool_));
  }
  pool_ = std::move(pool);
  llama_set_n_threads(context_, plan.threads, plan.threads);
  if (pool_) llama_attach_threadpool(context_, pool_.get(), nullptr);
  // The calling thread of Forward is one of the compute threads. With a CPU for each thread, ggml gives the highest
  // number to it; else all threads share the set.
  placed_ = {};
  own_cpus_ = plan.cpus;
  if (one_each && !own_cpus_.empty()) own_cpus_ = {*std::max_element(own_cpus_.begin(), own_cpus_.end())};
  running_ = std::move(plan);
  return {};
}

void ComputeThreads::PlaceThisThread() {
  if (placed_ == std::this_thread::get_id()) return;
  placed_ = std::this_thread::get_id();
  // Without CPUs of its own the system decides; but where it was placed before does not hold any more.
  const std::vector<int>& cpus = own_cpus_.empty() ? allowed_ : own_cpus_;
  if (cpus.empty() || (own_cpus_.empty() && !followed_)) return;
  // Cores that were allowed when the engine was opened may not be now: Android keeps background processes off fast
  // ones.
  if (const Status pinned = PinThisThread(cpus); !pinned.ok()) {
    Log(LogLevel::kWarning, "engine", pinned.error().message + "; it computes where the system puts it");
  }
}

void ComputeThreads::Follow(std::vector<int> allowed) {
  allowed_ = std::move(allowed);
  followed_ = true;
  plan_ = allowed_ == first_allowed_ ? asked_ : PlanThreads(asked_, allowed_);
  guard_ = ContentionGuard(plan_.threads);
  told_ = plan_.threads;
  stuck_ = false;
  running_ = {0, {}};  // the pool is made anew, for what threads inherit has changed
  Log(LogLevel::kInfo, "engine",
      "the system allows cores " + CpuListText(allowed_) + " now: " + std::to_string(plan_.threads) +
          " threads compute");
}

void ComputeThreads::Prepare() {
  const auto now = std::chrono::steady_clock::now();
  if (now >= look_due_) {
    look_due_ = now + kLookEvery;
    if (std::vector<int> allowed = ProcessCpus(); allowed != allowed_) Follow(std::move(allowed));
  }
  if (ThreadPlan wanted = FewerThreads(plan_, guard_.threads()); wanted != running_ && !stuck_) {
    if (const Status made = Run(std::move(wanted)); !made.ok()) {
      stuck_ = true;
      Log(LogLevel::kWarning, "engine", made.error().message + ": those that compute go on");
    }
  }
  PlaceThisThread();
  if (!IsJudged()) return;
  began_own_s_ = ClockSeconds(CLOCK_THREAD_CPUTIME_ID);
  began_s_ = ClockSeconds(CLOCK_MONOTONIC);
}

void ComputeThreads::Passed(std::size_t rows, bool computed) {
  if (!computed) {
    ended_s_ = 0;  // what an aborted pass used is in no later one
    return;
  }
  if (IsJudged()) Judge(rows);
  replaced_.clear();
}

void ComputeThreads::Judge(std::size_t rows) {
  const double now = ClockSeconds(CLOCK_MONOTONIC), took = now - began_s_;
  const double own_lost = took - (ClockSeconds(CLOCK_THREAD_CPUTIME_ID) - began_own_s_);
  // Since the end of the pass before, not since the beginning of this: what threads use is not counted at once, and
  // would be missed at the end of each pass.
  const double idle = ended_s_ > 0 ? began_s_ - ended_s_ : 0;
  const double all = std::exchange(ended_all_s_, ClockSeconds(CLOCK_PROCESS_CPUTIME_ID));
  const double lost = ended_s_ > 0 ? took * guard_.threads() - (ended_all_s_ - all) : 0;
  ended_s_ = now;
  guard_.Passed({rows, took, idle, own_lost, lost});
  if (!guard_.settled() || guard_.threads() == told_) return;
  told_ = guard_.threads();
  Log(LogLevel::kInfo, "engine",
      told_ < plan_.threads ? "there is not a core for each thread: " + std::to_string(told_) + " of " +
                                  std::to_string(plan_.threads) + " threads compute, which is faster"
                            : "the cores are free again: all " + std::to_string(told_) + " threads compute");
}

}  // namespace shoal
