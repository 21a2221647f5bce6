// A sparse or preallocated file of chunks, and a file of their hashes.
#include "weights/range_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/check.h"
#include "model/tensor_source.h"

namespace shoal {
namespace {

// Takes the disk space now, where the file system can: a full disk is known before anything is fetched.
Status Reserve(int fd, const std::string& path, std::uint64_t bytes) {
#ifdef __linux__
  if (fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) return {};
  if (errno != EOPNOTSUPP && errno != ENOSYS) return FileError("make room for", path, errno);
#endif
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) return FileError("make room for", path, errno);
  return {};
}

Result<OwnedFd> OpenPart(const std::string& path) {
  OwnedFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return FileError("create", path, errno);
  return fd;
}

}  // namespace

Result<std::unique_ptr<RangeWriter>> RangeWriter::Open(const Manifest& manifest, std::size_t range, Place place) {
  const WeightRange& what = manifest.ranges[range];
  SHOAL_CHECK(what.bytes > 0);
  std::unique_ptr<RangeWriter> writer(new RangeWriter);
  writer->place_ = std::move(place);
  writer->bytes_ = what.bytes;
  writer->chunk_bytes_ = manifest.chunk_bytes;
  writer->known_ = what.known();
  writer->hashes_ = what.chunks;
  writer->hashes_.resize(manifest.ChunkCount(range));
  writer->have_.resize(writer->hashes_.size());
  const Place& at = writer->place_;
  SHOAL_ASSIGN_OR_RETURN(writer->data_, OpenPart(at.bytes_path));
  if (flock(writer->data_.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{ErrorCode::kUnavailable, what.Name() + " is being fetched by another shoal already"};
  }
  struct stat ours {
  }, there{};
  if (fstat(writer->data_.get(), &ours) != 0 || stat(at.bytes_path.c_str(), &there) != 0 ||
      ours.st_ino != there.st_ino) {
    return Error{ErrorCode::kUnavailable, what.Name() + " was finished by another shoal just now"};
  }
  writer->locked_ = true;
  if (!writer->known_) { SHOAL_ASSIGN_OR_RETURN(writer->sums_, OpenPart(at.sums_path)); }
  SHOAL_RETURN_IF_ERROR(writer->Reread());
  SHOAL_RETURN_IF_ERROR(Reserve(writer->data_.get(), at.bytes_path, what.bytes));
  return writer;
}

// Space that was taken for nothing goes back.
RangeWriter::~RangeWriter() {
  if (!locked_ || !data_ || Missing().size() < have_.size()) return;
  (void)unlink(place_.bytes_path.c_str());
  if (!known_) (void)unlink(place_.sums_path.c_str());
}

std::uint64_t RangeWriter::ChunkBytes(std::uint64_t chunk) const {
  SHOAL_CHECK(chunk < have_.size());
  return std::min<std::uint64_t>(chunk_bytes_, bytes_ - chunk * chunk_bytes_);
}

// Believes a chunk when its bytes have the hash that is expected, or that was written after them.
Status RangeWriter::Reread() {
  const off_t there = lseek(data_.get(), 0, SEEK_END);
  if (there < 0) return FileError("look at", place_.bytes_path, errno);
  if (!known_) {
    const off_t sums = lseek(sums_.get(), 0, SEEK_END);
    const auto whole = static_cast<std::size_t>(std::max<off_t>(sums, 0)) / sizeof(Digest);
    const std::size_t n = std::min(whole, hashes_.size());
    SHOAL_RETURN_IF_ERROR(ReadAt(sums_.get(), place_.sums_path, 0,
                                 {reinterpret_cast<std::uint8_t*>(hashes_.data()), n * sizeof(Digest)}));
  }
  std::vector<std::uint8_t> buffer(std::min<std::uint64_t>(chunk_bytes_, bytes_));
  for (std::size_t i = 0; i < have_.size(); ++i) {
    const std::uint64_t size = ChunkBytes(i), start = i * std::uint64_t{chunk_bytes_};
    if (start + size > static_cast<std::uint64_t>(there)) break;
    if (hashes_[i] == Digest{}) continue;
    const std::span<std::uint8_t> chunk(buffer.data(), size);
    SHOAL_RETURN_IF_ERROR(ReadAt(data_.get(), place_.bytes_path, start, chunk));
    if (Sha256(chunk) != hashes_[i]) continue;
    have_[i] = true;
    bytes_had_ += size;
  }
  return {};
}

std::vector<std::uint64_t> RangeWriter::Missing() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint64_t> missing;
  for (std::size_t i = 0; i < have_.size(); ++i) {
    if (!have_[i]) missing.push_back(i);
  }
  return missing;
}

Status RangeWriter::Put(std::uint64_t chunk, std::span<const std::uint8_t> bytes) {
  if (chunk >= have_.size() || bytes.size() != ChunkBytes(chunk)) {
    return Error{ErrorCode::kInvalidArgument, "a chunk of the wrong length"};
  }
  const Digest hash = Sha256(bytes);
  if (known_ && hash != hashes_[chunk]) return Error{ErrorCode::kCorrupt, "wrong bytes: their hash is another"};
  SHOAL_RETURN_IF_ERROR(WriteAt(data_.get(), place_.bytes_path, chunk * chunk_bytes_, bytes));
  if (!known_) SHOAL_RETURN_IF_ERROR(WriteAt(sums_.get(), place_.sums_path, chunk * sizeof(Digest), hash));
  const std::lock_guard lock(mutex_);
  hashes_[chunk] = hash;
  have_[chunk] = true;
  return {};
}

Status RangeWriter::Get(std::uint64_t chunk, std::span<std::uint8_t> out) const {
  const std::lock_guard lock(mutex_);  // over the read: Finish takes the descriptor away
  if (chunk >= have_.size() || !have_[chunk] || out.size() != ChunkBytes(chunk)) {
    return Error{ErrorCode::kNotFound, "this chunk is not here yet"};
  }
  return ReadAt(data_.get(), place_.bytes_path, chunk * chunk_bytes_, out);
}

Result<RangeWriter::Finished> RangeWriter::Finish() {
  SHOAL_CHECK(Missing().empty());
  WeightRange done;
  done.bytes = bytes_;
  done.chunks = hashes_;
  const std::string blob = place_.blobs + "/" + HexOf(BlobId(done, chunk_bytes_));
  if (fsync(data_.get()) != 0) return FileError("sync", place_.bytes_path, errno);
  if (!known_ && fsync(sums_.get()) != 0) return FileError("sync", place_.sums_path, errno);
  // From here on others may read it, and nobody may evict it.
  if (flock(data_.get(), LOCK_SH) != 0) return FileError("lock", place_.bytes_path, errno);
  if (rename(place_.bytes_path.c_str(), blob.c_str()) != 0) return FileError("finish", blob, errno);
  SHOAL_RETURN_IF_ERROR(SyncFolder(place_.blobs));
  const std::lock_guard lock(mutex_);
  have_.assign(have_.size(), false);  // Get finds nothing here any more: it is a blob now
  return Finished{hashes_, std::move(data_)};
}

}  // namespace shoal
