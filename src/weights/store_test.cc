// A store over a made-up model: what is kept, what is verified, what goes, and what a crash leaves.
#include "weights/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/units.h"
#include "model/test_parts.h"
#include "weights/test_store.h"

namespace shoal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(StoreTest, AStageReadsItsBytesFromBlobs) {
  const auto id = store_->Add(manifest_, "model", "test");
  ASSERT_TRUE(id.ok()) << id.error().message;
  for (const std::size_t range : *RangesOf(manifest_, {1, 3})) Fill(range);
  const auto model = store_->Find("model");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->id, *id);
  EXPECT_FALSE(model->held[Layer(0)]);
  EXPECT_TRUE(model->held[Layer(1)]);

  const auto reader = MakeStoreSource(store_, *model)->Open();
  ASSERT_TRUE(reader.ok());
  const Extent& extent = manifest_.ranges[Layer(2)].extents[0];
  std::vector<std::uint8_t> out(extent.bytes);
  ASSERT_TRUE((*reader)->Read(extent.offset, out).ok());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(extent.offset)));
  // Across the border of the header and of two layers.
  out.resize(64);
  ASSERT_TRUE((*reader)->Read(extent.offset - 32, out).ok());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(extent.offset) - 32));
  const Status absent = (*reader)->Read(manifest_.ranges[Layer(0)].extents[0].offset, out);
  ASSERT_FALSE(absent.ok());
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(absent.error().message, HasSubstr("layer 0 of model is not on this node"));
}

TEST_F(StoreTest, AWrongByteIsRefusedAndNothingIsCounted) {
  auto writer = store_->Begin(manifest_, Layer(0));
  ASSERT_TRUE(writer.ok());
  ASSERT_GE((*writer)->chunk_count(), 2U);
  std::vector<std::uint8_t> wrong = Chunk(Layer(0), 1);
  wrong[5] ^= 1;
  const Status refused = (*writer)->Put(1, wrong);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ((*writer)->Missing().size(), (*writer)->chunk_count());
  EXPECT_FALSE((*writer)->Put(1, std::span(wrong).first(7)).ok());
}

TEST_F(StoreTest, ARangeIsWrittenByOneAtATime) {
  auto writer = store_->Begin(manifest_, Layer(0));
  ASSERT_TRUE(writer.ok());
  const auto second = store_->Begin(manifest_, Layer(0));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
}

TEST_F(StoreTest, WhatWasFetchedIsThereAfterARestart) {
  {
    auto writer = store_->Begin(manifest_, Layer(0));
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Put(1, Chunk(Layer(0), 1)).ok());
  }
  // What a lost power supply might have done to a chunk that was not counted as written.
  {
    auto writer = store_->Begin(manifest_, Layer(1));
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Put(0, Chunk(Layer(1), 0)).ok());
  }
  std::fstream part(folder_ + "/store/partial/" + HexOf(Blob(Layer(1))) + ".part",
                    std::ios::binary | std::ios::in | std::ios::out);
  part.seekp(100);
  part.put('\x7f');
  part.close();
  Reopen(0);
  auto first = store_->Begin(manifest_, Layer(0)), damaged = store_->Begin(manifest_, Layer(1));
  ASSERT_TRUE(first.ok() && damaged.ok());
  EXPECT_EQ((*first)->Missing().size(), (*first)->chunk_count() - 1);
  EXPECT_EQ((*damaged)->Missing().size(), (*damaged)->chunk_count());
}

TEST_F(StoreTest, TheLongestUnusedGoesFirstAndWhatIsPinnedStays) {
  const std::uint64_t layer_bytes = manifest_.ranges[Layer(0)].bytes;
  Reopen(3 * layer_bytes);
  for (int i = 0; i < 3; ++i) Fill(Layer(i));
  // 1 is the oldest now; 0 and 2 are newer, 2 is in use.
  const auto set_time = [&](int layer, int seconds) {
    const timespec times[2] = {{1000 + seconds, 0}, {1000 + seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, (folder_ + "/store/blobs/" + HexOf(Blob(Layer(layer)))).c_str(), times, 0), 0);
  };
  set_time(0, 20);
  set_time(1, 10);
  set_time(2, 30);
  Fill(Layer(3));
  EXPECT_TRUE(store_->Has(Blob(Layer(0))));
  EXPECT_FALSE(store_->Has(Blob(Layer(1))));

  const auto pin0 = store_->Pin(Blob(Layer(0))), pin2 = store_->Pin(Blob(Layer(2))), pin3 = store_->Pin(Blob(Layer(3)));
  ASSERT_TRUE(pin0.ok() && pin2.ok() && pin3.ok());
  const auto none = store_->Begin(manifest_, Layer(1));
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kIo);
  EXPECT_THAT(none.error().message, HasSubstr("in use"));
  EXPECT_EQ(store_->Usage().pinned_bytes, 3 * layer_bytes);
  for (const int layer : {0, 2, 3}) EXPECT_TRUE(store_->Has(Blob(Layer(layer))));
}

