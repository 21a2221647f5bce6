// drafts/KEY/: "header", and for each range N.part (its bytes so far) and N.sums (the hashes of its chunks); of one
// that is whole HEX.blob too, which says that its blob is needed.
#include "weights/draft.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "model/tensor_source.h"

namespace shoal {
namespace {

constexpr char kPartEnd[] = ".part", kSumsEnd[] = ".sums";

std::string FolderOf(const WeightStore& store, const Digest& key) { return store.Path("drafts/" + HexOf(key)); }

// Makes it when it is absent.
Result<OwnedFd> LockFolder(const std::string& folder) {
  for (;;) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return FileError("create", folder, error.value());
    OwnedFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd && errno != ENOENT) return FileError("open", folder, errno);
    if (fd && flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      return Error{ErrorCode::kUnavailable, "this model is being fetched by another shoal already"};
    }
    // Whoever removed it between two of these calls had locked it.
    struct stat ours {
    }, there{};
    if (fd && fstat(fd.get(), &ours) == 0 && stat(folder.c_str(), &there) == 0 && ours.st_ino == there.st_ino)
      return fd;
  }
}

void RemoveFolder(const std::string& folder) {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

}  // namespace

Draft::Draft(WeightStore& store, const Digest& key) : store_(store), key_(key), folder_(FolderOf(store, key)) {}

Draft::~Draft() {
  if (!lock_) return;
  const std::vector<FileFacts> files = ListFiles(folder_);
  const auto has_chunks = [](const FileFacts& file) { return file.name.ends_with(kSumsEnd); };
  if (std::none_of(files.begin(), files.end(), has_chunks)) RemoveFolder(folder_);
}

std::vector<std::uint8_t> Draft::KnownHeader(const WeightStore& store, const std::string& key) {
  if (const auto finished = store.FindSource(Sha256(key))) return finished->header;
  Result<std::optional<std::vector<std::uint8_t>>> header =
      ReadWholeFile(FolderOf(store, Sha256(key)) + "/header", kManifestBytesMax);
  if (!header.ok() || !header->has_value()) return {};
  return **std::move(header);
}

Result<std::unique_ptr<Draft>> Draft::Open(WeightStore& store, const std::string& key,
                                           std::span<const std::uint8_t> header, std::uint64_t file_bytes) {
  std::unique_ptr<Draft> draft(new Draft(store, Sha256(key)));
  SHOAL_ASSIGN_OR_RETURN(draft->manifest_, DescribeRanges(header, file_bytes));
  const std::shared_ptr<const Manifest> finished = store.FindSource(draft->key_);
  if (finished != nullptr && finished->header == draft->manifest_.header && finished->file_bytes == file_bytes) {
    draft->manifest_ = *finished;
    draft->was_finished_ = true;
    (void)RemoveUnused(draft->folder_);
    for (const WeightRange& range : finished->ranges) {
      Result<OwnedFd> pin = store.Pin(BlobId(range, finished->chunk_bytes));
      draft->pins_.push_back(pin.ok() ? *std::move(pin) : OwnedFd());
    }
    SHOAL_RETURN_IF_ERROR(draft->MakeRoom());
    return draft;
  }
  SHOAL_ASSIGN_OR_RETURN(draft->lock_, LockFolder(draft->folder_));
  SHOAL_RETURN_IF_ERROR(ReplaceFile(draft->folder_ + "/header", draft->manifest_.header));
  draft->pins_.resize(draft->manifest_.ranges.size());
  for (std::size_t i = 0; i < draft->pins_.size(); ++i) SHOAL_RETURN_IF_ERROR(draft->TakeFinished(i));
  SHOAL_RETURN_IF_ERROR(draft->MakeRoom());
  return draft;
}

Status Draft::MakeRoom() {
  std::vector<std::size_t> missing;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < pins_.size(); ++i) {
    if (pins_[i]) continue;
    missing.push_back(i);
    const std::uint64_t wanted = manifest_.ranges[i].bytes;
    bytes += wanted - std::min(wanted, FileBytes(folder_ + "/" + std::to_string(i) + kPartEnd));
  }
  return was_finished_ ? store_.MakeRoomFor(manifest_, missing) : store_.MakeRoom(bytes);
}

