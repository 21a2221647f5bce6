// Threads for the streams that other members open: so many in all, and so many for one of them.
//
// Apart from this node's own tasks, so that whatever members do, this node can still load, open and resolve. Knows no
// protocol. Any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "base/ids.h"
#include "runtime/blocking_tasks.h"

namespace shoal {

class PeerTasks {
 public:
  static constexpr std::size_t kTasksMax = 1024;
  // Of one peer: more than a node has clients at a time, and a quarter of all.
  static constexpr std::size_t kPerPeerMax = 256;

  PeerTasks();
  ~PeerTasks();  // Join()
  PeerTasks(const PeerTasks&) = delete;
  PeerTasks& operator=(const PeerTasks&) = delete;

  // Runs `task` on a thread of its own; false (and the task is dropped) when too many run already, or after Join.
  bool Run(const NodeId& peer, std::function<void()> task);
  // Waits for all that runs. Not from a task.
  void Join();

 private:
  struct Counts {
    std::mutex mutex;
    std::map<NodeId, std::size_t> running;  // guarded by mutex
  };

  const std::shared_ptr<Counts> counts_;
  BlockingTasks tasks_;
};

}  // namespace shoal
