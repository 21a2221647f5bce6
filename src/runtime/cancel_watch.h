// Ends what blocks and cannot look by itself whether it is still wanted: a thread beside it does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace shoal {

class CancelWatch {
 public:
  // Asks `cancelled` every `pause` until this goes, and calls `end` each time that it says so: the first may come
  // before there is anything to end. Both on a thread of its own, one after the other. `cancelled` empty: never.
  CancelWatch(std::function<bool()> cancelled, std::function<void()> end, std::chrono::milliseconds pause);
  ~CancelWatch();
  CancelWatch(const CancelWatch&) = delete;
  CancelWatch& operator=(const CancelWatch&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool over_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace shoal
