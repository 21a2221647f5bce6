// dup2 is atomic: a thread that writes meanwhile writes to the old file or to the new one.
#include "apps/cli/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace shoal::cli {

Result<LogFile> LogFile::Open(std::string path, std::uint64_t bytes_max) {
  LogFile file(std::move(path), bytes_max);
  if (const std::size_t slash = file.path_.rfind('/'); slash != std::string::npos && slash > 0) {
    (void)::mkdir(file.path_.substr(0, slash).c_str(), 0700);
  }
  SHOAL_RETURN_IF_ERROR(file.Reopen());
  file.RotateIfLarge();
  return file;
}

Status LogFile::Reopen() {
  const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return Error{ErrorCode::kIo, "cannot write " + path_ + ": " + std::strerror(errno)};
  const bool moved = ::dup2(fd, STDERR_FILENO) >= 0;
  ::close(fd);
  if (!moved) return Error{ErrorCode::kIo, "stderr cannot be sent to " + path_};
  return {};
}

void LogFile::RotateIfLarge() {
  struct stat facts {};
  if (::fstat(STDERR_FILENO, &facts) != 0 || static_cast<std::uint64_t>(facts.st_size) < bytes_max_) return;
  for (int i = kLogFilesOld; i > 0; --i) {
    const std::string from = i == 1 ? path_ : path_ + "." + std::to_string(i - 1);
    (void)std::rename(from.c_str(), (path_ + "." + std::to_string(i)).c_str());
  }
  (void)Reopen();
}

}  // namespace shoal::cli
