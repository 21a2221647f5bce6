// Seeds of the fuzz target of the store's files: what a store has written, each behind the byte that says which it is.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "weights/test_store.h"

namespace shoal {
namespace {

class StoreFilesFuzz : public StoreTest {
 protected:
  // SHOAL_FUZZ_SEEDS=tests/fuzz/store_files writes the corpus.
  static void Keep(std::uint8_t kind, const std::string& name, const std::vector<std::uint8_t>& bytes) {
    ASSERT_FALSE(bytes.empty()) << name;
    const char* const folder = std::getenv("SHOAL_FUZZ_SEEDS");
    if (folder == nullptr) return;
    std::ofstream out(std::string(folder) + "/" + name, std::ios::binary);
    out.put(static_cast<char>(kind));
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
};

TEST_F(StoreFilesFuzz, Seeds) {
  const std::string path = WriteTestModel(folder_ + "/one_layer.gguf", 1, 2);
  const auto manifest = HashTestModel(path);
  ASSERT_TRUE(manifest.ok());
  const Result<ModelId> id =
      store_->Add(*manifest, "m", "https://example.org/model.gguf", Sha256("https://example.org/model.gguf"));
  ASSERT_TRUE(id.ok());
  Keep(0, "name", ReadTestFile(store_->Path("models/m.json")));
  LocalFile file{"/models/one_layer.gguf", manifest->file_bytes, 12345, 1'700'000'000'000'000'000, *id};
  ASSERT_TRUE(WriteLocalRecord(folder_ + "/record.json", file).ok());
  Keep(1, "local", ReadTestFile(folder_ + "/record.json"));
  Keep(2, "manifest", ReadTestFile(store_->Path("manifests/" + HexOf(*id))));
  Keep(3, "draft_header", manifest->header);
  const Digest sum = manifest->ranges[0].chunks.at(0);
  std::vector<std::uint8_t> sums(sum.begin(), sum.end());
  Keep(4, "draft_sums", sums);
  sums.resize(sums.size() + 14);
  Keep(4, "draft_sums_too_long", sums);  // was an error of every later pull
  Keep(5, "sourced_sums_too_long", sums);
  sums.resize(sizeof(Digest));
  Keep(5, "sourced_sums", sums);
}

}  // namespace
}  // namespace shoal
