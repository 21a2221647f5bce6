// What a node tells of the weights on its disk.
#include "node/node_weights.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "weights/test_store.h"

namespace shoal {
namespace {

class NodeWeightsTest : public StoreTest {
 protected:
  void Open(const std::string& models) {
    library_ = std::make_unique<ModelLibrary>(std::vector<std::string>{models});
    library_->Scan();
    NodeWeightsOptions options;
    options.store = store_->options();
    options.members = [] { return std::vector<std::pair<NodeId, std::string>>(); };
    auto weights = NodeWeights::Open(*library_, metrics_, std::move(options));
    ASSERT_TRUE(weights.ok()) << weights.error().message;
    weights_ = *std::move(weights);
  }
  HeldWeights Held() const {
    const std::vector<ModelHolding> models = weights_->Holdings();
    EXPECT_EQ(models.size(), 1U);
    return models.empty() ? HeldWeights{} : models.front().held;
  }
  std::size_t RangeOf(RangeKind kind) const {
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) {
      if (manifest_.ranges[i].kind == kind) return i;
    }
    ADD_FAILURE() << "no such range";
    return 0;
  }

  MetricsRegistry metrics_;
  std::unique_ptr<ModelLibrary> library_;
  std::unique_ptr<NodeWeights> weights_;
};

TEST_F(NodeWeightsTest, TellsWhatIsHereAsItComesAndGoes) {
  Open(folder_ + "/none");
  ASSERT_TRUE(store_->Add(manifest_, "m", "cluster").ok());
  EXPECT_EQ(Held(), HeldWeights());
  std::uint64_t bytes = 0;
  const auto fill = [&](std::size_t range) {
    Fill(range);
    bytes += manifest_.ranges[range].bytes;
  };
  fill(Layer(0));
  fill(Layer(3));
  EXPECT_EQ(Held(), (HeldWeights{{{0, 1}, {3, 4}}, false, false, false, bytes}));
  fill(Layer(1));
  fill(RangeOf(RangeKind::kEmbedding));
  EXPECT_EQ(Held(), (HeldWeights{{{0, 2}, {3, 4}}, false, true, false, bytes}));
  fill(Layer(2));
  fill(RangeOf(RangeKind::kShared));
  fill(RangeOf(RangeKind::kOutput));
  EXPECT_EQ(Held(), (HeldWeights{{{0, 4}}, true, true, true, bytes}));
  EXPECT_EQ(bytes, manifest_.file_bytes - manifest_.header.size());
  std::filesystem::remove(folder_ + "/store/blobs/" + HexOf(Blob(Layer(1))));
  EXPECT_EQ(Held().layers, (std::vector<LayerRange>{{0, 1}, {2, 4}}));
}

// They are ranges like layers, and nobody is told of them: once a node that had all ranges ended itself by telling.
TEST_F(NodeWeightsTest, PredictionHeadsAreNoLayers) {
  file_ = WriteTestModel(folder_ + "/heads.gguf", 4, 10, 1);
  const auto manifest = HashTestModel(file_);
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  manifest_ = *manifest;
  bytes_ = ReadTestFile(file_);
  Open(folder_ + "/none");
  ASSERT_TRUE(store_->Add(manifest_, "m", "cluster").ok());
  for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) Fill(i);
  EXPECT_EQ(Held().layers, (std::vector<LayerRange>{{0, 3}}));
}

TEST_F(NodeWeightsTest, ASourcedModelThatIsAllHereNeedsNoSource) {
  for (const char* variable : {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}) unsetenv(variable);
  Open(folder_ + "/none");
  // A part with a head of its own; port 1 is nobody's.
  const std::uint64_t data = manifest_.header.size();
  Manifest sourced =
      SourcedTestModel(manifest_, {"http://127.0.0.1:1/m.gguf", manifest_.file_bytes, "", Sha256(bytes_)});
  sourced.extents = {{data, manifest_.file_bytes - data, 0, data}};
  const auto id = store_->Add(sourced, "m", "cluster");
  ASSERT_TRUE(id.ok()) << id.error().message;
  for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) {
    Fill(i);
    ASSERT_TRUE(store_->KeepHashes(*id, i, manifest_.ranges[i].chunks).ok());
  }
  weights_->LookAtStore();
  const ModelFingerprint fingerprint = FingerprintOf(manifest_.header, manifest_.file_bytes);
  const auto model = weights_->Obtain(fingerprint, "m", {0, 4}, {});
  EXPECT_TRUE(model.ok()) << model.error().message;
  EXPECT_FALSE(store_->IsCheckedWhole(*id));
}

TEST_F(NodeWeightsTest, AFileIsAllOfIt) {
  std::filesystem::create_directories(folder_ + "/models");
  std::filesystem::copy_file(file_, folder_ + "/models/m.gguf");
  Open(folder_ + "/models");
  const HeldWeights all{{{0, 4}}, true, true, true, manifest_.file_bytes - manifest_.header.size()};
  EXPECT_EQ(Held(), all);
  ASSERT_TRUE(store_->AddLocal(file_, "m", {}).ok());  // the same again, from elsewhere on the disk
  EXPECT_EQ(Held(), all);
  std::filesystem::remove_all(folder_ + "/models");
  library_->Scan();
  EXPECT_EQ(Held(), all);
}

}  // namespace
}  // namespace shoal
