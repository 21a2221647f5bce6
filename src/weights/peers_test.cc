// Fetching from peers: stores in this process that answer each other, some slow, some lying, some still fetching.
#include "weights/peers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <future>
#include <thread>

#include "base/test_folder.h"
#include "weights/swarm.h"
#include "weights/test_model.h"
#include "weights/test_peer.h"

namespace shoal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Bytes = std::vector<std::uint8_t>;

class PeersTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = WriteTestModel(folder_ + "/model.gguf", 4, 1500);
    auto manifest = HashTestModel(file_);
    ASSERT_TRUE(manifest.ok()) << manifest.error().message;
    manifest_ = *std::move(manifest);
    fingerprint_ = FingerprintOf(manifest_.header, manifest_.file_bytes);
    bytes_ = ReadTestFile(file_);
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) all_.push_back(i);
  }

  // `whole`: has the model as a local file.
  std::unique_ptr<TestNode> Node(const std::string& name, bool whole, std::uint64_t quota = 0) {
    auto node = std::make_unique<TestNode>();
    node->name = name;
    StoreOptions options;
    options.folder = folder_ + "/" + name;
    options.quota_bytes = quota;
    options.disk_free_min_bytes = 0;
    node->store = *WeightStore::Open(options);
    if (whole) {
      EXPECT_TRUE(node->store->AddLocal(file_, "model", {}).ok());
    } else {
      EXPECT_TRUE(node->store->Add(manifest_, "model", "test").ok());
    }
    node->server = std::make_unique<WeightServer>(node->store, [store = node->store, this](ModelFingerprint asked) {
      return asked == fingerprint_ ? store->Find("model")
                                   : Result<StoredModel>(Error{ErrorCode::kNotFound, "no such model here"});
    });
    return node;
  }
  void ExpectWhole(const TestNode& node) {
    for (const std::size_t range : all_) EXPECT_TRUE(node.store->Verify(manifest_, range).ok()) << range;
  }

  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
  std::string file_;
  Manifest manifest_;
  ModelFingerprint fingerprint_ = 0;
  Bytes bytes_;
  std::vector<std::size_t> all_;
};

TEST_F(PeersTest, TheManifestComesFromWhoHasTheModel) {
  const auto source = Node("source", true);
  const auto manifest = FetchManifest({Peer(*source)}, fingerprint_);
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(EncodeManifest(*manifest), EncodeManifest(manifest_));
  const auto none = FetchManifest({Peer(*source)}, fingerprint_ + 1);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(none.error().message, HasSubstr("'source': no such model here"));
}

TEST_F(PeersTest, OnlyWhatAStageNeedsIsFetchedAndOnce) {
  const auto source = Node("source", true), node = Node("node", false);
  const std::vector<std::size_t> needed = *RangesOf(manifest_, {1, 3});
  std::uint64_t bytes = 0;
  for (const std::size_t range : needed) bytes += manifest_.ranges[range].bytes;
  FetchProgress last;
  FetchOptions options;
  options.on_progress = [&](const FetchProgress& now) { last = now; };
  const auto report = FetchRanges(*node->store, manifest_, needed, {Peer(*source)}, options);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->bytes_fetched, bytes);
  EXPECT_LT(static_cast<double>(source->bytes_sent), 1.1 * static_cast<double>(bytes));
  EXPECT_EQ(last.bytes_done, bytes);
  EXPECT_EQ(last.bytes_total, bytes);
  EXPECT_EQ(node->store->Usage().blob_bytes, bytes);
  EXPECT_EQ(node->store->Usage().pinned_bytes, bytes);
  // Again: it is here.
  const auto again = FetchRanges(*node->store, manifest_, needed, {}, {});
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->bytes_fetched, 0U);
}

TEST_F(PeersTest, APeerThatSendsWrongBytesIsNamedAndLeftOut) {
  const auto good = Node("good", true), bad = Node("bad", true), node = Node("node", false);
  bad->lies = true;
  good->bytes_per_s = 40'000'000;  // so that the other one is asked at all
  const auto report = FetchRanges(*node->store, manifest_, all_, {Peer(*bad), Peer(*good)}, {});
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_THAT(report->bad_peers, ElementsAre("bad"));
  EXPECT_LE(report->bytes_refused, 2 * std::uint64_t{manifest_.chunk_bytes});
  ExpectWhole(*node);

  const auto other = Node("other", false);
  const auto alone = FetchRanges(*other->store, manifest_, all_, {Peer(*bad)}, {});
  ASSERT_FALSE(alone.ok());
  EXPECT_THAT(alone.error().message, HasSubstr("'bad' sent wrong bytes"));
}

