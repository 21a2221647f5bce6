// Any bytes as a file of the store, as a node finds it on its disk: a model's name, a record of a local file, a
// manifest, the header or the hashes of an unfinished model, the hashes that became known of a sourced one. Reading
// never crashes, never reaches outside the store, and takes nothing from the other models that are there.
//
// The first byte says which file it is. In memory where the system has such a folder: drafts are synced to the disk.
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>

#include "base/check.h"
#include "base/log.h"
#include "weights/draft.h"
#include "weights/store.h"
#include "weights/test_model.h"

namespace shoal {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr const char* kSource = "https://example.org/model.gguf";

class StoreUnderTest {
 public:
  StoreUnderTest() : folder_(Folder()), store_(Open(folder_ + "/store")) {
    SetLogLevel(LogLevel::kOff);
    Result<Manifest> manifest = HashTestModel(WriteTestModel(folder_ + "/model.gguf", 1, 2));
    SHOAL_CHECK(manifest.ok());
    good_ = *std::move(manifest);
    file_ = ReadTestFile(folder_ + "/model.gguf");
    const Result<ModelId> id = store_->Add(good_, "good", "here");
    SHOAL_CHECK(id.ok());
    id_ = *id;
    Manifest sourced = SourcedTestModel(good_, {kSource, good_.file_bytes, "a state of it", {}});
    const std::uint64_t data = good_.header.size();
    sourced.extents = {{data, good_.file_bytes - data, 0, data}};
    const Result<ModelId> sourced_id = store_->Add(sourced, "sourced", kSource);
    SHOAL_CHECK(sourced_id.ok());
    sourced_id_ = *sourced_id;
  }
  ~StoreUnderTest() { std::filesystem::remove_all(folder_); }
  StoreUnderTest(const StoreUnderTest&) = delete;
  StoreUnderTest& operator=(const StoreUnderTest&) = delete;

  void TryName(Bytes bytes) {
    const std::string path = Write("models/other.json", bytes);
    CheckModel("other");
    (void)store_->FindSource(Sha256(kSource));
    (void)store_->CheckNameFree("other", "elsewhere", good_);
    CheckGood();
    std::filesystem::remove(path);
  }

  void TryLocalRecord(Bytes bytes) {
    const std::string path = Write("local/" + HexOf(Sha256(kSource)) + ".json", bytes);
    if (const Result<LocalFile> record = ReadLocalRecord(path); record.ok()) {
      const Result<LocalFile> now = LookAtLocalFile(record->path);
      const Result<StoredModel> model = store_->Find("good");
      SHOAL_CHECK(model.ok());
      const bool is_it = record->id == id_ && now.ok() && record->SameFile(*now);
      SHOAL_CHECK(model->local_path == (is_it ? record->path : ""));
    }
    CheckGood();
    std::filesystem::remove(path);
  }

  void TryManifest(Bytes bytes) {
    const std::string id = HexOf(Sha256(bytes));
    const std::string manifest = Write("manifests/" + id, bytes);
    const std::string record = R"({"id":")" + id + R"("})";
    const std::string name =
        Write("models/other.json", {reinterpret_cast<const std::uint8_t*>(record.data()), record.size()});
    CheckModel("other");
    CheckGood();
    std::filesystem::remove(name);
    if (id != HexOf(id_)) std::filesystem::remove(manifest);
  }

  void TryDraftHeader(Bytes bytes) {
    Write(DraftFolder() + "/header", bytes);
    const std::vector<std::uint8_t> header = Draft::KnownHeader(*store_, kSource);
    SHOAL_CHECK(std::equal(header.begin(), header.end(), bytes.begin(), bytes.end()));
    const Result<std::unique_ptr<Draft>> draft = Draft::Open(*store_, kSource, header, good_.file_bytes);
    if (draft.ok()) {
      for (std::size_t i = 0; i < (*draft)->manifest().ranges.size(); ++i) SHOAL_CHECK(!(*draft)->Has(i));
    }
    CheckGood();
    std::filesystem::remove_all(store_->Path(DraftFolder()));
  }

  // Of its first range, with the range's right bytes beside them.
  void TryDraftSums(Bytes bytes) {
    const std::vector<std::uint8_t> chunk = TestChunk(good_, file_, 0, 0);
    Write(DraftFolder() + "/0.part", chunk);
    Write(DraftFolder() + "/0.sums", bytes);
    {
      const Result<std::unique_ptr<Draft>> draft = Draft::Open(*store_, kSource, good_.header, good_.file_bytes);
      SHOAL_CHECK(draft.ok());
      if (!(*draft)->Has(0)) TryDraftRange(**draft, bytes);
    }
    CheckGood();
    std::filesystem::remove_all(store_->Path(DraftFolder()));
  }

