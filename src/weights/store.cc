// Names, manifests, blobs. What goes, and when: store_room.cc.
#include "weights/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "model/split_gguf.h"
#include "model/tensor_source.h"
#include "weights/http.h"

namespace shoal {
namespace {

constexpr std::uint64_t kRecordBytesMax = 64 * 1024;
constexpr char kRecordEnd[] = ".json";
constexpr const char* kFolders[] = {"models", "manifests", "blobs", "partial", "drafts", "sums", "local"};

struct NameRecord {
  ModelId id{};
  std::string origin;
  Digest source{};
};

Result<NameRecord> ReadRecord(const std::string& path) {
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadWholeFile(path, kRecordBytesMax));
  if (!bytes) return Error{ErrorCode::kNotFound, path + " is not there"};
  const nlohmann::json json = nlohmann::json::parse(bytes->begin(), bytes->end(), nullptr, false);
  NameRecord record;
  if (!json.is_object() || !json.contains("id") || !json["id"].is_string() ||
      !ParseHex(json["id"].get<std::string>(), record.id)) {
    return Error{ErrorCode::kCorrupt, path + " is damaged; remove it"};
  }
  if (json.contains("origin") && json["origin"].is_string()) record.origin = json["origin"].get<std::string>();
  if (json.contains("source") && json["source"].is_string()) {
    (void)ParseHex(json["source"].get<std::string>(), record.source);
  }
  return record;
}

// The names of records in a folder. Not what writers that were killed left beside them.
std::vector<std::string> RecordsIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const FileFacts& file : ListFiles(folder)) {
    if (!file.name.ends_with(kRecordEnd)) continue;
    names.push_back(file.name.substr(0, file.name.size() - (sizeof kRecordEnd - 1)));
  }
  return names;
}

Error NameTaken(const std::string& name, const std::string& origin) {
  return {ErrorCode::kInvalidArgument, "another model is called '" + name + "' here (from " + WithoutQuery(origin) +
                                           "): `shoal rm " + name +
                                           "` first, or `shoal pull --name` gives this one another name"};
}

// Whether both are states of one source: paths, URLs and names of the hub are; "cluster" is not.
bool IsSameSource(const std::string& before, const std::string& origin) {
  return before == origin && origin.find_first_of("/:") != std::string::npos;
}

// Whether `manifest` is another state of what a sourced one says, or says more of the same.
bool IsSameSource(const Manifest& before, const Manifest& manifest) {
  if (!before.sourced()) return false;
  const auto same_place = [](const SourceFile& a, const SourceFile& b) { return a.url == b.url; };
  return (before.header == manifest.header && before.file_bytes == manifest.file_bytes) ||
         std::equal(before.sources.begin(), before.sources.end(), manifest.sources.begin(), manifest.sources.end(),
                    same_place);
}

}  // namespace

Result<std::string> CheckModelName(const std::string& name) {
  const bool fits = !name.empty() && name.size() <= kModelNameMax && name.front() != '.' && name.front() != '-' &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == '+';
                    });
  if (fits) return name;
  return Error{ErrorCode::kInvalidArgument,
               "a model's name has 1 to 128 letters, digits, '.', '-', '_' or '+', and begins with a letter or digit"};
}

Result<std::unique_ptr<WeightStore>> WeightStore::Open(StoreOptions options) {
  std::unique_ptr<WeightStore> store(new WeightStore(std::move(options)));
  for (const char* name : kFolders) {
    std::error_code error;
    std::filesystem::create_directories(store->Path(name), error);
    if (error) return FileError("create", store->Path(name), error.value());
  }
  return store;
}

// ---- Models ---------------------------------------------------------------------------------------------------------

Result<ModelId> WeightStore::Add(const Manifest& manifest, const std::string& name, const std::string& origin,
                                 const Digest& source) {
  SHOAL_RETURN_IF_ERROR([&]() -> Status {
    const Result<std::string> checked = CheckModelName(name);
    return checked.ok() ? Status() : Status(checked.error());
  }());
  const std::vector<std::uint8_t> bytes = EncodeManifest(manifest);
  const ModelId id = Sha256(bytes);
  const Result<NameRecord> before = ReadRecord(Path("models/" + name + kRecordEnd));
  if (before.ok() && before->id != id && !IsSameSource(before->origin, origin)) {
    const Result<std::shared_ptr<const Manifest>> there = FindManifest(before->id);
    if (!there.ok() || !IsSameSource(**there, manifest)) return NameTaken(name, before->origin);
  }
  const std::string path = Path("manifests/" + HexOf(id));
  std::error_code error;
  if (!std::filesystem::exists(path, error)) SHOAL_RETURN_IF_ERROR(ReplaceFile(path, bytes));
  nlohmann::json json{{"id", HexOf(id)}, {"origin", origin}};
  if (source != Digest{}) json["source"] = HexOf(source);
  const std::string record = json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  SHOAL_RETURN_IF_ERROR(ReplaceFile(Path("models/" + name + kRecordEnd),
                                    {reinterpret_cast<const std::uint8_t*>(record.data()), record.size()}));
  return id;
}

