// The control loop: runs posted tasks and timers one at a time, in order. All cluster, schedule and pipeline state
// lives on one Loop and takes no lock.
//
// RealLoop runs on a thread of its own; SimulatedLoop runs in the caller's thread in virtual time, so that the same
// state machines replay a history exactly.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "runtime/clock.h"

namespace shoal {

using TimerId = std::uint64_t;  // 0 is never used

class Loop {
 public:
  using Task = std::function<void()>;
  virtual ~Loop() = default;

  // Queues `task` behind all tasks posted before. Any thread; never blocks. After Stop the task is dropped.
  virtual void Post(Task task) = 0;
  // Runs `task` once, `delay` from now. Any thread.
  virtual TimerId After(DurationUs delay, Task task) = 0;
  // Any thread. After it returns on the loop's own thread, the task does not run.
  virtual void CancelTimer(TimerId id) = 0;
  virtual const Clock& clock() const = 0;
  // True on the thread that runs the tasks.
  virtual bool InLoop() const = 0;
};

class RealLoop final : public Loop {
 public:
  RealLoop();
  ~RealLoop() override;  // Stop()

  void Post(Task task) override;
  TimerId After(DurationUs delay, Task task) override;
  void CancelTimer(TimerId id) override;
  const Clock& clock() const override;
  bool InLoop() const override;

  // Drops what is queued, lets the running task end, joins the thread. Not from the loop itself.
  void Stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Virtual time: nothing runs until Run* is called. One thread only.
class SimulatedLoop final : public Loop {
 public:
  SimulatedLoop();
  ~SimulatedLoop() override;

  void Post(Task task) override;
  TimerId After(DurationUs delay, Task task) override;
  void CancelTimer(TimerId id) override;
  const Clock& clock() const override;
  bool InLoop() const override { return true; }

  // Runs the next due task, moving time forward to it. False when nothing is left.
  bool RunOne();
  // Runs everything due up to `time`, then sets the clock to it.
  void RunUntil(TimeUs time);
  // Runs until idle or until `tasks_max` tasks have run; true when idle.
  bool RunUntilIdle(std::uint64_t tasks_max);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal
