// stdio's own hooks make the FILE*: fopencookie (glibc, musl) or funopen (Bionic, macOS, BSD).
#include "engine/virtual_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace shoal {
namespace {

constexpr std::size_t kBufferBytes = 256U << 10;

VirtualFile* Self(void* cookie) { return static_cast<VirtualFile*>(cookie); }

#if defined(__GLIBC__) || (defined(__linux__) && !defined(__ANDROID__))
template <typename Offset>  // off_t or off64_t, as the C library has it
int SeekHook(void* cookie, Offset* offset, int whence) {
  const std::int64_t position = Self(cookie)->Seek(static_cast<std::int64_t>(*offset), whence);
  if (position < 0) return -1;
  *offset = static_cast<Offset>(position);
  return 0;
}

ssize_t ReadHook(void* cookie, char* out, std::size_t bytes) {
  return static_cast<ssize_t>(Self(cookie)->Read(out, bytes));
}

std::FILE* OpenStream(VirtualFile* self) {
  cookie_io_functions_t hooks{};
  hooks.read = &ReadHook;
  hooks.seek = &SeekHook;
  return fopencookie(self, "r", hooks);
}
#else
int ReadHook(void* cookie, char* out, int bytes) {
  return static_cast<int>(Self(cookie)->Read(out, static_cast<std::uint64_t>(std::max(bytes, 0))));
}

fpos_t SeekHook(void* cookie, fpos_t offset, int whence) {
  return static_cast<fpos_t>(Self(cookie)->Seek(static_cast<std::int64_t>(offset), whence));
}

std::FILE* OpenStream(VirtualFile* self) { return funopen(self, &ReadHook, nullptr, &SeekHook, nullptr); }
#endif

}  // namespace

Result<std::unique_ptr<VirtualFile>> VirtualFile::Open(const Shard& shard) {
  std::unique_ptr<VirtualFile> self(new VirtualFile(shard));
  SHOAL_ASSIGN_OR_RETURN(self->reader_, shard.model->source->Open());
  self->file_ = OpenStream(self.get());
  if (self->file_ == nullptr) return Error{ErrorCode::kIo, std::string("no stream: ") + std::strerror(errno)};
  // Streams with hooks read by the buffer, however much is asked for; the default one is a page.
  self->buffer_.resize(kBufferBytes);
  if (std::setvbuf(self->file_, self->buffer_.data(), _IOFBF, kBufferBytes) != 0) {
    return Error{ErrorCode::kIo, "no stream buffer"};
  }
  return self;
}

VirtualFile::~VirtualFile() {
  if (file_ != nullptr) std::fclose(file_);
}

std::int64_t VirtualFile::Seek(std::int64_t offset, int whence) {
  const auto bytes = static_cast<std::int64_t>(shard_.bytes);
  const std::int64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? static_cast<std::int64_t>(position_) : bytes;
  if (offset < -base || offset > std::numeric_limits<std::int64_t>::max() - base) {
    errno = EINVAL;
    return -1;
  }
  position_ = static_cast<std::uint64_t>(base + offset);
  return base + offset;
}

std::int64_t VirtualFile::Read(char* out, std::uint64_t bytes) {
  std::uint64_t done = 0;
  while (done < bytes && position_ < shard_.bytes) {
    std::uint64_t n = 0;
    if (position_ < shard_.header.size()) {
      n = std::min<std::uint64_t>(bytes - done, shard_.header.size() - position_);
      std::memcpy(out + done, shard_.header.data() + position_, n);
    } else {
      auto segment = std::upper_bound(shard_.segments.begin(), shard_.segments.end(), position_,
                                      [](std::uint64_t p, const ShardSegment& s) { return p < s.offset; });
      SHOAL_CHECK(segment != shard_.segments.begin());
      --segment;
      const std::uint64_t inside = position_ - segment->offset;
      SHOAL_CHECK(inside < segment->bytes);
      n = std::min(bytes - done, segment->bytes - inside);
      if (segment->source_offset < 0) {
        std::memset(out + done, 0, n);
      } else if (Status read = reader_->Read(static_cast<std::uint64_t>(segment->source_offset) + inside,
                                             {reinterpret_cast<std::uint8_t*>(out + done), n});
                 !read.ok()) {
        if (status_.ok()) status_ = std::move(read);
        errno = EIO;
        return -1;
      }
    }
    done += n;
    position_ += n;
  }
  return static_cast<std::int64_t>(done);
}

}  // namespace shoal
