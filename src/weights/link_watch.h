// Questions to peers that end at once when nobody wants their answers any more.
//
// Knows no peers: whoever asks says what ends it.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <set>

#include "base/result.h"
#include "runtime/cancel_watch.h"
#include "weights/peers.h"

namespace shoal {

class LinkWatch {
 public:
  // `over` is asked every kLinkWatchPause, on a thread of its own; empty: never.
  explicit LinkWatch(std::function<bool()> over);

  // As AskPeer. Any thread, each with a link of its own. Errors: also kCancelled (it is over).
  Result<WeightAnswer> Ask(WeightLink& link, const WeightAsk& ask, std::chrono::milliseconds limit);

 private:
  const std::function<bool()> over_;
  std::mutex mutex_;
  std::multiset<WeightLink*> asked_;  // guarded by mutex_
  const CancelWatch watch_;
};

}  // namespace shoal
