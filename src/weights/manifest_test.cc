// Manifests: the rule of the ranges, the bytes and back, and what is refused.
#include "weights/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/test_models.h"
#include "weights/store.h"
#include "weights/test_model.h"

namespace shoal {
namespace {

using testing::HasSubstr;

class ManifestTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = WriteTestModel(testing::TempDir() + "manifest_test_" + std::to_string(getpid()) + ".gguf", 3, 300);
    auto manifest = HashTestModel(path_);
    ASSERT_TRUE(manifest.ok()) << manifest.error().message;
    manifest_ = *std::move(manifest);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string path_;
  Manifest manifest_;
};

TEST_F(ManifestTest, EveryByteIsInOneRange) {
  std::uint64_t bytes = manifest_.header.size();
  std::vector<bool> seen(manifest_.file_bytes);
  for (const WeightRange& range : manifest_.ranges) {
    bytes += range.bytes;
    for (const Extent& extent : range.extents) {
      for (std::uint64_t i = 0; i < extent.bytes; ++i) {
        ASSERT_FALSE(seen[extent.offset + i]);
        seen[extent.offset + i] = true;
      }
    }
  }
  EXPECT_EQ(bytes, manifest_.file_bytes);
  std::vector<std::string> names;
  for (const WeightRange& range : manifest_.ranges) names.push_back(range.Name());
  EXPECT_THAT(names, testing::ElementsAre("shared tensors", "embeddings", "output", "layer 0", "layer 1", "layer 2"));
}

TEST_F(ManifestTest, StagesNeedTheirRanges) {
  const auto names = [&](LayerRange layers) {
    std::string text;
    const auto ranges = RangesOf(manifest_, layers);
    EXPECT_TRUE(ranges.ok()) << ranges.error().message;
    for (const std::size_t range : *ranges) text += manifest_.ranges[range].Name() + ", ";
    return text;
  };
  EXPECT_EQ(names({0, 1}), "shared tensors, embeddings, layer 0, ");
  EXPECT_EQ(names({1, 2}), "shared tensors, layer 1, ");
  EXPECT_EQ(names({2, 3}), "shared tensors, output, layer 2, ");
  EXPECT_EQ(names({0, 3}), "shared tensors, embeddings, output, layer 0, layer 1, layer 2, ");
}

TEST_F(ManifestTest, ATiedHeadNeedsTheEmbeddings) {
  const auto file = LookAtLocalFile(TestModelPath("smollm2"));
  ASSERT_TRUE(file.ok()) << file.error().message;
  const auto manifest = HashLocalFile(*file, {});
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  const auto last = RangesOf(*manifest, {20, 30});
  ASSERT_TRUE(last.ok());
  std::uint64_t bytes = 0;
  bool embeddings = false;
  for (const std::size_t range : *last) {
    bytes += manifest->ranges[range].bytes;
    embeddings |= manifest->ranges[range].kind == RangeKind::kEmbedding;
  }
  EXPECT_TRUE(embeddings);
  EXPECT_LT(bytes, manifest->file_bytes / 2 + manifest->file_bytes / 4);
}

TEST_F(ManifestTest, BytesAndBack) {
  const std::vector<std::uint8_t> bytes = EncodeManifest(manifest_);
  const auto parsed = ParseManifest(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(EncodeManifest(*parsed), bytes);
  EXPECT_EQ(parsed->file_bytes, manifest_.file_bytes);
  for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) {
    EXPECT_EQ(parsed->ranges[i].extents, manifest_.ranges[i].extents);
    EXPECT_EQ(parsed->ranges[i].chunks, manifest_.ranges[i].chunks);
  }
}

TEST_F(ManifestTest, AnotherLengthIsRefused) {
  const std::vector<std::uint8_t> bytes = EncodeManifest(manifest_);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{3}, std::size_t{31}, bytes.size() / 2, bytes.size() - 1}) {
    EXPECT_FALSE(ParseManifest(std::span(bytes).first(cut)).ok()) << cut;
  }
  std::vector<std::uint8_t> longer = bytes;
  longer.resize(bytes.size() + 32);
  EXPECT_FALSE(ParseManifest(longer).ok());
  std::vector<std::uint8_t> later = bytes;
  later[4] = 3;
  EXPECT_EQ(ParseManifest(later).error().code, ErrorCode::kUnsupported);
  // A file of 2^40 bytes would have a million chunks: without their hashes nothing is allocated for them.
  std::vector<std::uint8_t> vast = bytes;
  vast[21] = 1;
  EXPECT_FALSE(ParseManifest(vast).ok());
}

TEST_F(ManifestTest, SourcedItSaysWhereItsBytesAreAndKeepsItsId) {
  Manifest sourced = SourcedTestModel(
      manifest_, {"https://host/a-00001-of-00002.gguf", manifest_.file_bytes, "etag", Sha256(manifest_.header)});
  sourced.sources.push_back({"https://host/a-00002-of-00002.gguf", 4096, "", {}});
  const std::uint64_t data = sourced.header.size(), half = sourced.file_bytes / 2;
  sourced.extents = {{data, half - data, 0, 100}, {half, 4096, 1, 0}};
  const std::vector<std::uint8_t> bytes = EncodeManifest(sourced);
  const auto parsed = ParseManifest(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->sources, sourced.sources);
  ASSERT_EQ(parsed->extents.size(), 2U);
  EXPECT_EQ(parsed->extents[0].part_offset, 100U);
  EXPECT_EQ(parsed->extents[1].part, 1U);
  EXPECT_FALSE(parsed->known());
  sourced.ranges = manifest_.ranges;  // as its hashes become known
  EXPECT_EQ(EncodeManifest(sourced), bytes);

  for (const std::size_t cut : {bytes.size() - 1, bytes.size() - 28, bytes.size() - 56, bytes.size() - 100}) {
    EXPECT_FALSE(ParseManifest(std::span(bytes).first(cut)).ok()) << cut;
  }
  const auto refused = [&](const PartExtent& extent) {
    sourced.extents[1] = extent;
    return !ParseManifest(EncodeManifest(sourced)).ok();
  };
  EXPECT_FALSE(refused({half, 4096, 1, 0}));
  EXPECT_TRUE(refused({half, 4096, 2, 0})) << "there is no such file";
  EXPECT_TRUE(refused({half, 4097, 1, 0})) << "more than the file has";
  EXPECT_TRUE(refused({half, 4096, 1, UINT64_MAX})) << "behind its end";
  EXPECT_TRUE(refused({half - 1, 4096, 1, 0})) << "two at the same place";
  EXPECT_TRUE(refused({sourced.file_bytes - 1, 4096, 1, 0})) << "behind the model's end";
  EXPECT_TRUE(refused({half, 0, 1, 0}));
}

TEST_F(ManifestTest, EqualBytesHaveEqualNamesAndOthersNot) {
  const Digest one = BlobId(manifest_.ranges[3], manifest_.chunk_bytes);
  WeightRange other = manifest_.ranges[3];
  EXPECT_EQ(BlobId(other, manifest_.chunk_bytes), one);
  other.chunks[0][0] ^= 1;
  EXPECT_NE(BlobId(other, manifest_.chunk_bytes), one);
  Digest back{};
  EXPECT_TRUE(ParseHex(HexOf(one), back));
  EXPECT_EQ(back, one);
  EXPECT_FALSE(ParseHex(HexOf(one).substr(1), back));
  EXPECT_FALSE(ParseHex("../" + HexOf(one).substr(3), back));
}

}  // namespace
}  // namespace shoal
