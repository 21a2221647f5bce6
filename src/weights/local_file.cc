// stat, JSON records, and one pass over the file.
#include "weights/local_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/split_gguf.h"
#include "weights/files.h"

namespace shoal {
namespace {

constexpr std::uint64_t kRecordBytesMax = 64 * 1024;

Result<LocalFile> LookAtOne(const std::string& path) {
  LocalFile file;
  file.path = path;
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

}  // namespace

Result<LocalFile> LookAtLocalFile(const std::string& path) {
  std::error_code error;
  const std::string whole = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return FileError("find", path, error.value());
  const auto split = ParseSplitName(whole);
  if (!split || split->parts == 1) return LookAtOne(whole);
  LocalFile all;
  all.path = PartName(*split, 1);
  std::string facts;
  for (std::int32_t i = 1; i <= split->parts; ++i) {
    SHOAL_ASSIGN_OR_RETURN(const LocalFile part, LookAtOne(PartName(*split, i)));
    all.bytes += part.bytes;
    all.time_ns = std::max(all.time_ns, part.time_ns);
    for (const auto fact : {part.inode, part.bytes, static_cast<std::uint64_t>(part.time_ns)}) {
      facts += std::to_string(fact) + " ";
    }
  }
  const Digest digest = Sha256(facts);
  std::memcpy(&all.inode, digest.data(), sizeof all.inode);
  return all;
}

Digest LocalKey(const std::string& path) { return Sha256(path); }

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
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelFile> model, OpenModelFile(file.path));
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<TensorReader> reader, model->source->Open());
  std::vector<std::uint8_t> header(std::min(model->gguf.data_offset, model->gguf.file_bytes));
  SHOAL_RETURN_IF_ERROR(reader->Read(0, header));
  SHOAL_ASSIGN_OR_RETURN(Manifest manifest, DescribeRanges(header, model->gguf.file_bytes));
  std::vector<std::uint8_t> buffer(manifest.chunk_bytes);
  std::uint64_t read = header.size();
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    for (std::uint64_t chunk = 0; chunk < manifest.ChunkCount(i); ++chunk) {
      const std::uint64_t bytes = manifest.ChunkBytes(i, chunk);
      std::uint64_t done = 0;
      Status status;
      ForExtents(manifest.ranges[i], chunk * manifest.chunk_bytes, bytes, [&](std::uint64_t offset, std::uint64_t n) {
        if (status.ok()) status = reader->Read(offset, {buffer.data() + done, n});
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