TEST_F(StoreTest, WhatDoesNotFitMovesNothing) {
  const std::uint64_t layer_bytes = manifest_.ranges[Layer(0)].bytes;
  std::vector<std::size_t> all;
  std::uint64_t missing = 0;
  for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) {
    all.push_back(i);
    missing += manifest_.ranges[i].bytes;
  }
  for (const int layer : {0, 1}) {
    Fill(Layer(layer));
    missing -= layer_bytes;
  }
  Reopen(3 * layer_bytes);
  auto pin = store_->Pin(Blob(Layer(0)));
  ASSERT_TRUE(pin.ok());
  const Status none = store_->MakeRoomFor(manifest_, all);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kIo);
  EXPECT_THAT(none.error().message, HasSubstr("no room for " + FormatBytes(missing)));
  for (const std::uint64_t quota : {3 * layer_bytes, std::uint64_t{0}}) {
    Reopen(quota);
    EXPECT_FALSE(store_->MakeRoom(1ULL << 60).ok()) << "a manifest may claim anything";
  }
  EXPECT_TRUE(store_->Has(Blob(Layer(0))) && store_->Has(Blob(Layer(1))));

  // What is wanted does not go for what is wanted too.
  Reopen(2 * layer_bytes);
  const Status in_use = store_->MakeRoomFor(manifest_, {Layer(1), Layer(2)});
  ASSERT_FALSE(in_use.ok());
  EXPECT_THAT(in_use.error().message, HasSubstr(FormatBytes(2 * layer_bytes) + " of it are in use"));
  pin = Error{ErrorCode::kNotFound, "no more"};
  ASSERT_TRUE(store_->MakeRoomFor(manifest_, {Layer(1), Layer(2)}).ok());
  EXPECT_FALSE(store_->Has(Blob(Layer(0))));
  EXPECT_TRUE(store_->Has(Blob(Layer(1))));
}

TEST_F(StoreTest, AWriterWithoutAChunkLeavesNothing) {
  {
    const auto idle = store_->Begin(manifest_, Layer(0)), begun = store_->Begin(manifest_, Layer(1));
    ASSERT_TRUE(idle.ok() && begun.ok());
    ASSERT_FALSE(store_->Begin(manifest_, Layer(1)).ok()) << "and what is another's stays";
    ASSERT_TRUE((*begun)->Put(0, Chunk(Layer(1), 0)).ok());
    EXPECT_EQ(store_->Usage().partial_bytes, 2 * manifest_.ranges[Layer(0)].bytes);
  }
  EXPECT_EQ(store_->Usage().partial_bytes, manifest_.ranges[Layer(1)].bytes);
  const auto again = store_->Begin(manifest_, Layer(1));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ((*again)->Missing().size(), (*again)->chunk_count() - 1);
}

