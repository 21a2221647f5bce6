// magic, version, name, manifest and its hash, indices of ranges; then their bytes.
#include "weights/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "model/tensor_source.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

constexpr char kMagic[8] = {'S', 'H', 'O', 'A', 'L', 'P', 'R', 'T'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kFixedBytes = sizeof kMagic + 4 + 4 + 8 + sizeof(Digest) + 4;  // but name, manifest, indices
constexpr std::uint64_t kHeadBytesMax = kManifestBytesMax + (1U << 20);

Error Damaged(const std::string& why) { return {ErrorCode::kCorrupt, "the part of a model is damaged: " + why}; }

std::vector<std::uint8_t> EncodeHead(const StoredModel& model, const std::vector<std::size_t>& ranges) {
  const std::vector<std::uint8_t> manifest = EncodeManifest(*model.manifest);
  std::vector<std::uint8_t> bytes(kMagic, kMagic + sizeof kMagic);
  bytes.reserve(kFixedBytes + model.name.size() + manifest.size() + 4 * ranges.size());
  ByteWriter out(bytes);
  out.Put(kVersion);
  out.Put(static_cast<std::uint32_t>(model.name.size()));
  out.PutText(model.name);
  out.Put(std::uint64_t{manifest.size()});
  out.PutArray(std::span<const std::uint8_t>(manifest));
  out.PutArray(std::span<const std::uint8_t>(model.id));
  out.Put(static_cast<std::uint32_t>(ranges.size()));
  for (const std::size_t range : ranges) out.Put(static_cast<std::uint32_t>(range));
  return bytes;
}

// By its hashes alone.
Result<StoredModel> WithoutSources(const StoredModel& model) {
  if (!model.manifest->sourced()) return model;
  if (!model.manifest->known()) {
    return Error{ErrorCode::kNotFound,
                 "not all layers of " + model.name + " have been here; `shoal pull " + model.origin + "` fetches all"};
  }
  StoredModel plain = model;
  Manifest manifest = *model.manifest;
  manifest.sources.clear();
  manifest.extents.clear();
  plain.id = Sha256(EncodeManifest(manifest));
  plain.manifest = std::make_shared<Manifest>(std::move(manifest));
  return plain;
}

// An open part, and the size of its file.
Result<OwnedFd> OpenPart(const std::string& path, std::uint64_t& bytes) {
  OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd || fstat(fd.get(), &info) != 0) return FileError("open", path, errno);
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::kCorrupt, path + " is no file"};
  bytes = static_cast<std::uint64_t>(info.st_size);
  return fd;
}

// Its pin: the next range may want its room.
Result<OwnedFd> TakeRange(WeightStore& store, const Manifest& manifest, std::size_t range, int fd,
                          const std::string& path, std::uint64_t offset,
                          const std::function<bool(std::uint64_t)>& more) {
  if (Result<OwnedFd> pin = store.Pin(BlobId(manifest.ranges[range], manifest.chunk_bytes)); pin.ok()) return pin;
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<RangeWriter> writer, store.Begin(manifest, range));
  std::vector<std::uint8_t> chunk;
  for (const std::uint64_t index : writer->Missing()) {
    chunk.resize(writer->ChunkBytes(index));
    SHOAL_RETURN_IF_ERROR(ReadAt(fd, path, offset + index * manifest.chunk_bytes, chunk));
    const Status put = writer->Put(index, chunk);
    if (!put.ok()) return put.error().code == ErrorCode::kCorrupt ? Damaged("wrong bytes") : put.error();
    if (!more(chunk.size())) return Error{ErrorCode::kCancelled, "taking the part was cancelled"};
  }
  SHOAL_ASSIGN_OR_RETURN(RangeWriter::Finished finished, writer->Finish());
  return std::move(finished.pin);
}

}  // namespace

bool IsPartFile(const std::string& path) {
  std::uint64_t bytes = 0;
  const Result<OwnedFd> fd = OpenPart(path, bytes);
  char magic[sizeof kMagic] = {};
  return fd.ok() && pread(fd->get(), magic, sizeof magic, 0) == sizeof magic &&
         std::memcmp(magic, kMagic, sizeof magic) == 0;
}

