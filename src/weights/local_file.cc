// stat, JSON records, and one pass over the file.
#include "weights/local_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/tensor_source.h"
#include "weights/files.h"

namespace shoal {
namespace {

constexpr std::uint64_t kRecordBytesMax = 64 * 1024;

Result<std::vector<std::uint8_t>> ReadHeader(const LocalFile& file, const OwnedFd& fd) {
  SHOAL_ASSIGN_OR_RETURN(const Gguf gguf, ReadGguf(file.path));
  std::vector<std::uint8_t> header(std::min(gguf.data_offset, file.bytes));
  SHOAL_RETURN_IF_ERROR(ReadAt(fd.get(), file.path, 0, header));
  return header;
}

}  // namespace

Result<LocalFile> LookAtLocalFile(const std::string& path) {
  std::error_code error;
  LocalFile file;
  file.path = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return FileError("find", path, error.value());
  struct stat info {};
  if (stat(file.path.c_str(), &info) != 0) return FileError("open", path, errno);
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::kNotFound, path + " is not a regular file"};
  file.bytes = static_cast<std::uint64_t>(info.st_size);
  file.inode = static_cast<std::uint64_t>(info.st_ino);
#ifdef __APPLE__
  file.time_ns = std::int64_t{info.st_mtimespec.tv_sec} * 1'000'000'000 + info.st_mtimespec.tv_nsec;
#else
  file.time_ns = std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
#endif
  return file;
}

Digest LocalKey(const std::string& path) {
  return Sha256({reinterpret_cast<const std::uint8_t*>(path.data()), path.size()});
}

Result<LocalFile> ReadLocalRecord(const std::string& record_path) {
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadWholeFile(record_path, kRecordBytesMax));
  if (!bytes) return Error{ErrorCode::kNotFound, record_path + " is not there"};
  LocalFile file;
  try {
    const nlohmann::json json = nlohmann::json::parse(bytes->begin(), bytes->end());
    file.path = json.at("path").get<std::string>();
    file.bytes = json.at("bytes").get<std::uint64_t>();
    file.inode = json.at("inode").get<std::uint64_t>();
    file.time_ns = json.at("time_ns").get<std::int64_t>();
    if (ParseHex(json.at("id").get<std::string>(), file.id)) return file;
  } catch (const nlohmann::json::exception&) {}
  return Error{ErrorCode::kCorrupt, record_path + " is damaged; remove it"};
}

Status WriteLocalRecord(const std::string& record_path, const LocalFile& file) {
  const std::string text = nlohmann::json{
      {"path", file.path},
      {"bytes", file.bytes},
      {"inode", file.inode},
      {"time_ns", file.time_ns},
      {"id", HexOf(file.id)}}.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  return ReplaceFile(record_path, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

Result<Manifest> HashLocalFile(const LocalFile& file, const std::function<bool(std::uint64_t)>& progress) {
  const OwnedFd fd(open(file.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FileError("open", file.path, errno);
  SHOAL_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> header, ReadHeader(file, fd));
  SHOAL_ASSIGN_OR_RETURN(Manifest manifest, DescribeRanges(header, file.bytes));
  std::vector<std::uint8_t> buffer(manifest.chunk_bytes);
  std::uint64_t read = header.size();
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    for (std::uint64_t chunk = 0; chunk < manifest.ChunkCount(i); ++chunk) {
      const std::uint64_t bytes = manifest.ChunkBytes(i, chunk);
      std::uint64_t done = 0;
      Status status;
      ForExtents(manifest.ranges[i], chunk * manifest.chunk_bytes, bytes, [&](std::uint64_t offset, std::uint64_t n) {
        if (status.ok()) status = ReadAt(fd.get(), file.path, offset, {buffer.data() + done, n});
        done += n;
      });
      SHOAL_RETURN_IF_ERROR(status);
      manifest.ranges[i].chunks.push_back(Sha256({buffer.data(), bytes}));
      read += bytes;
      if (progress && !progress(read)) return Error{ErrorCode::kCancelled, "reading " + file.path + " was cancelled"};
    }
  }
  SHOAL_ASSIGN_OR_RETURN(const LocalFile after, LookAtLocalFile(file.path));
  if (!after.SameFile(file)) return Error{ErrorCode::kIo, file.path + " changed while it was read; try again"};
  return manifest;
}

}  // namespace shoal
