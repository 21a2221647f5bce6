// A sourced model fetched by several nodes of this process, from each other and from a server of their own.
#include "weights/sourced_fetch.h"

#include <cpp-httplib/httplib.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <future>
#include <mutex>

#include "base/test_folder.h"
#include "weights/source_helper.h"
#include "weights/test_model.h"
#include "weights/test_peer.h"
#include "weights/whole_file.h"

namespace shoal {
namespace {

using testing::HasSubstr;

// One file, by ranges.
class TestServer {
 public:
  explicit TestServer(std::vector<std::uint8_t> bytes) : bytes_(std::move(bytes)) {
    server_.Get("/model.gguf", [this](const httplib::Request& request, httplib::Response& response) {
      if (refuses || (wants_token && request.get_header_value("Authorization") != "Bearer right")) {
        response.status = 401;
        return;
      }
      response.set_header("ETag", changed ? "\"two\"" : "\"one\"");
      response.set_content_provider(bytes_.size(), "application/octet-stream",
                                    [this](std::size_t offset, std::size_t n, httplib::DataSink& sink) {
                                      sent += n;
                                      return sink.write(reinterpret_cast<const char*>(bytes_.data()) + offset, n);
                                    });
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    server_.wait_until_ready();
  }
  ~TestServer() {
    server_.stop();
    thread_.join();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/model.gguf"; }

  std::atomic<bool> refuses{false}, changed{false}, wants_token{false};
  std::atomic<std::uint64_t> sent{0};

 private:
  const std::vector<std::uint8_t> bytes_;
  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
};

// A peer whose answers are followed by `after`, before whoever asked has them.
WeightPeer PeerWith(TestNode& node, bool first, std::function<void()> after) {
  class Link final : public WeightLink {
   public:
    Link(TestNode& node, std::function<void()> after) : link_(node), after_(std::move(after)) {}
    Result<std::vector<std::uint8_t>> Ask(std::vector<std::uint8_t> question,
                                          std::chrono::milliseconds limit) override {
      auto answer = link_.Ask(std::move(question), limit);
      after_();
      return answer;
    }
    void Cancel() override { link_.Cancel(); }

   private:
    TestLink link_;
    const std::function<void()> after_;
  };
  WeightPeer peer = Peer(node, first);
  peer.open = [&node, after]() -> Result<std::unique_ptr<WeightLink>> {
    return std::unique_ptr<WeightLink>(std::make_unique<Link>(node, after));
  };
  return peer;
}

class SourcedFetchTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string file = WriteTestModel(folder_ + "/model.gguf", 4, 700);
    hashed_ = *HashTestModel(file);
    const std::vector<std::uint8_t> bytes = ReadTestFile(file);
    server_ = std::make_unique<TestServer>(bytes);
    sourced_ = SourcedTestModel(hashed_, {server_->url(), hashed_.file_bytes, "one", Sha256(bytes)});
    for (std::size_t i = 0; i < sourced_.ranges.size(); ++i) all_.push_back(i);
    for (const char* variable : {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}) unsetenv(variable);
  }

  std::unique_ptr<TestNode> Node(const std::string& name, std::uint64_t quota = 0) {
    auto node = std::make_unique<TestNode>();
    node->name = name;
    StoreOptions options;
    options.folder = folder_ + "/" + name;
    options.quota_bytes = quota;
    options.disk_free_min_bytes = 0;
    node->store = *WeightStore::Open(options);
    EXPECT_TRUE(node->store->Add(sourced_, "model", "test").ok());
    node->server =
        std::make_unique<WeightServer>(node->store, [store = node->store](auto) { return store->Find("model"); });
    return node;
  }
  static Result<FetchReport> Fetch(TestNode& node, const std::vector<std::size_t>& ranges,
                                   const std::vector<WeightPeer>& peers, const std::string& token = "",
                                   bool asks_others = true) {
    HttpOptions http;
    http.token = token;
    http.attempts_max = 2;
    http.backoff_first_ms = 10;
    FetchOptions options;
    options.patience_ms = 500;
    options.asks_others = asks_others;
    const auto hang = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    options.cancelled = [hang] { return std::chrono::steady_clock::now() > hang; };
    return FetchSourced(*node.store, *node.store->Find("model"), ranges, peers, http, options);
  }
  std::uint64_t BytesOf(const std::vector<std::size_t>& ranges) const {
    std::uint64_t bytes = 0;
    for (const std::size_t range : ranges) bytes += sourced_.ranges[range].bytes;
    return bytes;
  }
  // Of what HashTestModel says the model is.
  void ExpectWhole(const TestNode& node, const std::vector<std::size_t>& ranges) {
    for (const std::size_t range : ranges) EXPECT_TRUE(node.store->Verify(hashed_, range).ok()) << range;
  }

  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
  Manifest hashed_, sourced_;
  std::vector<std::size_t> all_;
  std::unique_ptr<TestServer> server_;
};

// A node that fetches for others, with a token for the source; what it got goes with the next Tidy.
class TestHelper {
 public:
  TestHelper(TestNode& node, std::string token,
             std::function<Status(TestNode&, const std::vector<std::size_t>&, const std::string&)> fetch,
             std::chrono::milliseconds failed_for = std::chrono::seconds(30)) {
    SourceHelperOptions options;
    options.failed_for = failed_for;
    options.run = [this](std::function<void()> task) {
      tasks_.push_back(std::async(std::launch::async, std::move(task)));
      return true;
    };
    options.fetch = [&node, token = std::move(token), fetch = std::move(fetch)](const auto&, const auto& ranges) {
      return fetch(node, ranges, token);
    };
    options.kept_for = std::chrono::milliseconds(0);
    helper_ = std::make_unique<SourceHelper>(node.store, std::move(options));
    node.server = std::make_unique<WeightServer>(
        node.store, [store = node.store](auto) { return store->Find("model"); },
        [this](const StoredModel& model, const std::vector<std::size_t>& ranges) {
          return helper_->Fetch(model, ranges);
        });
  }
  // Once nobody asks any more.
  SourceHelper& Done() {
    for (std::future<void>& task : tasks_) task.wait();
    return *helper_;
  }

