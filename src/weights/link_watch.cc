// A thread that looks whether it is over, and who still waits then.
#include "weights/link_watch.h"

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kLinkWatchPause{100};

}  // namespace

LinkWatch::LinkWatch(std::function<bool()> over) : over_(std::move(over)) {
  if (over_) thread_ = std::thread([this] { Watch(); });
}

LinkWatch::~LinkWatch() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ended_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// Again and again: who asked while it was looked whether it is over waits too.
void LinkWatch::Watch() {
  std::unique_lock lock(mutex_);
  while (!ended_changed_.wait_for(lock, kLinkWatchPause, [this] { return ended_; })) {
    lock.unlock();
    const bool over = over_();
    lock.lock();
    for (WeightLink* link : asked_) {
      if (over) link->Cancel();
    }
  }
}

Result<WeightAnswer> LinkWatch::Ask(WeightLink& link, const WeightAsk& ask, std::chrono::milliseconds limit) {
  if (over_ && over_()) return Error{ErrorCode::kCancelled, "the answer is not wanted any more"};
  {
    const std::lock_guard lock(mutex_);
    asked_.insert(&link);
  }
  Result<WeightAnswer> answer = AskPeer(link, ask, limit);
  const std::lock_guard lock(mutex_);
  asked_.erase(asked_.find(&link));
  return answer;
}

}  // namespace shoal