TEST_F(StoreTest, APinHoldsAcrossProcesses) {
  Fill(Layer(0));
  int ready[2], leave[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(leave), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto pin = store_->Pin(Blob(Layer(0)));
    char byte = pin.ok() ? 'y' : 'n';
    if (write(ready[1], &byte, 1) == 1) (void)!read(leave[0], &byte, 1);
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  EXPECT_EQ(store_->Collect(true), 0U);
  EXPECT_TRUE(store_->Has(Blob(Layer(0))));
  ASSERT_EQ(kill(child, SIGKILL), 0);
  waitpid(child, nullptr, 0);
  EXPECT_GT(store_->Collect(true), 0U);
  EXPECT_FALSE(store_->Has(Blob(Layer(0))));
  for (const int fd : {ready[0], ready[1], leave[0], leave[1]}) close(fd);
}

TEST_F(StoreTest, ModelsShareWhatIsEqualAndRemoveLeavesTheOthers) {
  for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) Fill(i);
  ASSERT_TRUE(store_->Add(manifest_, "one", "test").ok());
  ASSERT_TRUE(store_->Add(manifest_, "two", "test").ok());
  ASSERT_TRUE(store_->Remove("one").ok());
  const auto two = store_->Find("two");
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(two->held_bytes + manifest_.header.size(), manifest_.file_bytes);
  EXPECT_EQ(store_->Find("one").error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(store_->Remove("two").ok());
  EXPECT_EQ(store_->Usage().blobs, 0U);
  EXPECT_TRUE(store_->Models().empty());
}

TEST_F(StoreTest, WhatAKilledWriterLeftNamesNoModel) {
  Fill(Layer(0));
  Digest source{};
  source[5] = 1;
  ASSERT_TRUE(store_->Add(manifest_, "model", "test", source).ok());
  const std::string record = store_->Path("models/model.json"), leftover = record + ".17.4.new";
  std::filesystem::copy_file(record, leftover);
  ASSERT_TRUE(store_->Remove("model").ok());
  EXPECT_EQ(store_->Usage().blobs, 0U);
  EXPECT_EQ(store_->FindSource(source), nullptr);
  EXPECT_TRUE(std::filesystem::exists(leftover)) << "its writer may be there still";
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, leftover.c_str(), long_ago, 0), 0);
  EXPECT_GT(store_->Collect(false), 0U);
  EXPECT_FALSE(std::filesystem::exists(leftover));
}

TEST_F(StoreTest, WhatWasBegunGoesWhenNobodyNeedsItOrGoesOnWithIt) {
  ASSERT_TRUE(store_->Add(manifest_, "model", "test").ok());
  const auto sourced = SourcedTestModel(manifest_, {"http://host/model.gguf", manifest_.file_bytes, "etag", {}});
  const auto id = store_->Add(sourced, "sourced", "http://host/model.gguf");
  ASSERT_TRUE(id.ok());
  const auto begin = [&](const Manifest& manifest, int layer) {
    auto writer = store_->Begin(manifest, Layer(layer), *id);
    EXPECT_TRUE(writer.ok() && (*writer)->Put(0, Chunk(Layer(layer), 0)).ok());
    return writer;
  };
  const auto part = [&](int layer) { return store_->Path("partial/" + HexOf(Blob(Layer(layer))) + ".part"); };
  for (const int layer : {0, 1, 2}) (void)begin(manifest_, layer);
  (void)begin(sourced, 3);
  EXPECT_EQ(store_->Collect(false), 0U) << "the next fetch goes on with all of it";

  // By its hashes that others tell, the range goes by another name.
  ASSERT_TRUE(store_->KeepHashes(*id, Layer(3), manifest_.ranges[Layer(3)].chunks).ok());
  EXPECT_EQ(store_->Collect(false), manifest_.ranges[Layer(3)].bytes);
  EXPECT_EQ(ListFiles(store_->Path("sums")).size(), 1U);
  const auto in_use = begin(manifest_, 1);
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  for (const int layer : {0, 1}) ASSERT_EQ(utimensat(AT_FDCWD, part(layer).c_str(), long_ago, 0), 0);
  EXPECT_EQ(store_->Collect(false), manifest_.ranges[Layer(0)].bytes);
  EXPECT_FALSE(std::filesystem::exists(part(0)));
  EXPECT_EQ(store_->Collect(true), manifest_.ranges[Layer(2)].bytes) << "what nobody fetches now";
  EXPECT_TRUE(std::filesystem::exists(part(1)));
}