Result<PartHead> ParsePartHead(std::span<const std::uint8_t> bytes) {
  const std::size_t all = bytes.size();
  ByteReader in(bytes);
  const auto magic = in.Take(sizeof kMagic);
  if (magic.empty() || std::memcmp(magic.data(), kMagic, sizeof kMagic) != 0)
    return Damaged("it does not begin as one");
  if (in.Get<std::uint32_t>() != kVersion) {
    return Error{ErrorCode::kUnsupported, "the part of a model was written by another version of shoal"};
  }
  PartHead head;
  const auto name = in.Take(std::min<std::size_t>(in.Get<std::uint32_t>(), kModelNameMax + 1));
  head.name.assign(name.begin(), name.end());
  if (!CheckModelName(head.name).ok()) return Damaged("its model has no proper name");
  const auto manifest_bytes = in.Get<std::uint64_t>();
  if (manifest_bytes > in.remaining()) return Damaged("its head is cut off");
  const auto manifest = in.Take(manifest_bytes);
  const auto id = in.Take(sizeof(Digest));
  if (in.failed() || !std::equal(id.begin(), id.end(), Sha256(manifest).begin())) return Damaged("its manifest");
  SHOAL_ASSIGN_OR_RETURN(head.manifest, ParseManifest(manifest));
  if (head.manifest.sourced()) return Damaged("its manifest has no hashes");
  const auto count = in.Get<std::uint32_t>();
  if (count == 0 || count > head.manifest.ranges.size()) return Damaged("it says how many ranges it has wrongly");
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto range = in.Get<std::uint32_t>();
    if (range >= head.manifest.ranges.size() || (i > 0 && range <= head.ranges.back())) {
      return Damaged("it names ranges that are none");
    }
    head.ranges.push_back(range);
    head.file_bytes += head.manifest.ranges[range].bytes;
  }
  if (in.failed()) return Damaged("its head is cut off");
  head.data_offset = all - in.remaining();
  head.file_bytes += head.data_offset;
  return head;
}

Result<std::uint64_t> WritePartFile(const WeightStore& store, const StoredModel& of,
                                    const std::vector<std::size_t>& ranges, const std::string& path,
                                    const PartProgress& progress) {
  SHOAL_ASSIGN_OR_RETURN(const StoredModel model, WithoutSources(of));
  const std::string unfinished = path + ".new";
  const OwnedFd fd(open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return FileError("create", unfinished, errno);
  const auto write = [&]() -> Result<std::uint64_t> {
    const std::vector<std::uint8_t> head = EncodeHead(model, ranges);
    SHOAL_RETURN_IF_ERROR(WriteAt(fd.get(), unfinished, 0, head));
    std::uint64_t at = head.size();
    for (const std::size_t range : ranges) {
      for (std::uint64_t chunk = 0; chunk < model.manifest->ChunkCount(range); ++chunk) {
        SHOAL_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> bytes, store.ReadChunk(model, range, chunk));
        SHOAL_RETURN_IF_ERROR(WriteAt(fd.get(), unfinished, at, bytes));
        at += bytes.size();
        if (progress && !progress(at)) return Error{ErrorCode::kCancelled, "splitting was cancelled"};
      }
    }
    if (fsync(fd.get()) != 0) return FileError("sync", unfinished, errno);
    if (rename(unfinished.c_str(), path.c_str()) != 0) return FileError("finish", path, errno);
    return at;
  };
  Result<std::uint64_t> written = write();
  if (!written.ok()) (void)unlink(unfinished.c_str());
  return written;
}

Result<std::string> TakePartFile(WeightStore& store, const std::string& path, const std::string& name,
                                 const PartProgress& progress) {
  std::uint64_t file_bytes = 0;
  SHOAL_ASSIGN_OR_RETURN(const OwnedFd fd, OpenPart(path, file_bytes));
  std::vector<std::uint8_t> begin(std::min<std::uint64_t>(file_bytes, kFixedBytes + kModelNameMax));
  SHOAL_RETURN_IF_ERROR(ReadAt(fd.get(), path, 0, begin));
  ByteReader in(begin);
  (void)in.Take(sizeof kMagic + 4);
  (void)in.Take(std::min<std::size_t>(in.Get<std::uint32_t>(), kModelNameMax));
  const std::uint64_t manifest_bytes = in.Get<std::uint64_t>();
  if (in.failed() || manifest_bytes > kManifestBytesMax) return Damaged("its head is cut off");
  begin.resize(std::min<std::uint64_t>({file_bytes, kHeadBytesMax, manifest_bytes + (1U << 20)}));
  SHOAL_RETURN_IF_ERROR(ReadAt(fd.get(), path, 0, begin));
  SHOAL_ASSIGN_OR_RETURN(const PartHead head, ParsePartHead(begin));
  if (head.file_bytes != file_bytes) return Damaged("it has another length");
  SHOAL_RETURN_IF_ERROR(store.MakeRoomFor(head.manifest, {head.ranges.begin(), head.ranges.end()}));
  std::uint64_t at = head.data_offset, done = at;
  std::vector<OwnedFd> pins;
  for (const std::uint32_t range : head.ranges) {
    SHOAL_ASSIGN_OR_RETURN(OwnedFd pin,
                           TakeRange(store, head.manifest, range, fd.get(), path, at, [&](std::uint64_t bytes) {
                             done += bytes;
                             return !progress || progress(done);
                           }));
    pins.push_back(std::move(pin));
    at += head.manifest.ranges[range].bytes;
  }
  const std::string called = name.empty() ? head.name : name;
  SHOAL_RETURN_IF_ERROR(store.Add(head.manifest, called, "part"));
  return called;
}

}  // namespace shoal
