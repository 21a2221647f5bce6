// Held by whoever measures: nodes of one machine do not measure at the same time, each would see what the others leave
// over. Without a folder for it there is none, and measuring goes on.
#pragma once

namespace shoal {

class MachineLock {
 public:
  MachineLock();  // does not wait
  ~MachineLock();
  MachineLock(const MachineLock&) = delete;
  MachineLock& operator=(const MachineLock&) = delete;
  bool taken() const { return taken_; }

 private:
  int fd_ = -1;
  bool taken_ = false;
};

}  // namespace shoal
