// For the tests of this module: a store in a folder of its own, and a made-up model to put into it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/test_folder.h"
#include "weights/store.h"
#include "weights/test_model.h"

namespace shoal {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = WriteTestModel(folder_ + "/model.gguf", 4, 700);  // layers of several chunks
    auto manifest = HashTestModel(file_);
    ASSERT_TRUE(manifest.ok()) << manifest.error().message;
    manifest_ = *std::move(manifest);
    bytes_ = ReadTestFile(file_);
    Reopen(0);
  }

  void Reopen(std::uint64_t quota) {
    StoreOptions options;
    options.folder = folder_ + "/store";
    options.quota_bytes = quota;
    options.disk_free_min_bytes = 0;
    auto store = WeightStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.error().message;
    store_ = *std::move(store);
  }

  std::vector<std::uint8_t> Chunk(std::size_t range, std::uint64_t chunk) const {
    return TestChunk(manifest_, bytes_, range, chunk);
  }

  void Fill(std::size_t range) {
    auto writer = store_->Begin(manifest_, range);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    for (const std::uint64_t chunk : (*writer)->Missing()) {
      ASSERT_TRUE((*writer)->Put(chunk, Chunk(range, chunk)).ok());
    }
    const auto finished = (*writer)->Finish();
    ASSERT_TRUE(finished.ok()) << finished.error().message;
  }

  std::size_t Layer(std::int32_t layer) const {
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) {
      if (manifest_.ranges[i].kind == RangeKind::kLayer && manifest_.ranges[i].layer == layer) return i;
    }
    ADD_FAILURE() << "no layer " << layer;
    return 0;
  }
  Digest Blob(std::size_t range) const { return BlobId(manifest_.ranges[range], manifest_.chunk_bytes); }

  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
  std::string file_;
  Manifest manifest_;
  std::vector<std::uint8_t> bytes_;  // of the model file
  std::shared_ptr<WeightStore> store_;
};

}  // namespace shoal
