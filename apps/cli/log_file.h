// Sends what the program says on stderr to a file, and starts a new one when that is full: for services without a
// supervisor that keeps logs. Knows no log levels; libraries that write to stderr end there too.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace shoal::cli {

inline constexpr std::uint64_t kLogBytesMax = 1U << 20;
inline constexpr int kLogFilesOld = 3;  // "shoal.log.1" is the youngest

class LogFile {
 public:
  // From now on stderr is `path`, appended to, or a new one if that is full already: a program that fails at each start
  // fills no disk. Its folder is made if it is not there. Errors: kIo. Blocks for some file operations.
  static Result<LogFile> Open(std::string path, std::uint64_t bytes_max = kLogBytesMax);

  // Once the file has bytes_max: path becomes path.1, path.1 becomes path.2, ..., and stderr goes to a new path. What
  // cannot be renamed goes on growing.
  void RotateIfLarge();

 private:
  LogFile(std::string path, std::uint64_t bytes_max) : path_(std::move(path)), bytes_max_(bytes_max) {}
  Status Reopen();

  std::string path_;
  std::uint64_t bytes_max_;
};

}  // namespace shoal::cli