 private:
  std::vector<std::future<void>> tasks_;  // by one question at a time
  std::unique_ptr<SourceHelper> helper_;
};

Status FetchedFor(const Result<FetchReport>& report) { return report.ok() ? Status() : Status(report.error()); }

TEST_F(SourcedFetchTest, WhatTheSourceRefusesToOneAnotherFetchesForIt) {
  const auto able = Node("able"), node = Node("node");
  server_->wants_token = true;
  TestHelper helper(*able, "right", [](TestNode& from, const auto& ranges, const auto& token) {
    return FetchedFor(Fetch(from, ranges, {}, token, false));
  });
  const auto report = Fetch(*node, all_, {Peer(*able)});
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->source_bytes, 0U);
  EXPECT_EQ(report->bytes_by_peer.at("able"), BytesOf(all_));
  EXPECT_EQ(server_->sent, BytesOf(all_)) << "each byte once";
  ExpectWhole(*node, all_);
  const std::size_t own = RangesOf(sourced_, {2, 3})->back();
  SourceHelper& done = helper.Done();
  done.Keep(Sha256(EncodeManifest(sourced_)), {own});
  done.Tidy();
  EXPECT_EQ(able->store->Find("model")->held_bytes, BytesOf({own})) << "what it does not need itself goes";
}

TEST_F(SourcedFetchTest, WhomNobodyHelpsSaysWhyNobodyDoes) {
  const auto unable = Node("unable"), full = Node("full", 1 << 20), node = Node("node");
  server_->wants_token = true;
  const auto fetch = [](TestNode& from, const auto& ranges, const auto& token) {
    return FetchedFor(Fetch(from, ranges, {}, token, false));
  };
  TestHelper no_token(*unable, "", fetch), no_room(*full, "right", fetch);
  const auto report = Fetch(*node, all_, {Peer(*unable), Peer(*full)});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
  for (const char* said :
       {"its source does not give it here", "set HF_TOKEN", "The same goes for 'unable'", "'full': it has no room"}) {
    EXPECT_THAT(report.error().message, HasSubstr(said));
  }
  EXPECT_EQ(server_->sent, 0U);
  no_token.Done();
}

TEST_F(SourcedFetchTest, WhoTakesItOnAgainAndAgainAndBringsNothingIsNotWaitedForWithoutEnd) {
  const auto a = Node("a"), b = Node("b"), node = Node("node");
  server_->wants_token = true;
  const auto fails = [](const auto&...) { return Status(Error{ErrorCode::kUnavailable, "its line is down"}); };
  TestHelper one(*a, "", fails, std::chrono::milliseconds(100)), two(*b, "", fails, std::chrono::milliseconds(100));
  const auto report = Fetch(*node, all_, {Peer(*a), Peer(*b)});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument) << report.error().message;
  EXPECT_THAT(report.error().message, HasSubstr("its line is down"));
  one.Done();
  two.Done();
}

TEST_F(SourcedFetchTest, WhatAFailedHelpFetchedGoesToo) {
  const auto able = Node("able");
  TestHelper helper(*able, "", [this](TestNode& from, const auto&, const auto& token) -> Status {
    const Status some = FetchedFor(Fetch(from, {all_.front()}, {}, token, false));
    return some.ok() ? Error{ErrorCode::kUnavailable, "the line went down"} : some;
  });
  auto& server = *able->server;
  (void)server.Answer(Encode(WeightAsk{FetchAsk{Sha256(EncodeManifest(sourced_)), {all_.begin(), all_.end()}}}));
  SourceHelper& done = helper.Done();
  EXPECT_EQ(able->store->Find("model")->held_bytes, BytesOf({all_.front()}));
  done.Tidy();
  EXPECT_EQ(able->store->Find("model")->held_bytes, 0U);
}

TEST_F(SourcedFetchTest, OneAloneGetsWhatItNeedsOnce) {
  const auto node = Node("node");
  const std::vector<std::size_t> needed = *RangesOf(sourced_, {1, 3});
  const auto report = Fetch(*node, needed, {});
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->source_bytes, BytesOf(needed));
  EXPECT_EQ(server_->sent, BytesOf(needed));
  EXPECT_EQ(node->store->Usage().pinned_bytes, BytesOf(needed));
  ExpectWhole(*node, needed);
  const StoredModel model = *node->store->Find("model");
  EXPECT_EQ(model.held_bytes, BytesOf(needed));
  EXPECT_EQ(model.id, Sha256(EncodeManifest(sourced_)));
  ASSERT_TRUE(Fetch(*node, needed, {}).ok());
  EXPECT_EQ(server_->sent, BytesOf(needed)) << "it is here";
  EXPECT_EQ(node->store->Collect(true), 0U) << "nothing of it is in nobody's need";
  ASSERT_TRUE(node->store->Remove("model").ok());
  EXPECT_TRUE(ListFiles(node->store->Path("sums")).empty());
}

