// Threads for what blocks: dialling a name, opening a stream, loading a stage, serving one generation.
//
// One thread a task, at most `tasks_max` at a time; all are joined at the end. Any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace shoal {

class BlockingTasks {
 public:
  explicit BlockingTasks(std::size_t tasks_max);
  ~BlockingTasks();  // Join()
  BlockingTasks(const BlockingTasks&) = delete;
  BlockingTasks& operator=(const BlockingTasks&) = delete;

  // Runs `task` on a thread of its own; false (and the task is dropped) when as many run already, or after Join.
  bool Run(std::function<void()> task);
  // Waits for all that runs; what makes them end is the caller's to do before. Not from a task.
  void Join();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace shoal
