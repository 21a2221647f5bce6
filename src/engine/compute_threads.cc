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
  running_ = plan_;
  told_ = plan_.threads;
  first_allowed_ = allowed_ = ProcessCpus();
  return MakePool();
}

Status ComputeThreads::MakePool() {
  if (pool_) {
    llama_detach_threadpool(context_);
    replaced_.push_back(std::move(pool_));
  }
  llama_set_n_threads(context_, running_.threads, running_.threads);
  // The calling thread of Forward is one of the compute threads. With a CPU for each thread, ggml gives the highest
  // number to it; else all threads share the set.
  placed_ = {};
  own_cpus_ = running_.cpus;
  const bool one_each = own_cpus_.size() == static_cast<std::size_t>(running_.threads);
  if (one_each && !own_cpus_.empty()) own_cpus_ = {*std::max_element(own_cpus_.begin(), own_cpus_.end())};
  if (running_.threads == 1) return {};
  ggml_threadpool_params params = ggml_threadpool_params_default(running_.threads);
  for (const int cpu : running_.cpus) params.cpumask[cpu] = true;
  params.strict_cpu = one_each;
  params.poll = kPollLevel;
  params.paused = true;  // else ggml pins this thread, which is not the one that will compute
  pool_.reset(NewThreadpool(&params));
  if (pool_ == nullptr) return Error{ErrorCode::kInternal, "no threads to compute with"};
  llama_attach_threadpool(context_, pool_.get(), nullptr);
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
  if (ThreadPlan wanted = FewerThreads(plan_, guard_.threads()); wanted != running_) {
    running_ = std::move(wanted);
    if (const Status made = MakePool(); !made.ok()) Log(LogLevel::kWarning, "engine", made.error().message);
  }
  PlaceThisThread();
  if (!yields_) return;
  began_own_s_ = ClockSeconds(CLOCK_THREAD_CPUTIME_ID);
  began_s_ = ClockSeconds(CLOCK_MONOTONIC);
}

void ComputeThreads::Passed(std::size_t rows, bool computed) {
  if (!computed) return;
  replaced_.clear();
  if (!yields_) return;
  const double took = ClockSeconds(CLOCK_MONOTONIC) - began_s_;
  const double own = ClockSeconds(CLOCK_THREAD_CPUTIME_ID) - began_own_s_;
  // Since the end of the pass before, not since the beginning of this: what threads use is not counted at once, and
  // would be missed at the end of each pass.
  const double all = std::exchange(ended_all_s_, ClockSeconds(CLOCK_PROCESS_CPUTIME_ID));
  guard_.Passed({rows, took, took - own, took * guard_.threads() - (ended_all_s_ - all)});
  if (!guard_.settled() || guard_.threads() == told_) return;
  told_ = guard_.threads();
  Log(LogLevel::kInfo, "engine",
      told_ < plan_.threads ? "other programs want these cores: " + std::to_string(told_) + " of " +
                                  std::to_string(plan_.threads) + " threads compute, which is faster"
                            : "the cores are free again: all " + std::to_string(told_) + " threads compute");
}

}  // namespace shoal