TEST_F(SourcedFetchTest, OfTwoWhoNeedTheSameOneAsksTheSource) {
  const auto a = Node("a"), b = Node("b");
  auto other = std::async(std::launch::async, [&] { return Fetch(*b, all_, {Peer(*a, true)}); });
  const auto report = Fetch(*a, all_, {Peer(*b, false)});
  const auto others = other.get();
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_TRUE(others.ok()) << others.error().message;
  EXPECT_EQ(server_->sent, BytesOf(all_)) << "each byte once";
  EXPECT_EQ(report->source_bytes + others->source_bytes, BytesOf(all_));
  ExpectWhole(*a, all_);
  ExpectWhole(*b, all_);
  for (const std::size_t range : all_) {
    EXPECT_EQ(a->store->claims().Of(Sha256(EncodeManifest(sourced_)), range), RangeState::kNone);
  }
}

// b sees nobody who wants anything; before it goes on, a says what it wants and sees b, which it goes before.
TEST_F(SourcedFetchTest, OfTwoOfWhomOneLookedTooEarlyOneAsksTheSource) {
  const auto a = Node("a"), b = Node("b");
  std::promise<void> a_has_looked;
  std::once_flag a_looks, b_looks;
  const std::vector<WeightPeer> of_a = {
      PeerWith(*b, false, [&] { std::call_once(a_looks, [&] { a_has_looked.set_value(); }); })};
  std::future<Result<FetchReport>> other;
  const std::vector<WeightPeer> of_b = {PeerWith(*a, true, [&] {
    std::call_once(b_looks, [&] {
      other = std::async(std::launch::async, [&] { return Fetch(*a, all_, of_a); });
      EXPECT_EQ(a_has_looked.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
    });
  })};
  const auto report = Fetch(*b, all_, of_b);
  ASSERT_TRUE(other.valid());
  const auto others = other.get();
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_TRUE(others.ok()) << others.error().message;
  EXPECT_EQ(server_->sent, BytesOf(all_)) << "each byte once";
  ExpectWhole(*a, all_);
  ExpectWhole(*b, all_);
}

TEST_F(SourcedFetchTest, AWrongByteOfAPeerIsNamedAndComesFromTheSource) {
  const auto bad = Node("bad"), node = Node("node");
  ASSERT_TRUE(Fetch(*bad, all_, {}).ok());
  bad->lies = true;
  const auto report = Fetch(*node, all_, {Peer(*bad)});
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->source_bytes, BytesOf(all_));
  ExpectWhole(*node, all_);
}