Status WeightStore::CheckNameFree(const std::string& name, const std::string& origin, const Manifest& manifest) const {
  SHOAL_RETURN_IF_ERROR(CheckModelName(name));
  const Result<NameRecord> before = ReadRecord(Path("models/" + name + kRecordEnd));
  if (!before.ok() || IsSameSource(before->origin, origin)) return {};
  const Result<std::shared_ptr<const Manifest>> there = FindManifest(before->id);
  if (!there.ok()) return {};
  if ((*there)->header == manifest.header && (*there)->file_bytes == manifest.file_bytes) return {};
  if (IsSameSource(**there, manifest)) return {};
  return NameTaken(name, before->origin);
}

Result<ModelId> WeightStore::AddLocal(const std::string& path, const std::string& name,
                                      const std::function<bool(std::uint64_t)>& progress) {
  SHOAL_ASSIGN_OR_RETURN(const LocalFile now, LookAtLocalFile(path));
  const std::string record_path = Path("local/" + HexOf(LocalKey(now.path)) + kRecordEnd);
  if (const Result<LocalFile> known = ReadLocalRecord(record_path); known.ok() && known->SameFile(now)) {
    if (const auto manifest = FindManifest(known->id); manifest.ok()) return Add(**manifest, name, now.path);
  }
  SHOAL_ASSIGN_OR_RETURN(const Manifest manifest, HashLocalFile(now, progress));
  SHOAL_ASSIGN_OR_RETURN(const ModelId id, Add(manifest, name, now.path));
  LocalFile record = now;
  record.id = id;
  SHOAL_RETURN_IF_ERROR(WriteLocalRecord(record_path, record));
  return id;
}

// The local file that has this model, if it is still the file that was hashed.
std::optional<std::string> WeightStore::LocalPathOf(const ModelId& id) const {
  for (const FileFacts& file : ListFiles(Path("local"))) {
    const Result<LocalFile> record = ReadLocalRecord(Path("local/" + file.name));
    if (!record.ok() || record->id != id) continue;
    const Result<LocalFile> now = LookAtLocalFile(record->path);
    if (now.ok() && record->SameFile(*now)) return record->path;
  }
  return std::nullopt;
}

Result<std::shared_ptr<const Manifest>> WeightStore::FindManifest(const ModelId& id) const {
  const std::string path = Path("manifests/" + HexOf(id));
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadWholeFile(path, kManifestBytesMax));
  if (!bytes) return Error{ErrorCode::kNotFound, "the manifest " + HexOf(id) + " is not on this node"};
  if (Sha256(*bytes) != id) return Error{ErrorCode::kCorrupt, path + " is damaged; remove it"};
  SHOAL_ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(*bytes));
  return WithHashes(id, std::make_shared<Manifest>(std::move(manifest)));
}

std::shared_ptr<const Manifest> WeightStore::FindSource(const Digest& source) const {
  for (const std::string& name : RecordsIn(Path("models"))) {
    const Result<NameRecord> record = ReadRecord(Path("models/" + name + kRecordEnd));
    if (!record.ok() || record->source != source) continue;
    if (const auto manifest = FindManifest(record->id); manifest.ok()) return *manifest;
  }
  return nullptr;
}

std::vector<LayerRange> HeldLayers(const Manifest& manifest, const std::vector<bool>& held) {
  std::vector<LayerRange> layers;
  for (std::size_t i = 0; i < held.size(); ++i) {
    const WeightRange& range = manifest.ranges[i];
    if (range.kind != RangeKind::kLayer || !held[i]) continue;
    if (layers.empty() || layers.back().last != range.layer) layers.push_back({range.layer, 0});
    layers.back().last = range.layer + 1;
  }
  return layers;
}

// ---- Hashes of sourced models ---------------------------------------------------------------------------------------

