// The two loops over one ordered queue of tasks: a thread that sleeps until the next is due, and virtual time.
//
// A posted task is due at the time of its post, so one order, (time, sequence), holds for tasks and timers alike:
// neither can starve the other, and both loops agree on it.
#include "runtime/loop.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/thread_name.h"
#include "runtime/task_queue.h"

namespace shoal {
namespace {

// The longest single sleep of the real loop: keeps far due times within what condition variables can express.
constexpr DurationUs kSleepMaxUs = 3'600'000'000;

thread_local const Loop* t_running_loop = nullptr;

}  // namespace

struct RealLoop::State {
  RealClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  TaskQueue tasks;        // guarded by mutex
  bool stopping = false;  // guarded by mutex
  std::mutex join_mutex;  // held while joining, so that Stop may be called from several threads
  std::thread thread;     // guarded by join_mutex

  void Run(const Loop* self) {
    t_running_loop = self;
    std::unique_lock lock(mutex);
    while (!stopping) {
      if (tasks.empty()) {
        changed.wait(lock);
        continue;
      }
      const DurationUs sleep = tasks.FirstDue() - clock.Now();
      if (sleep > 0) {
        changed.wait_for(lock, std::chrono::microseconds(std::min(sleep, kSleepMaxUs)));
        continue;
      }
      Loop::Task task = tasks.PopFirst();
      lock.unlock();
      task();
      task = nullptr;  // its captures may post: destroy it outside the lock
      lock.lock();
    }
  }

  // 0 when stopped. `task` is moved from only when queued.
  TimerId Add(DurationUs delay, Loop::Task& task) {
    TimerId id = 0;
    bool is_first = false;
    {
      const std::lock_guard lock(mutex);
      if (stopping) return 0;
      const TimeUs due = TaskQueue::DueAfter(clock.Now(), delay);
      is_first = tasks.empty() || due < tasks.FirstDue();
      id = tasks.Add(due, std::move(task));
    }
    if (is_first) changed.notify_one();
    return id;
  }
};

RealLoop::RealLoop() : state_(std::make_unique<State>()) {
  const std::lock_guard lock(state_->join_mutex);
  state_->thread = std::thread([this, state = state_.get()] {
    NameThisThread("shoal-loop");
    state->Run(this);
  });
}

RealLoop::~RealLoop() { Stop(); }

void RealLoop::Post(Task task) { state_->Add(0, task); }

TimerId RealLoop::After(DurationUs delay, Task task) {
  const TimerId id = state_->Add(delay, task);
  return id != 0 ? id : ~TimerId{0};  // stopped: an id that names no timer
}

void RealLoop::CancelTimer(TimerId id) {
  Task dropped;  // destroyed outside the lock
  const std::lock_guard lock(state_->mutex);
  dropped = state_->tasks.Remove(id);
}

const Clock& RealLoop::clock() const { return state_->clock; }

bool RealLoop::InLoop() const { return t_running_loop == this; }

void RealLoop::Stop() {
  SHOAL_CHECK(!InLoop());
  {
    TaskQueue dropped;  // destroyed outside the lock: a task's captures may call the loop again
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    std::swap(dropped, state_->tasks);
  }
  state_->changed.notify_one();
  const std::lock_guard lock(state_->join_mutex);
  if (state_->thread.joinable()) state_->thread.join();
}

namespace {

class VirtualClock final : public Clock {
 public:
  TimeUs Now() const override { return now_; }
  void MoveTo(TimeUs time) { now_ = std::max(now_, time); }

 private:
  TimeUs now_ = 0;
};

}  // namespace

struct SimulatedLoop::State {
  VirtualClock clock;
  TaskQueue tasks;
};

SimulatedLoop::SimulatedLoop() : state_(std::make_unique<State>()) {}
SimulatedLoop::~SimulatedLoop() = default;

void SimulatedLoop::Post(Task task) { After(0, std::move(task)); }

TimerId SimulatedLoop::After(DurationUs delay, Task task) {
  return state_->tasks.Add(TaskQueue::DueAfter(state_->clock.Now(), delay), std::move(task));
}

void SimulatedLoop::CancelTimer(TimerId id) { state_->tasks.Remove(id); }

const Clock& SimulatedLoop::clock() const { return state_->clock; }

bool SimulatedLoop::RunOne() {
  if (state_->tasks.empty()) return false;
  state_->clock.MoveTo(state_->tasks.FirstDue());
  const Task task = state_->tasks.PopFirst();
  task();
  return true;
}

void SimulatedLoop::RunUntil(TimeUs time) {
  while (!state_->tasks.empty() && state_->tasks.FirstDue() <= time) RunOne();
  state_->clock.MoveTo(time);
}

bool SimulatedLoop::RunUntilIdle(std::uint64_t tasks_max) {
  for (std::uint64_t ran = 0; ran < tasks_max; ++ran) {
    if (!RunOne()) return true;
  }
  return state_->tasks.empty();
}

}  // namespace shoal