TEST_F(SourcedFetchTest, HashesThatTheSourceDoesNotConfirmAreSaidWithWhoToldThem) {
  const auto liar = Node("liar"), node = Node("node");
  ASSERT_TRUE(Fetch(*liar, all_, {}).ok());
  const std::size_t range = RangesOf(sourced_, {2, 3})->back();
  std::vector<Digest> other = hashed_.ranges[range].chunks;
  other[0][0] ^= 1;
  ASSERT_TRUE(node->store->KeepHashes(Sha256(EncodeManifest(sourced_)), range, other).ok());
  const auto report = Fetch(*node, {range}, {});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(report.error().message, HasSubstr("is not what came of it before"));
}

TEST_F(SourcedFetchTest, AnotherStateOfTheFileIsRefused) {
  const auto node = Node("node");
  server_->changed = true;
  const auto report = Fetch(*node, all_, {});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kStale);
  EXPECT_EQ(node->store->Usage().blob_bytes, 0U);
}

TEST_F(SourcedFetchTest, WhomTheSourceRefusesTakesWhatPeersHave) {
  const auto peer = Node("peer"), node = Node("node");
  const std::vector<std::size_t> some = *RangesOf(sourced_, {1, 3});
  ASSERT_TRUE(Fetch(*peer, some, {}).ok());
  server_->refuses = true;
  const auto given = Fetch(*node, some, {Peer(*peer)});
  ASSERT_TRUE(given.ok()) << given.error().message;
  EXPECT_EQ(given->source_bytes, 0U);
  EXPECT_EQ(given->bytes_by_peer.at("peer"), BytesOf(some));
  const auto refused = Fetch(*node, all_, {Peer(*peer)});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              HasSubstr("no node that can be reached has layers 0, 3, embeddings, output of model"));
  EXPECT_THAT(refused.error().message, HasSubstr("set HF_TOKEN"));
}

TEST_F(SourcedFetchTest, TheWholeFilesHashIsHeldAgainstWhatTheSourceSays) {
  const auto node = Node("node");
  ASSERT_TRUE(Fetch(*node, all_, {}).ok());
  StoredModel model = *node->store->Find("model");
  Status right = CheckWholeFiles(node->store, model, {});
  EXPECT_TRUE(right.ok()) << right.error().message;
  Manifest other = *model.manifest;
  other.sources[0].sha256 = Digest{};
  model.manifest = std::make_shared<Manifest>(other);
  right = CheckWholeFiles(node->store, model, {});
  ASSERT_FALSE(right.ok());
  EXPECT_EQ(right.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace shoal