std::string WeightStore::SumsPath(const ModelId& id, std::size_t range) const {
  return Path("sums/" + HexOf(id) + "." + std::to_string(range));
}

// A range is known when its hashes were kept, or when its writer ended between making its blob and keeping them: then
// they are kept now, or what is begun by them after the blob is gone would be lost on whoever looks next.
std::shared_ptr<const Manifest> WeightStore::WithHashes(const ModelId& id,
                                                        const std::shared_ptr<const Manifest>& manifest) const {
  std::shared_ptr<Manifest> more;
  for (std::size_t i = 0; manifest->sourced() && i < manifest->ranges.size(); ++i) {
    if (manifest->ranges[i].known()) continue;
    for (const char* end : {"", kMakingEnd}) {
      const std::uint64_t chunks = manifest->ChunkCount(i);
      const auto bytes = ReadWholeFile(SumsPath(id, i) + end, chunks * sizeof(Digest));
      if (!bytes.ok() || !*bytes || (*bytes)->size() != chunks * sizeof(Digest)) continue;
      WeightRange range = manifest->ranges[i];
      range.chunks.resize(chunks);
      std::memcpy(range.chunks.data(), (*bytes)->data(), (*bytes)->size());
      if (*end != '\0') {
        if (!Has(BlobId(range, manifest->chunk_bytes))) continue;
        (void)KeepHashes(id, i, range.chunks);  // a full disk keeps none: known it is all the same
      }
      if (more == nullptr) more = std::make_shared<Manifest>(*manifest);
      more->ranges[i] = std::move(range);
      break;
    }
  }
  return more == nullptr ? manifest : more;
}

Status WeightStore::KeepHashes(const ModelId& id, std::size_t range, const std::vector<Digest>& chunks) const {
  const std::string path = SumsPath(id, range);
  if (FileBytes(path) == chunks.size() * sizeof(Digest)) return {};
  SHOAL_RETURN_IF_ERROR(
      ReplaceFile(path, {reinterpret_cast<const std::uint8_t*>(chunks.data()), chunks.size() * sizeof(Digest)}));
  (void)unlink((path + kMakingEnd).c_str());
  return {};
}

bool WeightStore::IsCheckedWhole(const ModelId& id) const {
  return FileBytes(Path("sums/" + HexOf(id) + ".whole")) > 0;
}

Status WeightStore::KeepCheckedWhole(const ModelId& id) {
  return ReplaceFile(Path("sums/" + HexOf(id) + ".whole"), std::vector<std::uint8_t>{1});
}

Result<StoredModel> WeightStore::Load(const std::string& name) const {
  SHOAL_ASSIGN_OR_RETURN(const NameRecord record, ReadRecord(Path("models/" + name + kRecordEnd)));
  StoredModel model;
  model.name = name;
  model.id = record.id;
  model.origin = record.origin;
  SHOAL_ASSIGN_OR_RETURN(model.manifest, FindManifest(record.id));
  model.local_path = LocalPathOf(record.id).value_or("");
  for (std::size_t i = 0; i < model.manifest->ranges.size(); ++i) {
    const bool here = !model.local_path.empty() || Has(*model.manifest, i);
    model.held.push_back(here);
    if (here) model.held_bytes += model.manifest->ranges[i].bytes;
  }
  return model;
}

std::vector<StoredName> WeightStore::Names() const {
  std::vector<StoredName> names;
  for (const std::string& name : RecordsIn(Path("models"))) {
    const Result<NameRecord> record = ReadRecord(Path("models/" + name + kRecordEnd));
    if (record.ok()) names.push_back({name, record->id, LocalPathOf(record->id).value_or("")});
  }
  return names;
}

std::vector<StoredModel> WeightStore::Models() const {
  std::vector<StoredModel> models;
  for (const std::string& name : RecordsIn(Path("models"))) {
    Result<StoredModel> model = Load(name);
    if (model.ok()) {
      models.push_back(*std::move(model));
    } else {
      Log(LogLevel::kWarning, "weights", "the model '" + name + "' is left out: " + model.error().message);
    }
  }
  return models;
}

Result<StoredModel> WeightStore::Find(const std::string& name) const {
  SHOAL_ASSIGN_OR_RETURN(const std::string checked, CheckModelName(name));
  Result<StoredModel> model = Load(checked);
  if (model.ok() || model.error().code != ErrorCode::kNotFound) return model;
  return Error{ErrorCode::kNotFound, "the store has no model '" + name + "'; `shoal models` lists what there is"};
}

