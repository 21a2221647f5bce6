// POSIX files.
#include "weights/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace shoal {
namespace {

std::int64_t TimeNs(const struct stat& info) {
#ifdef __APPLE__
  return std::int64_t{info.st_mtimespec.tv_sec} * 1'000'000'000 + info.st_mtimespec.tv_nsec;
#else
  return std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
#endif
}

}  // namespace

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

Error FileError(const std::string& what, const std::string& path, int code) {
  std::string text = "cannot " + what + " " + path + ": " + std::generic_category().message(code);
  if (code == ENOSPC || code == EDQUOT) text += ". Free some space and try again: what is there already is kept";
  if (code == EROFS || code == EACCES || code == EPERM) text += ". Set SHOAL_HOME to a folder that you may write to";
  return {code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, std::move(text)};
}

Result<std::optional<std::vector<std::uint8_t>>> ReadWholeFile(const std::string& path, std::uint64_t bytes_max) {
  using Bytes = std::vector<std::uint8_t>;
  const OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == ENOENT) return std::optional<Bytes>();
  if (!fd) return FileError("open", path, errno);
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return FileError("look at", path, errno);
  if (!S_ISREG(info.st_mode) || static_cast<std::uint64_t>(info.st_size) > bytes_max) {
    return Error{ErrorCode::kCorrupt, path + " is no file of the store, or larger than one may be"};
  }
  Bytes bytes(static_cast<std::size_t>(info.st_size));
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = read(fd.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError("read", path, errno);
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return std::optional<Bytes>(std::move(bytes));
}

Status WriteAt(int fd, const std::string& path, std::uint64_t offset, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("write", path, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status SyncFolder(const std::string& folder) {
  const OwnedFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return FileError("open", folder, errno);
  // Some file systems cannot sync a folder; then nothing can be done.
  if (fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) return FileError("sync", folder, errno);
  return {};
}

Status ReplaceFile(const std::string& path, std::span<const std::uint8_t> bytes) {
  // Of this call alone: two that write the same file end with one of both, whole.
  static std::atomic<std::uint64_t> calls{0};
  const std::string beside = path + "." + std::to_string(getpid()) + "." + std::to_string(calls++) + ".new";
  Status written = [&]() -> Status {
    const OwnedFd fd(open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return FileError("create", beside, errno);
    SHOAL_RETURN_IF_ERROR(WriteAt(fd.get(), beside, 0, bytes));
    if (fsync(fd.get()) != 0) return FileError("sync", beside, errno);
    if (rename(beside.c_str(), path.c_str()) != 0) return FileError("replace", path, errno);
    return {};
  }();
  if (!written.ok()) {
    unlink(beside.c_str());
    return written;
  }
  return SyncFolder(path.substr(0, path.rfind('/')));
}

std::uint64_t FileBytes(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

std::vector<FileFacts> ListFiles(const std::string& folder) {
  std::vector<FileFacts> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    struct stat info {};
    if (lstat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    files.push_back({it->path().filename().string(), static_cast<std::uint64_t>(info.st_size), TimeNs(info)});
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

std::vector<std::string> ListFolders(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error, ignored;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(ignored)) names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

OwnedFd LockUnused(const std::string& path) {
  OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd && flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return OwnedFd();
  return fd;
}

bool RemoveUnused(const std::string& path) {
  const OwnedFd lock = LockUnused(path);
  std::error_code error;
  return lock && std::filesystem::remove_all(path, error) > 0 && !error;
}

}  // namespace shoal
