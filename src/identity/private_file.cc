// POSIX files: O_CREAT with 0600, fsync, rename, flock. Holds no state.
#include "identity/private_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace shoal {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  // 0, or -1 with errno: some file systems say only here that the disk was full.
  int Close() { return close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

Error Refused(const char* what, const std::string& path, int code) {
  std::string text = std::string("cannot ") + what + " " + path + ": " + std::generic_category().message(code);
  if (code == ENOSPC || code == EDQUOT) text += " (free some space and try again)";
  if (code == EACCES || code == EPERM) text += " (is it another user's? set SHOAL_HOME to a folder of your own)";
  if (code == EROFS) text += " (set SHOAL_HOME to a folder that can be written)";
  return Error{ErrorCode::kIo, std::move(text)};
}

std::string Octal(mode_t mode) {
  std::string text;
  for (const int shift : {9, 6, 3, 0}) text += static_cast<char>('0' + (mode >> shift & 7));
  return text;
}

std::string FolderOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// A rename is on disk when its folder is. Some file systems cannot sync a folder and say EINVAL; then nothing can be
// done.
Status SyncFolder(const std::string& folder) {
  const Descriptor fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return Refused("open", folder, errno);
  if (fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) return Refused("sync", folder, errno);
  return {};
}

Status WriteAll(int fd, const std::string& path, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Refused("write", path, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Status WriteNew(const std::string& path, ByteSpan bytes, bool sync) {
  unlink(path.c_str());  // of a writer that crashed
  Descriptor fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return Refused("create", path, errno);
  SHOAL_RETURN_IF_ERROR(WriteAll(fd.get(), path, bytes));
  if (sync && fsync(fd.get()) != 0) return Refused("sync", path, errno);
  if (fd.Close() != 0) return Refused("close", path, errno);
  return {};
}

// Written beside its place, then renamed.
Status Replace(const std::string& path, ByteSpan bytes, bool sync) {
  const std::string beside = path + ".new";
  const Status written = WriteNew(beside, bytes, sync);
  if (!written.ok()) {
    unlink(beside.c_str());
    return written;
  }
  if (rename(beside.c_str(), path.c_str()) != 0) {
    const int code = errno;
    unlink(beside.c_str());
    return Refused("replace", path, code);
  }
  return sync ? SyncFolder(FolderOf(path)) : Status();
}

ByteSpan BytesOf(std::string_view text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }

}  // namespace

Status MakePrivateFolder(const std::string& folder) {
  std::error_code error;
  const std::string parent = std::filesystem::path(folder).lexically_normal().parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  if (error) return Refused("create", parent, error.value());
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return Refused("create", folder, errno);
  struct stat info {};
  if (stat(folder.c_str(), &info) != 0) return Refused("look at", folder, errno);
  if (!S_ISDIR(info.st_mode)) return Error{ErrorCode::kIo, folder + " is not a folder"};
  if (info.st_uid != geteuid()) return Error{ErrorCode::kIo, folder + " belongs to another user"};
  const mode_t mode = info.st_mode & 07777;
  if ((mode & 0022) != 0) {
    return Error{ErrorCode::kIo, "others may write to " + folder + " (mode " + Octal(mode) + "): chmod 700 " + folder};
  }
  if ((mode & 0077) != 0 && chmod(folder.c_str(), 0700) != 0) return Refused("narrow the mode of", folder, errno);
  return {};
}

Result<std::optional<Bytes>> ReadPrivateFile(const std::string& path, std::size_t bytes_max) {
  const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0 && errno == ENOENT) return std::optional<Bytes>();
  if (fd.get() < 0) return Refused("open", path, errno);
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return Refused("look at", path, errno);
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::kIo, path + " is not a regular file"};
  if ((info.st_mode & 0077) != 0) {
    return Error{ErrorCode::kIo,
                 "others may read " + path + " (mode " + Octal(info.st_mode & 07777) + "): chmod 600 " + path};
  }
  Bytes bytes(bytes_max + 1);  // one more than allowed, to see that it is too large
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = read(fd.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Refused("read", path, errno);
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  if (have > bytes_max) {
    return Error{ErrorCode::kCorrupt, path + " is larger than " + std::to_string(bytes_max) + " bytes"};
  }
  bytes.resize(have);
  return std::optional<Bytes>(std::move(bytes));
}

Status WritePrivateFile(const std::string& path, ByteSpan bytes) { return Replace(path, bytes, true); }

Status WritePrivateText(const std::string& path, std::string_view text) { return Replace(path, BytesOf(text), true); }

Status WritePrivateHint(const std::string& path, std::string_view text) { return Replace(path, BytesOf(text), false); }

std::string ReadPrivateText(const std::string& path, std::size_t bytes_max) {
  const Result<std::optional<Bytes>> read = ReadPrivateFile(path, bytes_max);
  return read.ok() && *read ? std::string((*read)->begin(), (*read)->end()) : std::string();
}

Status RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return Refused("remove", path, errno);
  }
  return SyncFolder(FolderOf(path));
}

Result<int> LockFile(const std::string& path) {
  Descriptor fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return Refused("create", path, errno);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Refused("lock", path, errno);
    char text[24] = {};
    const ssize_t got = read(fd.get(), text, sizeof text - 1);
    const std::string pid(text, got > 0 ? strcspn(text, "\n") : 0);
    return Error{ErrorCode::kUnavailable, "a node runs in " + FolderOf(path) + " already" +
                                              (pid.empty() ? "" : " (process " + pid + ")") +
                                              "; set SHOAL_HOME to another folder for a second one"};
  }
  // The number is for the message above only, so a full disk is no reason to fail.
  const std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(fd.get(), 0) == 0 && write(fd.get(), pid.data(), pid.size()) < 0) errno = 0;
  return fd.release();
}

}  // namespace shoal