std::set<ModelId> WeightStore::NamedIds() const {
  std::set<ModelId> ids;
  for (const std::string& name : RecordsIn(Path("models"))) {
    const Result<NameRecord> record = ReadRecord(Path("models/" + name + kRecordEnd));
    if (record.ok()) ids.insert(record->id);
  }
  return ids;
}

Status WeightStore::Remove(const std::string& name) {
  SHOAL_ASSIGN_OR_RETURN(const std::string checked, CheckModelName(name));
  const std::string path = Path("models/" + checked + kRecordEnd);
  if (unlink(path.c_str()) != 0) {
    if (errno == ENOENT) {
      return Error{ErrorCode::kNotFound, "the store has no model '" + name + "'; `shoal models` lists what there is"};
    }
    return FileError("remove", path, errno);
  }
  (void)Collect(false);
  return SyncFolder(Path("models"));
}

// ---- Ranges ---------------------------------------------------------------------------------------------------------

bool WeightStore::Has(const Digest& blob) const {
  struct stat info {};
  return stat(BlobPath(blob).c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool WeightStore::Has(const Manifest& manifest, std::size_t range) const {
  const WeightRange& what = manifest.ranges[range];
  return what.known() && Has(BlobId(what, manifest.chunk_bytes));
}

Result<OwnedFd> WeightStore::Pin(const Manifest& manifest, std::size_t range) const {
  const WeightRange& what = manifest.ranges[range];
  if (!what.known()) return Error{ErrorCode::kNotFound, what.Name() + " is not on this node"};
  return Pin(BlobId(what, manifest.chunk_bytes));
}

// Of what comes until it is whole; while its hashes are unknown it has its model's name.
std::string WeightStore::PartPath(const Manifest& manifest, std::size_t range, const ModelId& id) const {
  const WeightRange& what = manifest.ranges[range];
  SHOAL_CHECK(what.known() || id != ModelId{});
  const std::string name =
      what.known() ? HexOf(BlobId(what, manifest.chunk_bytes)) : HexOf(id) + "." + std::to_string(range);
  return Path("partial/" + name + ".part");
}

Result<OwnedFd> WeightStore::Pin(const Digest& blob) const {
  const std::string path = BlobPath(blob);
  for (;;) {
    OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) return FileError("open", path, errno);
    if (flock(fd.get(), LOCK_SH) != 0) {
      if (errno == EINTR) continue;
      return FileError("lock", path, errno);
    }
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) return FileError("look at", path, errno);
    if (info.st_nlink == 0) continue;   // evicted between the two calls: look again
    (void)futimens(fd.get(), nullptr);  // a read-only disk keeps no order of use
    return fd;
  }
}

Result<std::shared_ptr<RangeWriter>> WeightStore::Begin(const Manifest& manifest, std::size_t range,
                                                        const ModelId& id) {
  SHOAL_RETURN_IF_ERROR(MakeRoomFor(manifest, {range}, id));
  RangeWriter::Place place{PartPath(manifest, range, id), "", Path("blobs")};
  const bool known = manifest.ranges[range].known();
  if (!known) place.sums_path = SumsPath(id, range) + kMakingEnd;
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<RangeWriter> writer, RangeWriter::Open(manifest, range, std::move(place)));
  if (!known) return writer;
  const std::lock_guard lock(writers_mutex_);
  std::erase_if(writers_, [](const auto& entry) { return entry.second.expired(); });
  writers_[BlobId(manifest.ranges[range], manifest.chunk_bytes)] = writer;
  return writer;
}

std::shared_ptr<RangeWriter> WeightStore::WriterOf(const Digest& blob) const {
  const std::lock_guard lock(writers_mutex_);
  const auto found = writers_.find(blob);
  return found == writers_.end() ? nullptr : found->second.lock();
}

std::vector<std::uint8_t> WeightStore::HaveBits(const StoredModel& model) const {
  const Manifest& manifest = *model.manifest;
  std::vector<std::uint8_t> bits;
  std::size_t at = 0;
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    const std::uint64_t chunks = manifest.ChunkCount(i);
    bits.resize((at + chunks + 7) / 8);
    std::vector<bool> have(chunks, !model.local_path.empty() || Has(manifest, i));
    if (manifest.ranges[i].known() && chunks > 0 && !have[0]) {
      if (const auto writer = WriterOf(BlobId(manifest.ranges[i], manifest.chunk_bytes)); writer != nullptr) {
        have.assign(chunks, true);
        for (const std::uint64_t chunk : writer->Missing()) have[chunk] = false;
      }
    }
    for (std::uint64_t c = 0; c < chunks; ++c, ++at) {
      if (have[c]) bits[at / 8] |= static_cast<std::uint8_t>(1U << (at % 8));
    }
  }
  return bits;
}

