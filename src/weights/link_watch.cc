// Who waits for an answer, and whose wait ends when it is over.
#include "weights/link_watch.h"

#include <utility>

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kLinkWatchPause{100};

}  // namespace

LinkWatch::LinkWatch(std::function<bool()> over)
    : over_(std::move(over)),
      watch_(
          over_,
          [this] {
            const std::lock_guard lock(mutex_);
            for (WeightLink* link : asked_) link->Cancel();
          },
          kLinkWatchPause) {}

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