TEST_F(StoreTest, HashesOfAKilledWritersRangeStayWhenTheRangeGoes) {
  const auto sourced = std::make_shared<Manifest>(
      SourcedTestModel(manifest_, {"http://host/model.gguf", manifest_.file_bytes, "etag", {}}));
  const auto id = store_->Add(*sourced, "sourced", "http://host/model.gguf");
  ASSERT_TRUE(id.ok());
  const std::size_t range = Layer(0);
  {
    auto writer = store_->Begin(*sourced, range, *id);
    ASSERT_TRUE(writer.ok());
    for (const std::uint64_t chunk : (*writer)->Missing()) {
      ASSERT_TRUE((*writer)->Put(chunk, Chunk(range, chunk)).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());  // and is killed: it keeps no hashes
  }
  const auto known = store_->WithHashes(*id, sourced);
  ASSERT_TRUE(store_->Has(*known, range));
  store_->Drop(*known, range);
  {
    const auto writer = store_->Begin(*known, range, *id);
    ASSERT_TRUE(writer.ok() && (*writer)->Put(0, Chunk(range, 0)).ok());  // and is killed, too
  }
  Reopen(0);
  const auto writer = store_->Begin(*store_->WithHashes(*id, sourced), range, *id);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ((*writer)->Missing().size(), manifest_.ChunkCount(range) - 1);
}

TEST_F(StoreTest, TwoThatAddTheSameModelBothSucceed) {
  const std::filesystem::path manifests = folder_ + "/store/manifests";
  for (int round = 0; round < 20; ++round) {
    std::filesystem::remove_all(manifests);
    std::filesystem::create_directory(manifests);
    const std::string name = "m" + std::to_string(round);
    std::vector<Status> added(4);
    std::vector<std::thread> threads;
    for (Status& one : added) {
      threads.emplace_back([&] {
        const Result<ModelId> id = store_->Add(manifest_, name, "test");
        if (!id.ok()) one = id.error();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Status& one : added) EXPECT_TRUE(one.ok()) << one.error().message;
    EXPECT_TRUE(store_->Find(name).ok());
  }
}

TEST_F(StoreTest, AnotherModelDoesNotTakeAName) {
  const auto first = store_->Add(manifest_, "model", "cluster");
  ASSERT_TRUE(first.ok());
  auto other = HashTestModel(WriteTestModel(folder_ + "/other.gguf", 3, 700));
  ASSERT_TRUE(other.ok());
  for (const char* origin : {"cluster", "hf:owner/repo:Q4_0"}) {
    const auto added = store_->Add(*other, "model", origin);
    ASSERT_FALSE(added.ok());
    EXPECT_EQ(added.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(added.error().message, HasSubstr("another model is called 'model' here (from cluster)"));
    EXPECT_FALSE(store_->CheckNameFree("model", origin, *other).ok());
  }
  EXPECT_EQ(store_->Find("model")->id, *first);
  EXPECT_TRUE(store_->CheckNameFree("model", "hf:owner/repo:Q4_0", manifest_).ok()) << "the same model";
  EXPECT_TRUE(store_->Add(manifest_, "model", "hf:owner/repo:Q4_0").ok());
  EXPECT_TRUE(store_->CheckNameFree("model", "hf:owner/repo:Q4_0", *other).ok()) << "its source has another one now";
  EXPECT_TRUE(store_->Add(*other, "model", "hf:owner/repo:Q4_0").ok());
}

TEST_F(StoreTest, NamesThatLeaveTheStoreAreRefused) {
  for (const char* name : {"", "..", "../x", "a/b", ".hidden", "-x", "a\nb", "/etc/passwd", "a b"}) {
    const auto added = store_->Add(manifest_, name, "test");
    ASSERT_FALSE(added.ok()) << name;
    EXPECT_EQ(added.error().code, ErrorCode::kInvalidArgument);
    EXPECT_FALSE(store_->Remove(name).ok());
  }
}

TEST_F(StoreTest, VerifyFindsAWrongByteAndRemovesTheRange) {
  Fill(Layer(2));
  ASSERT_TRUE(store_->Verify(manifest_, Layer(2)).ok());
  const std::string path = folder_ + "/store/blobs/" + HexOf(Blob(Layer(2)));
  std::fstream blob(path, std::ios::binary | std::ios::in | std::ios::out);
  blob.seekp(static_cast<std::streamoff>(manifest_.ranges[Layer(2)].bytes - 3));
  blob.put('\x11');
  blob.close();
  const Status found = store_->Verify(manifest_, Layer(2));
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, ErrorCode::kCorrupt);
  EXPECT_FALSE(store_->Has(Blob(Layer(2))));
}

TEST_F(StoreTest, ALocalFileIsUsedAsItLiesUntilItChanges) {
  std::uint64_t read = 0;
  const auto id = store_->AddLocal(file_, "local", [&](std::uint64_t n) {
    read = n;
    return true;
  });
  ASSERT_TRUE(id.ok()) << id.error().message;
  EXPECT_EQ(read, manifest_.file_bytes);
  EXPECT_EQ(*id, Sha256(EncodeManifest(manifest_)));
  EXPECT_EQ(store_->Usage().blobs, 0U);
  auto model = store_->Find("local");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->local_path, file_);
  const auto chunk = store_->ReadChunk(*model, Layer(1), 1);
  ASSERT_TRUE(chunk.ok());
  EXPECT_EQ(*chunk, Chunk(Layer(1), 1));

  read = 0;
  ASSERT_TRUE(store_
                  ->AddLocal(file_, "local",
                             [&](std::uint64_t n) {
                               read = n;
                               return true;
                             })
                  .ok());
  EXPECT_EQ(read, 0U);  // known and unchanged

  std::ofstream(file_, std::ios::app) << "more";
  model = store_->Find("local");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->local_path, "");
  EXPECT_EQ(model->held_bytes, 0U);
}

TEST_F(StoreTest, ALocalModelInPartsIsTheModelItWasCutFrom) {
  CutTestModel(file_, folder_ + "/cut", {4, 5, 3});
  const SplitName name{folder_ + "/cut", 1, 3};
  const auto id = store_->AddLocal(PartName(name, 2), "cut", {});
  ASSERT_TRUE(id.ok()) << id.error().message;
  EXPECT_EQ(*id, Sha256(EncodeManifest(manifest_)));
  auto model = store_->Find("cut");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->local_path, PartName(name, 1));
  for (std::size_t range = 0; range < manifest_.ranges.size(); ++range) {
    const auto chunk = store_->ReadChunk(*model, range, 0);
    ASSERT_TRUE(chunk.ok()) << chunk.error().message;
    EXPECT_EQ(*chunk, Chunk(range, 0));
  }
  const auto reader = MakeStoreSource(store_, *model)->Open();
  ASSERT_TRUE(reader.ok());
  std::vector<std::uint8_t> all(bytes_.size());
  ASSERT_TRUE((*reader)->Read(0, all).ok());
  EXPECT_EQ(all, bytes_);

  std::ofstream(PartName(name, 3), std::ios::app) << "more";
  EXPECT_EQ(store_->Find("cut")->local_path, "") << "it changed";
  std::filesystem::remove(PartName(name, 3));
  const auto missing = store_->AddLocal(PartName(name, 1), "cut", {});
  ASSERT_FALSE(missing.ok());
  EXPECT_THAT(missing.error().message, HasSubstr("00003-of-00003"));
}