Result<std::unique_ptr<TensorReader>> WeightStore::OpenLocal(const std::string& path, std::uint64_t file_bytes) const {
  const auto split = ParseSplitName(path);
  if (!split || split->parts == 1) return MakeFileSource(path, file_bytes)->Open();
  SHOAL_ASSIGN_OR_RETURN(const LocalFile now, LookAtLocalFile(path));
  std::shared_ptr<const ModelFile> model;
  {
    const std::lock_guard lock(parts_mutex_);
    const auto known = parts_.find(path);
    if (known != parts_.end() && known->second.file.SameFile(now)) {
      model = known->second.model;
    } else {
      SHOAL_ASSIGN_OR_RETURN(model, OpenModelFile(path));
      parts_.insert_or_assign(path, Parts{now, model});
    }
  }
  if (model->gguf.file_bytes != file_bytes) return Error{ErrorCode::kIo, path + " is not the model it was"};
  return model->source->Open();
}

Status WeightStore::Verify(const Manifest& manifest, std::size_t range) {
  const WeightRange& what = manifest.ranges[range];
  SHOAL_ASSIGN_OR_RETURN(const OwnedFd fd, Pin(manifest, range));
  const Digest blob = BlobId(what, manifest.chunk_bytes);
  std::vector<std::uint8_t> buffer(std::min<std::uint64_t>(manifest.chunk_bytes, what.bytes));
  for (std::uint64_t chunk = 0; chunk < what.chunks.size(); ++chunk) {
    const std::span<std::uint8_t> bytes(buffer.data(), manifest.ChunkBytes(range, chunk));
    const Status read = ReadAt(fd.get(), BlobPath(blob), chunk * manifest.chunk_bytes, bytes);
    if (read.ok() && Sha256(bytes) == what.chunks[chunk]) continue;
    unlink(BlobPath(blob).c_str());
    return Error{ErrorCode::kCorrupt, what.Name() + " was damaged on this disk" +
                                          (read.ok() ? "" : " (" + read.error().message + ")") +
                                          "; it was removed and will be fetched again"};
  }
  return {};
}

Result<std::vector<std::uint8_t>> WeightStore::ReadChunk(const StoredModel& model, std::size_t range,
                                                         std::uint64_t chunk) const {
  const Manifest& manifest = *model.manifest;
  if (range >= manifest.ranges.size() || chunk >= manifest.ChunkCount(range)) {
    return Error{ErrorCode::kNotFound, "there is no such chunk"};
  }
  const WeightRange& what = manifest.ranges[range];
  if (!what.known()) return Error{ErrorCode::kNotFound, what.Name() + " is not on this node"};
  std::vector<std::uint8_t> bytes(manifest.ChunkBytes(range, chunk));
  const std::uint64_t start = chunk * manifest.chunk_bytes;
  const Digest blob = BlobId(what, manifest.chunk_bytes);
  Status read = Error{ErrorCode::kNotFound, what.Name() + " is not on this node"};
  if (!model.local_path.empty()) {
    SHOAL_ASSIGN_OR_RETURN(const auto reader, OpenLocal(model.local_path, manifest.file_bytes));
    std::size_t done = 0;
    read = Status();
    ForExtents(what, start, bytes.size(), [&](std::uint64_t offset, std::uint64_t n) {
      if (read.ok()) read = reader->Read(offset, {bytes.data() + done, n});
      done += n;
    });
  } else {
    // Finished first: a writer that has just finished reads no more.
    if (const Result<OwnedFd> pin = Pin(blob); pin.ok()) {
      read = ReadAt(pin->get(), BlobPath(blob), start, bytes);
    } else if (const std::shared_ptr<RangeWriter> writer = WriterOf(blob)) {
      read = writer->Get(chunk, bytes);
    }
  }
  SHOAL_RETURN_IF_ERROR(read);
  if (Sha256(bytes) == what.chunks[chunk]) return bytes;
  return Error{ErrorCode::kCorrupt, what.Name() + " of " + model.name +
                                        " is not what it was on this disk; `shoal verify " + model.name +
                                        "` finds what is damaged"};
}

}  // namespace shoal
