// Models whose source tells no hashes: what is known of them later.
#include "weights/draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "weights/test_store.h"

namespace shoal {
namespace {

using testing::HasSubstr;

class DraftTest : public StoreTest {
 protected:
  std::unique_ptr<Draft> OpenDraft(const std::string& key) {
    auto draft = Draft::Open(*store_, key, manifest_.header, manifest_.file_bytes);
    EXPECT_TRUE(draft.ok()) << draft.error().message;
    return draft.ok() ? *std::move(draft) : nullptr;
  }
  void FillDraft(Draft& draft, std::size_t range) {
    auto writer = draft.Begin(range);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    for (const std::uint64_t chunk : (*writer)->Missing()) {
      ASSERT_TRUE((*writer)->Put(chunk, Chunk(range, chunk)).ok());
    }
    auto finished = (*writer)->Finish();
    ASSERT_TRUE(finished.ok()) << finished.error().message;
    draft.Finished(range, *std::move(finished));
  }
  std::string BlobPath(std::size_t range) const { return folder_ + "/store/blobs/" + HexOf(Blob(range)); }
};

TEST_F(DraftTest, WhatWasFinishedIsKnownByItsSourceAndOnlyCompleted) {
  ModelId id{};
  {
    const auto draft = OpenDraft("source");
    ASSERT_FALSE(draft->was_finished());
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) FillDraft(*draft, i);
    const auto finished = draft->Finish("model", "http://host/file", {}, {});
    ASSERT_TRUE(finished.ok()) << finished.error().message;
    id = *finished;
  }
  ASSERT_TRUE(std::filesystem::remove(BlobPath(Layer(1))));
  EXPECT_EQ(Draft::KnownHeader(*store_, "source"), manifest_.header);
  EXPECT_FALSE(OpenDraft("another state of it")->was_finished());
  {
    const auto draft = OpenDraft("source");
    ASSERT_TRUE(draft->was_finished());
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) EXPECT_EQ(draft->Has(i), i != Layer(1));
    std::vector<std::uint8_t> wrong = Chunk(Layer(1), 0);
    wrong[9] ^= 1;
    auto writer = draft->Begin(Layer(1));
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ((*writer)->Put(0, wrong).error().code, ErrorCode::kCorrupt);
    writer->reset();
    FillDraft(*draft, Layer(1));
    const auto finished = draft->Finish("again", "http://host/file", {}, {});
    ASSERT_TRUE(finished.ok()) << finished.error().message;
    EXPECT_EQ(*finished, id);
  }
  EXPECT_TRUE(store_->Verify(manifest_, Layer(1)).ok());
  ASSERT_TRUE(store_->Remove("model").ok());
  EXPECT_TRUE(OpenDraft("source")->was_finished()) << "by its other name";
  ASSERT_TRUE(store_->Remove("again").ok());
  EXPECT_FALSE(OpenDraft("source")->was_finished());
}

TEST_F(DraftTest, WhatDoesNotFitLeavesNothing) {
  Fill(Layer(0));
  Reopen(3 * manifest_.ranges[Layer(0)].bytes);
  const auto draft = Draft::Open(*store_, "source", manifest_.header, manifest_.file_bytes);
  ASSERT_FALSE(draft.ok());
  EXPECT_EQ(draft.error().code, ErrorCode::kIo);
  EXPECT_THAT(draft.error().message, HasSubstr("no room for"));
  EXPECT_TRUE(ListFolders(store_->Path("drafts")).empty());
  EXPECT_TRUE(store_->Has(Blob(Layer(0))));
}

TEST_F(DraftTest, RemovingAnotherModelFreesItsRangesAndKeepsTheDrafts) {
  const std::string path = WriteTestModel(folder_ + "/other.gguf", 2, 500);
  const auto other = HashTestModel(path);
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(store_->Add(*other, "other", "test").ok());
  for (std::size_t i = 0; i < other->ranges.size(); ++i) {
    auto writer = store_->Begin(*other, i);
    ASSERT_TRUE(writer.ok());
    for (const std::uint64_t chunk : (*writer)->Missing()) {
      ASSERT_TRUE((*writer)->Put(chunk, TestChunk(*other, ReadTestFile(path), i, chunk)).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  {
    const auto draft = OpenDraft("source");
    FillDraft(*draft, Layer(3));
    const auto begun = draft->Begin(Layer(2));
    ASSERT_TRUE(begun.ok());
    ASSERT_TRUE((*begun)->Put(1, Chunk(Layer(2), 1)).ok());
  }
  ASSERT_TRUE(store_->Remove("other").ok());
  EXPECT_EQ(store_->Usage().blob_bytes, manifest_.ranges[Layer(3)].bytes);
  const auto draft = OpenDraft("source");
  EXPECT_TRUE(draft->Has(Layer(3)));
  const auto begun = draft->Begin(Layer(2));
  ASSERT_TRUE(begun.ok());
  EXPECT_EQ((*begun)->Missing().size(), (*begun)->chunk_count() - 1);
}

TEST_F(DraftTest, OneAtATimeFetchesAndNobodyRemovesItMeanwhile) {
  auto draft = OpenDraft("source");
  FillDraft(*draft, Layer(0));
  auto begun = draft->Begin(Layer(1));
  ASSERT_TRUE(begun.ok());
  ASSERT_TRUE((*begun)->Put(0, Chunk(Layer(1), 0)).ok());
  const auto second = Draft::Open(*store_, "source", manifest_.header, manifest_.file_bytes);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(store_->Collect(true), 0U);
  EXPECT_FALSE(store_->MakeRoom(1ULL << 60).ok());
  begun->reset();
  FillDraft(*draft, Layer(1));
  EXPECT_TRUE(store_->Verify(manifest_, Layer(1)).ok());
  draft.reset();
  EXPECT_EQ(store_->Collect(false), 0U);
  EXPECT_GT(store_->Collect(true), 2 * manifest_.ranges[Layer(0)].bytes);
  EXPECT_TRUE(ListFolders(store_->Path("drafts")).empty());
  EXPECT_EQ(store_->Usage().blobs, 0U);
}

TEST_F(DraftTest, AnOldOneGoesWhenThereIsNoRoomForBoth) {
  {
    const auto draft = OpenDraft("the file as it was");
    const auto begun = draft->Begin(Layer(0));
    ASSERT_TRUE(begun.ok());
    ASSERT_TRUE((*begun)->Put(0, Chunk(Layer(0), 0)).ok());
  }
  Reopen(manifest_.file_bytes + (1U << 20));
  const auto draft = OpenDraft("the file as it is");
  ASSERT_NE(draft, nullptr);
  for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) FillDraft(*draft, i);
  EXPECT_EQ(ListFolders(store_->Path("drafts")).size(), 1U);
}

}  // namespace
}  // namespace shoal
