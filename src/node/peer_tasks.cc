// A place is taken before the thread starts and given back with the task itself, whether it ran or not.
#include "node/peer_tasks.h"

#include <utility>

namespace shoal {

PeerTasks::PeerTasks() : counts_(std::make_shared<Counts>()), tasks_(kTasksMax) {}

PeerTasks::~PeerTasks() { Join(); }

bool PeerTasks::Run(const NodeId& peer, std::function<void()> task) {
  {
    const std::lock_guard lock(counts_->mutex);
    std::size_t& running = counts_->running[peer];
    if (running >= kPerPeerMax) return false;
    ++running;
  }
  const std::shared_ptr<void> place(nullptr, [counts = counts_, peer](void*) {
    const std::lock_guard lock(counts->mutex);
    const auto found = counts->running.find(peer);
    if (--found->second == 0) counts->running.erase(found);
  });
  return tasks_.Run([place, task = std::move(task)] { task(); });
}

void PeerTasks::Join() { tasks_.Join(); }

}  // namespace shoal
