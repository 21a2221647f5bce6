// Small files of the store, read and replaced whole; folders listed. Knows nothing of what is in them.
//
// Every call blocks on the disk. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace shoal {

// Owns a descriptor.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// kIo (kNotFound for a file that is absent), with a sentence that says what to do about a full disk and the like.
Error FileError(const std::string& what, const std::string& path, int code);

// Nothing when the file is absent. Errors: kCorrupt (larger than `bytes_max`, not a regular file), kIo.
Result<std::optional<std::vector<std::uint8_t>>> ReadWholeFile(const std::string& path, std::uint64_t bytes_max);
// Written beside its place, synced, renamed, the folder synced: a crash leaves the old file or the new one. Errors:
// kIo.
Status ReplaceFile(const std::string& path, std::span<const std::uint8_t> bytes);
// Writes all of it at `offset`. Errors: kIo.
Status WriteAt(int fd, const std::string& path, std::uint64_t offset, std::span<const std::uint8_t> bytes);
// Makes what was renamed or removed in `folder` last. Errors: kIo.
Status SyncFolder(const std::string& folder);

struct FileFacts {
  std::string name;
  std::uint64_t bytes = 0;
  std::int64_t time_ns = 0;  // last modified
};
// 0 when it is absent.
std::uint64_t FileBytes(const std::string& path);
// Regular files in `folder`, by name; none when it is absent.
std::vector<FileFacts> ListFiles(const std::string& folder);
std::vector<std::string> ListFolders(const std::string& folder);

// The lock (flock) that nobody else may hold: the file or folder is in nobody's use, and cannot be taken into use under
// its name. Empty: somebody has it, or it is absent.
OwnedFd LockUnused(const std::string& path);
// Removes a file, or a folder and what is in it, which nobody uses. False: it stays.
bool RemoveUnused(const std::string& path);

}  // namespace shoal
