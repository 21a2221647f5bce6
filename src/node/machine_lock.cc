// A lock on a file in the system's folder for temporary ones, one a user.
#include "node/machine_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kAskEvery{100};

}  // namespace

MachineLock::MachineLock() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  const std::string path = (folder / ("shoal-speed-" + std::to_string(::getuid()) + ".lock")).string();
  fd_ = error ? -1 : ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  Try();
}

MachineLock::MachineLock(std::chrono::milliseconds wait_max, const std::function<bool()>& cancelled,
                         const std::function<void()>& waits)
    : MachineLock() {
  if (!taken_) waits();
  const auto end = std::chrono::steady_clock::now() + wait_max;
  while (!taken_ && !cancelled() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(kAskEvery);
    Try();
  }
}

void MachineLock::Try() { taken_ = fd_ < 0 || ::flock(fd_, LOCK_EX | LOCK_NB) == 0; }

MachineLock::~MachineLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace shoal