TEST_F(StoreTest, AFullDiskIsSaidAndLosesNothing) {
  const std::uint64_t layer_bytes = manifest_.ranges[Layer(0)].bytes;
  const std::string small = folder_ + "/small", size = "size=" + std::to_string(layer_bytes + layer_bytes / 2);
  std::filesystem::create_directory(small);
  if (mount("tmpfs", small.c_str(), "tmpfs", 0, size.c_str()) != 0) {
    GTEST_SKIP() << "a small disk cannot be mounted here: " << std::strerror(errno);
  }
  {
    StoreOptions options;
    options.folder = small;
    options.disk_free_min_bytes = 0;
    store_ = *WeightStore::Open(options);
    Fill(Layer(0));
    const auto pin = store_->Pin(Blob(Layer(0)));
    const auto none = store_->Begin(manifest_, Layer(1));
    EXPECT_FALSE(none.ok());
    if (!none.ok()) {
      EXPECT_EQ(none.error().code, ErrorCode::kIo);
      EXPECT_THAT(none.error().message, HasSubstr("Free some space"));
    }
    // Others may fill the disk after we have asked: the file system says it then.
    Manifest unknown = manifest_;
    const auto writer = RangeWriter::Open(unknown, Layer(1), {small + "/part", small + "/sums", small + "/blobs"});
    EXPECT_FALSE(writer.ok());
    if (!writer.ok()) { EXPECT_THAT(writer.error().message, HasSubstr("Free some space")); }
    EXPECT_FALSE(std::filesystem::exists(small + "/part")) << "it takes room for nothing";
    EXPECT_TRUE(store_->Verify(manifest_, Layer(0)).ok());
    store_.reset();
  }
  ASSERT_EQ(umount(small.c_str()), 0) << std::strerror(errno);
}

}  // namespace
}  // namespace shoal
