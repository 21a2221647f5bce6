// Ending is the whole of it: whoever ends a stage first gets what is left of it.
#include "node/hosted_stage.h"

#include <utility>
#include <vector>

namespace shoal {

HostedStage::~HostedStage() {
  for (const auto& [node, outlet] : outlets) outlet->Stop();
}

void HostedStage::TellWhoCopies() {
  std::vector<std::shared_ptr<CopySink>> sinks;
  for (const auto& [node, outlet] : outlets) sinks.push_back(outlet);
  if (head) head->SetCopies(sinks);
  if (worker) worker->SetCopies(std::move(sinks));
}

std::unique_ptr<Stage> HostedStage::Release() {
  cancelled = true;
  {
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  }
  const std::lock_guard working(work);
  std::shared_ptr<Head> ending_head;
  std::unique_ptr<StageWorker> ending_worker;
  {
    const std::lock_guard lock(mutex);
    ending_head.swap(head);
    ending_worker.swap(worker);
    for (const auto& [node, outlet] : std::exchange(outlets, {})) outlet->Stop();
  }
  if (ending_head) {
    ending_head->Stop();
    stage = ending_head->TakeStage();
    const std::lock_guard lock(ended_heads->mutex);
    ended_heads->counts += CountsOf(ending_head->stats());
  }
  if (ending_worker) {
    ending_worker->Stop();
    stage = ending_worker->TakeStage();
  }
  if (const std::shared_ptr<HostedStage> before = std::exchange(from, nullptr)) {  // it has not come to take it
    stage = before->Release();
    model = before->model;
  }
  return std::move(stage);
}

}  // namespace shoal