TEST_F(PeersTest, ASourceThatVanishesIsReplacedAndNothingIsFetchedTwice) {
  const auto first = Node("first", true), second = Node("second", true), node = Node("node", false);
  first->answers_left = 8;
  const auto report = FetchRanges(*node->store, manifest_, all_, {Peer(*first), Peer(*second)}, {});
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->bytes_fetched + manifest_.header.size(), manifest_.file_bytes);
  EXPECT_GT(report->bytes_by_peer.at("second"), 0U);
  ExpectWhole(*node);
}

TEST_F(PeersTest, WhatASilentPeerWasAskedForComesFromAnother) {
  const auto silent = Node("silent", true), good = Node("good", true), node = Node("node", false);
  silent->answers_until_silent = 4;
  FetchOptions options;
  options.answer_max = std::chrono::milliseconds(200);
  const auto report = FetchRanges(*node->store, manifest_, all_, {Peer(*silent), Peer(*good)}, options);
  ASSERT_TRUE(report.ok()) << report.error().message;
  ExpectWhole(*node);
}

TEST_F(PeersTest, WhatIsDamagedOnItsDiskAHolderOffersToNobody) {
  const auto source = Node("source", true), rotten = Node("rotten", false), node = Node("node", false);
  ASSERT_TRUE(FetchRanges(*rotten->store, manifest_, all_, {Peer(*source)}, {}).ok());
  const std::size_t range = RangesOf(manifest_, {2, 3})->back();
  std::fstream blob(rotten->store->Path("blobs/" + HexOf(BlobId(manifest_.ranges[range], manifest_.chunk_bytes))),
                    std::ios::binary | std::ios::in | std::ios::out);
  blob.seekp(1000);
  blob.put('\0');  // no byte of the model is 0
  blob.close();
  FetchOptions options;
  options.patience_ms = 200;
  const auto hang = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  options.cancelled = [hang] { return std::chrono::steady_clock::now() > hang; };
  const auto alone = FetchRanges(*node->store, manifest_, all_, {Peer(*rotten)}, options);
  ASSERT_FALSE(alone.ok());
  EXPECT_EQ(alone.error().code, ErrorCode::kUnavailable) << alone.error().message;
  EXPECT_THAT(alone.error().message, HasSubstr("has all of " + manifest_.ranges[range].Name()));
  const auto both = FetchRanges(*node->store, manifest_, all_, {Peer(*rotten), Peer(*source)}, {});
  ASSERT_TRUE(both.ok()) << both.error().message;
  EXPECT_EQ(both->bytes_fetched, manifest_.ChunkBytes(range, 0)) << "the rest had come before";
  ExpectWhole(*node);
}

TEST_F(PeersTest, OthersAreServedWhileAModelIsHashed) {
  const auto source = Node("source", true);
  std::promise<void> entered, hashed;
  WeightServer server(source->store, [&](ModelFingerprint asked) {
    if (asked == fingerprint_) return source->store->Find("model");
    entered.set_value();
    hashed.get_future().wait();
    return Result<StoredModel>(Error{ErrorCode::kNotFound, "no such model here"});
  });
  std::thread slow([&] { (void)server.Answer(Encode(WeightAsk(ManifestAsk{fingerprint_ + 1, 0}))); });
  entered.get_future().wait();
  auto other = std::async(std::launch::async, [&] {
    return server.Answer(Encode(WeightAsk(ChunkAsk{Sha256(EncodeManifest(manifest_)), 0, 0})));
  });
  EXPECT_EQ(other.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  hashed.set_value();
  slow.join();
  const auto answer = ParseWeightAnswer(other.get());
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(std::holds_alternative<ChunkAnswer>(*answer));
}

TEST_F(PeersTest, WhatNobodyHasIsNamed) {
  const auto empty = Node("empty", false), node = Node("node", false);
  FetchOptions options;
  options.patience_ms = 200;
  const auto report = FetchRanges(*node->store, manifest_, all_, {Peer(*empty)}, options);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(report.error().message, HasSubstr("layer 0, layer 1"));
}

TEST_F(PeersTest, WhatDoesNotFitIsNotBegun) {
  const auto source = Node("source", true), node = Node("node", false, manifest_.file_bytes / 2);
  ASSERT_TRUE(FetchRanges(*node->store, manifest_, *RangesOf(manifest_, {1, 2}), {Peer(*source)}, {}).ok());
  const StoreUsage before = node->store->Usage();
  const std::uint64_t sent = source->bytes_sent;
  const auto report = FetchRanges(*node->store, manifest_, all_, {Peer(*source)}, {});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kIo);
  EXPECT_THAT(report.error().message, HasSubstr("no room for"));
  EXPECT_EQ(node->store->Usage().blob_bytes, before.blob_bytes);
  EXPECT_EQ(node->store->Usage().partial_bytes, 0U);
  EXPECT_EQ(source->bytes_sent, sent);
}

