// Threads are detached and counted: a thread that has ended leaves nothing behind that someone would have to collect.
#include "runtime/blocking_tasks.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/start_thread.h"

namespace shoal {

struct BlockingTasks::State {
  std::mutex mutex;
  std::condition_variable one_ended;
  std::size_t running = 0;  // guarded by mutex
  bool joined = false;      // guarded by mutex
  std::size_t tasks_max = 0;
};

BlockingTasks::BlockingTasks(std::size_t tasks_max) : state_(std::make_shared<State>()) {
  state_->tasks_max = tasks_max;
}

BlockingTasks::~BlockingTasks() { Join(); }

bool BlockingTasks::Run(std::function<void()> task) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->joined || state_->running >= state_->tasks_max) return false;
    ++state_->running;
  }
  const auto ended = [state = state_] {
    const std::lock_guard lock(state->mutex);
    --state->running;
    state->one_ended.notify_all();
  };
  Result<std::thread> thread = StartThread("shoal-task", [task = std::move(task), ended]() mutable {
    task();
    task = nullptr;  // what it holds goes before anyone who waits goes on
    ended();
  });
  thread.ok() ? thread->detach() : ended();
  return thread.ok();
}

void BlockingTasks::Join() {
  std::unique_lock lock(state_->mutex);
  state_->joined = true;
  state_->one_ended.wait(lock, [&] { return state_->running == 0; });
}

}  // namespace shoal