  void TrySourcedSums(Bytes bytes) {
    const std::string path = Write("sums/" + HexOf(sourced_id_) + ".0", bytes);
    CheckModel("sourced");
    const auto known = [&] {
      const Result<StoredModel> model = store_->Find("sourced");
      SHOAL_CHECK(model.ok());
      return !model->manifest->ranges[0].chunks.empty();
    };
    const bool was_known = bytes.size() == good_.ranges[0].chunks.size() * sizeof(Digest);
    SHOAL_CHECK(known() == was_known);
    SHOAL_CHECK(store_->KeepHashes(sourced_id_, 0, good_.ranges[0].chunks).ok() && known());
    CheckGood();
    std::filesystem::remove(path);
  }

 private:
  static std::string Folder() {
    std::error_code ignored;
    std::filesystem::path root = "/dev/shm";
    if (access(root.c_str(), W_OK) != 0) root = std::filesystem::temp_directory_path();
    const std::string folder = root / ("shoal_store_files_fuzz_" + std::to_string(getpid()));
    std::filesystem::remove_all(folder, ignored);
    std::filesystem::create_directories(folder);
    return folder;
  }
  static std::unique_ptr<WeightStore> Open(const std::string& folder) {
    StoreOptions options;
    options.folder = folder;
    options.disk_free_min_bytes = 0;
    Result<std::unique_ptr<WeightStore>> store = WeightStore::Open(std::move(options));
    SHOAL_CHECK(store.ok());
    return *std::move(store);
  }
  static std::string DraftFolder() { return "drafts/" + HexOf(Sha256(kSource)); }

  std::string Write(const std::string& name, Bytes bytes) {
    const std::string path = store_->Path(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    out.close();
    SHOAL_CHECK(out.good());
    return path;
  }

  // What is read of a model that is there is within its manifest.
  void CheckModel(const std::string& name) {
    const Result<StoredModel> model = store_->Find(name);
    if (!model.ok()) return;
    const Manifest& manifest = *model->manifest;
    SHOAL_CHECK(model->name == name && model->held.size() == manifest.ranges.size());
    SHOAL_CHECK(model->held_bytes <= manifest.file_bytes);
    (void)store_->HaveBits(*model);
    if (const Result<std::vector<std::size_t>> ranges = RangesOf(manifest, {0, 1}); ranges.ok()) {
      for (const std::size_t range : *ranges) SHOAL_CHECK(range < manifest.ranges.size());
    }
  }

  void CheckGood() {
    const std::vector<StoredModel> models = store_->Models();
    const auto good = std::find_if(models.begin(), models.end(), [](const StoredModel& m) { return m.name == "good"; });
    SHOAL_CHECK(good != models.end() && good->id == id_ && good->manifest->ranges.size() == good_.ranges.size());
    const std::vector<StoredName> names = store_->Names();
    SHOAL_CHECK(std::any_of(names.begin(), names.end(), [](const StoredName& n) { return n.name == "good"; }));
  }

  void TryDraftRange(Draft& draft, Bytes sums) {
    const Result<std::shared_ptr<RangeWriter>> writer = draft.Begin(0);
    SHOAL_CHECK(writer.ok());
    const std::vector<std::uint8_t> chunk = TestChunk(good_, file_, 0, 0);
    const Digest right = Sha256(chunk);
    const bool says_so = std::equal(right.begin(), right.end(), sums.begin(), sums.end());
    SHOAL_CHECK((*writer)->Missing().empty() == says_so);  // a chunk counts where its hash confirms it
  }

  const std::string folder_;
  const std::unique_ptr<WeightStore> store_;
  Manifest good_;
  ModelId id_{}, sourced_id_{};
  std::vector<std::uint8_t> file_;
};

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static shoal::StoreUnderTest store;
  if (size == 0 || size > (1U << 16)) return 0;
  const std::span<const std::uint8_t> bytes(data + 1, size - 1);
  switch (data[0] % 6) {
    case 0: store.TryName(bytes); break;
    case 1: store.TryLocalRecord(bytes); break;
    case 2: store.TryManifest(bytes); break;
    case 3: store.TryDraftHeader(bytes); break;
    case 4: store.TryDraftSums(bytes); break;
    default: store.TrySourcedSums(bytes);
  }
  return 0;
}