TEST_F(PeersTest, CancellingEndsIt) {
  const auto source = Node("source", true), node = Node("node", false);
  source->bytes_per_s = 1'000'000;
  std::atomic<int> asked{0};
  FetchOptions options;
  options.cancelled = [&] { return ++asked > 10; };
  const auto report = FetchRanges(*node->store, manifest_, all_, {Peer(*source)}, options);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kCancelled);
}

// Three nodes want the same from one source. Each gives the others what it has while it still fetches, so the source's
// uplink carries little more than one copy.
TEST_F(PeersTest, WhoWaitsForAnAnswerIsWokenWhenNobodyWantsItAnyMore) {
  const auto silent = Node("silent", true), node = Node("node", false), other = Node("other", false),
             good = Node("good", true);
  silent->answers_until_silent = 0;
  constexpr std::chrono::seconds kHang{45};  // half of what a peer may take to answer
  std::atomic<bool> cancelled{false};
  FetchOptions options;
  options.cancelled = [&] { return cancelled.load(); };
  auto given_up = std::async(std::launch::async,
                             [&] { return FetchRanges(*node->store, manifest_, all_, {Peer(*silent)}, options); });
  auto manifest = std::async(std::launch::async, [&] {
    return FetchManifest({Peer(*silent)}, fingerprint_, {}, [&] { return cancelled.load(); });
  });
  auto complete = std::async(std::launch::async, [&] {
    return FetchRanges(*other->store, manifest_, all_, {Peer(*silent), Peer(*good)}, FetchOptions{});
  });
  ASSERT_EQ(complete.wait_for(kHang), std::future_status::ready) << "all has come from another";
  EXPECT_TRUE(complete.get().ok());
  cancelled = true;
  ASSERT_EQ(given_up.wait_for(kHang), std::future_status::ready);
  EXPECT_EQ(given_up.get().error().code, ErrorCode::kCancelled);
  ASSERT_EQ(manifest.wait_for(kHang), std::future_status::ready);
  EXPECT_FALSE(manifest.get().ok());
}

