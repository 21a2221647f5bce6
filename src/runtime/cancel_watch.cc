// One thread, which sleeps between its looks.
#include "runtime/cancel_watch.h"

#include <utility>

namespace shoal {

CancelWatch::CancelWatch(std::function<bool()> cancelled, std::function<void()> end, std::chrono::milliseconds pause) {
  if (!cancelled) return;
  thread_ = std::thread([this, cancelled = std::move(cancelled), end = std::move(end), pause] {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, pause, [this] { return over_; })) {
      lock.unlock();
      if (cancelled()) end();
      lock.lock();
    }
  });
}

CancelWatch::~CancelWatch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

}  // namespace shoal