// A range that an earlier run finished: its hashes are here, and so is the blob that they name.
Status Draft::TakeFinished(std::size_t range) {
  const std::string sums = folder_ + "/" + std::to_string(range) + kSumsEnd;
  const std::uint64_t chunks = manifest_.ChunkCount(range);
  const auto read = ReadWholeFile(sums, chunks * sizeof(Digest));
  if (!read.ok() && read.error().code == ErrorCode::kCorrupt) {  // not ours: the range is fetched anew
    RemoveFolder(sums);
    return {};
  }
  if (!read.ok()) return read.error();
  const auto& bytes = *read;
  if (!bytes || bytes->size() != chunks * sizeof(Digest)) return {};
  WeightRange what = manifest_.ranges[range];
  what.chunks.resize(chunks);
  std::memcpy(what.chunks.data(), bytes->data(), bytes->size());
  Result<OwnedFd> pin = store_.Pin(BlobId(what, manifest_.chunk_bytes));
  if (!pin.ok()) return {};
  manifest_.ranges[range].chunks = std::move(what.chunks);
  Keep(range, *std::move(pin));
  return {};
}

void Draft::Keep(std::size_t range, OwnedFd pin) {
  pins_[range] = std::move(pin);
  if (was_finished_) return;  // a manifest names it
  const std::string mark =
      folder_ + "/" + HexOf(BlobId(manifest_.ranges[range], manifest_.chunk_bytes)) + kDraftBlobEnd;
  // Without it another model's removal may take the range once nobody fetches: then it is fetched again.
  const OwnedFd file(open(mark.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

bool Draft::Has(std::size_t range) const {
  const std::lock_guard lock(mutex_);
  return static_cast<bool>(pins_[range]);
}

Result<std::shared_ptr<RangeWriter>> Draft::Begin(std::size_t range) {
  if (was_finished_) return store_.Begin(manifest_, range);
  const std::string base = folder_ + "/" + std::to_string(range);
  Manifest unknown;
  unknown.chunk_bytes = manifest_.chunk_bytes;
  unknown.ranges.push_back(manifest_.ranges[range]);
  unknown.ranges[0].chunks.clear();
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<RangeWriter> writer,
                         RangeWriter::Open(unknown, 0, {base + kPartEnd, base + kSumsEnd, store_.Path("blobs")}));
  return std::shared_ptr<RangeWriter>(std::move(writer));
}

void Draft::Finished(std::size_t range, RangeWriter::Finished finished) {
  const std::lock_guard lock(mutex_);
  manifest_.ranges[range].chunks = std::move(finished.chunks);
  Keep(range, std::move(finished.pin));
}

Result<ModelId> Draft::Finish(const std::string& name, const std::string& origin, const std::vector<HashedFile>& files,
                              const std::function<bool(std::uint64_t)>& progress) {
  SHOAL_CHECK(manifest_.known());
  if (was_finished_) return store_.Add(manifest_, name, origin, key_);
  StoredModel model;
  model.name = "the model";
  model.manifest = std::make_shared<Manifest>(manifest_);
  SHOAL_ASSIGN_OR_RETURN(
      auto reader,
      MakeStoreSource(std::shared_ptr<const WeightStore>(std::shared_ptr<void>(), &store_), model)->Open());
  std::uint64_t done = 0;
  for (const HashedFile& file : files) {
    SHOAL_ASSIGN_OR_RETURN(const Digest have, HashFile(file, *reader, done, progress));
    if (have == file.sha256) continue;
    RemoveFolder(folder_);
    reader.reset();
    pins_.clear();
    (void)store_.Collect(false);
    return Error{ErrorCode::kCorrupt, "what came is not what the hub says " + file.name + " is (SHA-256 " +
                                          HexOf(have) + ", expected " + HexOf(file.sha256) +
                                          "); it was removed. Try again"};
  }
  SHOAL_ASSIGN_OR_RETURN(const ModelId id, store_.Add(manifest_, name, origin, key_));
  RemoveFolder(folder_);
  return id;
}

}  // namespace shoal
