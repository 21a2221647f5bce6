// A model file read in place.
#include "model/tensor_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace shoal {
namespace {

constexpr std::size_t kReadBytesMax = 64U << 20;  // of one pread

class FileReader final : public TensorReader {
 public:
  FileReader(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~FileReader() override { close(fd_); }
  Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override { return ReadAt(fd_, path_, offset, out); }
  bool Waits(std::uint64_t offset) override { return WaitsAt(fd_, offset); }

 private:
  const int fd_;
  const std::string path_;
};

class FileSource final : public TensorSource {
 public:
  FileSource(std::string path, std::uint64_t file_bytes) : path_(std::move(path)), file_bytes_(file_bytes) {}

  Result<std::unique_ptr<TensorReader>> Open() const override {
    const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      return Error{errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, path_ + ": " + std::strerror(errno)};
    }
    auto reader = std::make_unique<FileReader>(fd, path_);
    struct stat facts {};
    if (fstat(fd, &facts) != 0) return Error{ErrorCode::kIo, path_ + ": " + std::strerror(errno)};
    if (static_cast<std::uint64_t>(facts.st_size) != file_bytes_) {
      return Error{ErrorCode::kIo, path_ + " changed since it was opened: " + std::to_string(facts.st_size) +
                                       " bytes, not " + std::to_string(file_bytes_)};
    }
    return std::unique_ptr<TensorReader>(std::move(reader));
  }

 private:
  const std::string path_;
  const std::uint64_t file_bytes_;
};

}  // namespace

std::shared_ptr<const TensorSource> MakeFileSource(std::string path, std::uint64_t file_bytes) {
  return std::make_shared<FileSource>(std::move(path), file_bytes);
}

// Where the system cannot tell: phones and boards read slow storage, which wants to be read in order; macOS has fast
// one.
bool WaitsAt([[maybe_unused]] int fd, [[maybe_unused]] std::uint64_t offset) {
#if defined(RWF_NOWAIT) && (!defined(__ANDROID__) || __ANDROID_API__ >= 33)
  std::uint8_t byte = 0;
  const iovec one{&byte, 1};
  return preadv2(fd, &one, 1, static_cast<off_t>(offset), RWF_NOWAIT) != 1;
#elif defined(__linux__)
  return true;
#else
  return false;
#endif
}

Status ReadAt(int fd, const std::string& name, std::uint64_t offset, std::span<std::uint8_t> out) {
  while (!out.empty()) {
    const ssize_t n = pread(fd, out.data(), std::min(out.size(), kReadBytesMax), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      return Error{ErrorCode::kIo, name + ": " + (n < 0 ? std::strerror(errno) : "the file ends early") + " at byte " +
                                       std::to_string(offset)};
    }
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

}  // namespace shoal
