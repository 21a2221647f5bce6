// Questions to peers that end at once when nobody wants their answers any more.
//
// Knows no peers: whoever asks says what ends it. Its thread ends with it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "base/result.h"
#include "weights/peers.h"

namespace shoal {

class LinkWatch {
 public:
  // `over` is asked every kLinkWatchPause, on a thread of its own; empty: never.
  explicit LinkWatch(std::function<bool()> over);
  ~LinkWatch();
  LinkWatch(const LinkWatch&) = delete;
  LinkWatch& operator=(const LinkWatch&) = delete;

  // As AskPeer. Any thread, each with a link of its own. Errors: also kCancelled (it is over).
  Result<WeightAnswer> Ask(WeightLink& link, const WeightAsk& ask, std::chrono::milliseconds limit);

 private:
  void Watch();

  const std::function<bool()> over_;
  std::mutex mutex_;
  std::condition_variable ended_changed_;
  bool ended_ = false;                // guarded by mutex_
  std::multiset<WeightLink*> asked_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace shoal
