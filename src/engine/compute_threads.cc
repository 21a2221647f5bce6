// One pool at a time, attached to the context; sched_getaffinity once a second.
#include "engine/compute_threads.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "device/cpu_affinity.h"
#include "device/system_files.h"
#include "engine/llama_guard.h"

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

Status ComputeThreads::Attach(llama_context* context) {
  context_ = context;
  plan_ = asked_;
  first_allowed_ = allowed_ = ProcessCpus();
  return MakePool();
}

Status ComputeThreads::MakePool() {
  if (pool_) llama_detach_threadpool(context_);
  pool_.reset();
  llama_set_n_threads(context_, plan_.threads, plan_.threads);
  // The calling thread of Forward is one of the compute threads. With a CPU for each thread, ggml gives the highest
  // number to it; else all threads share the set.
  placed_ = {};
  own_cpus_ = plan_.cpus;
  const bool one_each = own_cpus_.size() == static_cast<std::size_t>(plan_.threads);
  if (one_each && !own_cpus_.empty()) own_cpus_ = {*std::max_element(own_cpus_.begin(), own_cpus_.end())};
  if (plan_.threads == 1) return {};
  ggml_threadpool_params params = ggml_threadpool_params_default(plan_.threads);
  for (const int cpu : plan_.cpus) params.cpumask[cpu] = true;
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

void ComputeThreads::Prepare() {
  const auto now = std::chrono::steady_clock::now();
  if (now >= look_due_) {
    look_due_ = now + kLookEvery;
    std::vector<int> allowed = ProcessCpus();
    if (allowed != allowed_) {
      allowed_ = std::move(allowed);
      followed_ = true;
      plan_ = allowed_ == first_allowed_ ? asked_ : PlanThreads(asked_, allowed_);
      Log(LogLevel::kInfo, "engine",
          "the system allows cores " + CpuListText(allowed_) + " now: " + std::to_string(plan_.threads) +
              " threads compute");
      if (const Status made = MakePool(); !made.ok()) Log(LogLevel::kWarning, "engine", made.error().message);
    }
  }
  PlaceThisThread();
}

}  // namespace shoal
