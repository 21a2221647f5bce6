// Held by whoever measures, nodes and `shoal device --bench` alike: two that measure on one machine at the same time
// would each see what the other leaves over. Without a folder for it there is none, and measuring goes on.
#pragma once

#include <chrono>
#include <functional>

namespace shoal {

class MachineLock {
 public:
  MachineLock();  // does not wait
  // Waits for it, at most `wait_max`, until `cancelled`; `waits` is called once if it must.
  MachineLock(std::chrono::milliseconds wait_max, const std::function<bool()>& cancelled,
              const std::function<void()>& waits);
  ~MachineLock();
  MachineLock(const MachineLock&) = delete;
  MachineLock& operator=(const MachineLock&) = delete;
  bool taken() const { return taken_; }

 private:
  void Try();

  int fd_ = -1;
  bool taken_ = false;
};

}  // namespace shoal