TEST_F(PeersTest, NodesThatFetchTheSameGiveItToEachOther) {
  const auto source = Node("source", true);
  source->bytes_per_s = 30'000'000;
  std::vector<std::unique_ptr<TestNode>> nodes;
  for (const char* name : {"a", "b", "c"}) {
    nodes.push_back(Node(name, false));
    nodes.back()->bytes_per_s = 30'000'000;
  }
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    threads.emplace_back([&, i] {
      std::vector<WeightPeer> peers{Peer(*source)};
      for (std::size_t j = 0; j < nodes.size(); ++j) {
        if (j != i) peers.push_back(Peer(*nodes[j]));
      }
      FetchOptions options;
      options.seed = 1000 + i;
      const auto report = FetchRanges(*nodes[i]->store, manifest_, all_, peers, options);
      EXPECT_TRUE(report.ok()) << report.error().message;
      if (report.ok()) ++good;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 3);
  for (const auto& node : nodes) ExpectWhole(*node);
  const std::uint64_t one_copy = manifest_.file_bytes - manifest_.header.size();
  EXPECT_LT(source->bytes_sent, 2 * one_copy) << "without swarming it would be three copies";
}

// Two streams lead to a peer. One brings wrong bytes while a chunk is under way on the other, and somebody else is
// asked for that: it came from both, was counted twice, and ended the process.
TEST(Swarm, WhatComesFromADroppedPeerIsNotTaken) {
  Swarm swarm(2, 1);
  const std::size_t bad = swarm.AddPeer(), good = swarm.AddPeer();
  swarm.SetHave(bad, {true, true});
  const std::size_t wrong = *swarm.Next(bad), late = *swarm.Next(bad);
  ASSERT_TRUE(swarm.Came(bad, wrong));
  EXPECT_TRUE(swarm.hopeful());
  swarm.SetHave(good, {true, true});
  EXPECT_EQ(swarm.Next(good), std::nullopt) << "both are under way";
  swarm.Wrong(wrong);
  swarm.Drop(bad);
  EXPECT_FALSE(swarm.Came(bad, late));
  for (int i = 0; i < 2; ++i) {
    const auto again = swarm.Next(good);
    ASSERT_TRUE(again);
    swarm.Failed(bad, *again);  // it said so too late: it is not its to give back
    EXPECT_FALSE(swarm.Came(bad, *again));
    EXPECT_TRUE(swarm.Came(good, *again));
    EXPECT_FALSE(swarm.Came(good, *again));
    swarm.Done(*again);
  }
  EXPECT_TRUE(swarm.done());
}

TEST(Swarm, TakesTheRarestFirst) {
  Swarm swarm(4, 1);
  const std::size_t a = swarm.AddPeer(), b = swarm.AddPeer();
  swarm.SetHave(a, {true, true, true, false});
  swarm.SetHave(b, {true, false, true, false});
  EXPECT_EQ(swarm.Next(a), 1U);  // only a has it
  const auto next = swarm.Next(b);
  ASSERT_TRUE(next == 0U || next == 2U);
  EXPECT_EQ(swarm.Next(a), 2U - *next);
  EXPECT_EQ(swarm.Next(a), std::nullopt);
  EXPECT_TRUE(swarm.hopeful());
  swarm.Done(1);
  swarm.Drop(b);
  EXPECT_EQ(swarm.Next(a), *next);  // what b was asked for is free again
  swarm.Failed(a, *next);
  EXPECT_EQ(swarm.Next(a), std::nullopt);
  swarm.Done(0);
  swarm.Done(2);
  EXPECT_FALSE(swarm.done());
  EXPECT_FALSE(swarm.hopeful());  // nobody has chunk 3
  swarm.SetHave(a, {false, false, false, true});
  EXPECT_EQ(swarm.Next(a), 3U);
  swarm.Done(3);
  EXPECT_TRUE(swarm.done());
}

TEST(WeightMessages, SurviveTheirBytes) {
  Digest id{};
  id[3] = 9;
  const WeightAsk asks[] = {ManifestAsk{77, 1 << 20}, HaveAsk{id},      ChunkAsk{id, 3, 9}, RangesAsk{id},
                            HashesAsk{id, 2},         FetchAsk{id, {5}}};
  for (const WeightAsk& ask : asks) {
    const Bytes bytes = Encode(ask);
    const auto parsed = ParseWeightAsk(bytes);
    ASSERT_TRUE(parsed.ok());
    EXPECT_TRUE(*parsed == ask);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) EXPECT_FALSE(ParseWeightAsk(std::span(bytes).first(cut)).ok());
  }
  const WeightAnswer answers[] = {ManifestPiece{id, 100, {1, 2, 3}},
                                  HaveAnswer{{0xff}},
                                  ChunkAnswer{{4, 5}},
                                  RangesAnswer{{RangeState::kHere}},
                                  HashesAnswer{{id}},
                                  FetchAnswer{},
                                  Refusal{"not here"}};
  for (const WeightAnswer& answer : answers) {
    const auto parsed = ParseWeightAnswer(Encode(answer));
    ASSERT_TRUE(parsed.ok());
    EXPECT_TRUE(*parsed == answer);
  }
  EXPECT_FALSE(ParseWeightAnswer(Encode(WeightAnswer(ManifestPiece{id, kManifestBytesMax + 1, {}}))).ok());
}

}  // namespace
}  // namespace shoal
