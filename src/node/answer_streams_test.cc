// Three nodes that answer by a script, joined by socket pairs: one is lost, another goes on, a third passes it on.
#include "node/answer_streams.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/json_input.h"
#include "api/scripted_backend_test.h"
#include "base/socket.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;

constexpr const char* kBody = R"({"prompt":"Once","max_tokens":30,"stream":true,"seed":3})";

NodeId NodeOf(std::uint8_t number) {
  NodeId id;
  id.bytes.fill(number);
  return id;
}

// Lets a node's question to the others wait, so that its claim stays open.
class LatePeers final : public AnswerPeers {
 public:
  explicit LatePeers(AnswerPeers& peers) : peers_(peers) {}
  std::unique_ptr<RemoteAnswer> Find(const AnswerAsk& ask) override {
    asked = true;
    EXPECT_TRUE(Eventually([&] { return may_ask.load(); }));
    return peers_.Find(ask);
  }
  std::atomic<bool> asked{false}, may_ask{false};

 private:
  AnswerPeers& peers_;
};

class CountingSink final : public EventSink {
 public:
  explicit CountingSink(std::size_t events_max) : events_max_(events_max) {}
  bool Write(std::string_view bytes) override {
    text += bytes;
    return ++events_ < events_max_;
  }
  std::string text;

 private:
  const std::size_t events_max_;
  std::size_t events_ = 0;
};

class Net;

struct TestNode {
  TestNode(Net& net, std::uint8_t number, Script script);
  ~TestNode() { Die(); }
  TestNode(const TestNode&) = delete;
  TestNode& operator=(const TestNode&) = delete;

  // Its streams are cut in the middle, as those of a killed process are.
  void Die() {
    {
      const std::lock_guard lock(mutex);
      dead = true;
      for (const int fd : fds) ::shutdown(fd, SHUT_RDWR);
    }
    streams->Stop();
    answers.Stop();
    threads.Join();
    const std::lock_guard lock(mutex);
    for (const int fd : std::exchange(fds, {})) ::close(fd);
  }
  ApiContext Context() { return {*backend, answers, streams.get()}; }

  const NodeId id;
  std::shared_ptr<ScriptedBackend> backend;
  Answers answers;
  std::unique_ptr<AnswerStreams> streams;
  BlockingTasks threads{256};
  std::mutex mutex;
  std::atomic<bool> dead{false};
  std::vector<int> fds;  // second descriptors of its streams' ends, to cut them by
};

class Net {
 public:
  TestNode& Add(Script script) {
    nodes_.push_back(
        std::make_unique<TestNode>(*this, static_cast<std::uint8_t>(nodes_.size() + 1), std::move(script)));
    return *nodes_.back();
  }
  Result<int> Open(TestNode& from, const NodeId& to, const std::string& protocol) {
    const Error lost{ErrorCode::kUnavailable, "not connected"};
    TestNode& other = *nodes_[to.bytes[0] - 1U];
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return lost;
    for (const auto& [node, fd] : {std::pair(&from, ends[0]), std::pair(&other, ends[1])}) {
      const std::lock_guard lock(node->mutex);
      if (node->dead) {
        ::close(ends[0]);
        ::close(ends[1]);
        return lost;
      }
      node->fds.push_back(::dup(fd));
    }
    const bool served = other.threads.Run([&other, &from, protocol, fd = ends[1]] {
      if (protocol == kKeepProtocol) return other.streams->ServeKeep(from.id, fd);
      other.streams->ServeAnswer(fd);
    });
    if (!served) ::close(ends[1]);
    return ends[0];
  }
  // Who is alive is told to all.
  void TellMembers() {
    for (const auto& node : nodes_) {
      if (node->dead) continue;
      std::vector<AnswerMember> members;
      for (const auto& other : nodes_) {
        if (other != node && !other->dead) members.push_back({other->id, true, 1});
      }
      node->streams->SetMembers(std::move(members));
    }
  }
  // The node that has a copy of the answer.
  TestNode* KeeperOf(const std::string& answer) {
    for (const auto& node : nodes_) {
      const auto found = node->answers.Find({answer, {}});
      if (!node->dead && found != nullptr && found->is_copy()) return node.get();
    }
    return nullptr;
  }
  ~Net() {
    for (const auto& node : nodes_) node->Die();
  }

 private:
  std::vector<std::unique_ptr<TestNode>> nodes_;
};

TestNode::TestNode(Net& net, std::uint8_t number, Script script)
    : id(NodeOf(number)),
      backend(std::make_shared<ScriptedBackend>(std::move(script))),
      answers(backend->metrics(), AnswersOptions{}) {
  AnswerStreamsOptions options;
  options.self = id;
  options.silent_max = std::chrono::seconds(30);  // a busy machine's threads may be late
  options.open = [this, &net](const NodeId& to, const std::string& protocol, std::uint32_t) {
    return net.Open(*this, to, protocol);
  };
  streams = std::make_unique<AnswerStreams>(*backend, answers, std::move(options));
}

const Script kStory{.text = "one two three four five", .forever = true, .token_delay = milliseconds(5)};
const ClientLink kHere{[] { return false; }};

std::string TextOf(std::string_view stream) {
  std::string text;
  for (std::size_t begin = 0, end; (end = stream.find("\n\n", begin)) != std::string_view::npos; begin = end + 2) {
    const std::string_view event = stream.substr(begin, end - begin);
    if (event.substr(0, 7) != "data: {") continue;
    const Json json = Json::parse(event.substr(6, event.find('\n') - 6));
    text += json.contains("choices") ? json["choices"][0]["text"].get<std::string>() + "|" : json.dump();
  }
  return text;
}

std::string LastIdOf(const std::string& stream) {
  const std::size_t at = stream.rfind("\nid: ") + 5;
  return stream.substr(at, stream.find('\n', at) - at);
}

class AnswerStreamsTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i) nodes_.push_back(&net_.Add(kStory));
    net_.TellMembers();
  }
  std::string Read(TestNode& at, const ClientAsk& ask, std::size_t events_max = 1000, AnswerPeers* peers = nullptr) {
    ApiContext context = at.Context();
    if (peers != nullptr) context.peers = peers;
    const Reply reply = AnswerPost(context, ask, kBody, kHere);
    EXPECT_EQ(reply.status, 200) << reply.body;
    CountingSink sink(events_max);
    if (reply.stream) reply.stream(sink);
    return sink.text;
  }
  std::string Resume(TestNode& at, const std::string& id, const std::string& position, std::size_t events_max = 1000) {
    ApiContext context = at.Context();
    const Reply reply = AnswerResume(context, id, position, kHere);
    EXPECT_EQ(reply.status, 200) << reply.body;
    CountingSink sink(events_max);
    if (reply.stream) reply.stream(sink);
    return sink.text;
  }
  static ClientAsk Ask(const std::string& key = "") {
    ClientAsk ask;
    ask.dialect = Dialect::kCompletions;
    ask.idempotency_key = key;
    return ask;
  }
  std::size_t Generations() const {
    std::size_t generations = 0;
    for (TestNode* const node : nodes_) generations += node->backend->Requests().size();
    return generations;
  }
  static std::string IdOf(const std::string& stream) {
    return Json::parse(stream.substr(6, stream.find('\n') - 6))["id"].get<std::string>();
  }

  Net net_;
  std::vector<TestNode*> nodes_;
};

TEST_F(AnswerStreamsTest, AnAnswerIsReadAtAnyNodeWhileItsOwnLives) {
  const std::string whole = Read(*nodes_[0], Ask());
  for (TestNode* const node : nodes_) EXPECT_EQ(Resume(*node, IdOf(whole), ""), whole);
  EXPECT_EQ(nodes_[1]->backend->Requests().size() + nodes_[2]->backend->Requests().size(), 0U);
}

TEST_F(AnswerStreamsTest, TheKeeperGoesOnWhenTheNodeThatAnsweredIsLost) {
  const std::string want = TextOf(Read(*nodes_[0], Ask()));
  const std::string some = Read(*nodes_[0], Ask(), 12);
  const std::string id = IdOf(some);
  ASSERT_TRUE(Eventually([&] { return net_.KeeperOf(id) != nullptr; }));
  TestNode* const keeper = net_.KeeperOf(id);
  nodes_[0]->Die();
  for (TestNode* const node : {nodes_[1], nodes_[2]}) {
    EXPECT_EQ(TextOf(some) + TextOf(Resume(*node, id, LastIdOf(some))), want);
  }
  ASSERT_EQ(keeper->backend->Requests().size(), 1U) << "once, for both";
  EXPECT_GT(keeper->backend->Requests()[0].emitted, 0U) << "not from the beginning";
}

TEST_F(AnswerStreamsTest, AClientOfAThirdNodeDoesNotNoticeTheLoss) {
  const std::string want = TextOf(Read(*nodes_[0], Ask()));
  const std::string id = IdOf(Read(*nodes_[0], Ask("key"), 3));
  ASSERT_TRUE(Eventually([&] { return net_.KeeperOf(id) != nullptr; }));
  TestNode& third = net_.KeeperOf(id) == nodes_[1] ? *nodes_[2] : *nodes_[1];
  std::thread killer([&] {
    Eventually([&] { return nodes_[0]->answers.Find({id, {}})->Read(0, milliseconds(0)).entries.size() > 12; });
    nodes_[0]->Die();
    net_.TellMembers();
  });
  EXPECT_EQ(TextOf(Resume(third, id, "")), want);
  killer.join();
}

TEST_F(AnswerStreamsTest, AKeeperThatIsLostIsReplaced) {
  std::string all;
  std::thread client([&] { all = Read(*nodes_[0], Ask("key")); });
  TestNode* keeper = nullptr;
  std::string id;
  EXPECT_TRUE(Eventually([&] {
    for (const auto& answer : nodes_[0]->answers.InUse()) id = answer->record().id;
    return !id.empty() && (keeper = net_.KeeperOf(id)) != nullptr;
  }));
  if (keeper != nullptr) {
    keeper->Die();
    net_.TellMembers();
  }
  client.join();
  ASSERT_NE(keeper, nullptr);
  TestNode& other = keeper == nodes_[1] ? *nodes_[2] : *nodes_[1];
  ASSERT_TRUE(Eventually([&] { return net_.KeeperOf(id) == &other; }));
  nodes_[0]->Die();
  net_.TellMembers();
  EXPECT_EQ(TextOf(Resume(other, id, "")), TextOf(all));
}

TEST_F(AnswerStreamsTest, OneKeyIsOneGenerationWhicheverNodesAreAsked) {
  std::vector<std::string> read(3);
  std::vector<std::thread> clients;
  for (std::size_t i = 0; i < 3; ++i) clients.emplace_back([&, i] { read[i] = Read(*nodes_[i], Ask("same")); });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(read[0], read[1]);
  EXPECT_EQ(read[0], read[2]);
  EXPECT_EQ(Generations(), 1U);
  // Another body with that key, at any node.
  for (TestNode* const node : nodes_) {
    ApiContext context = node->Context();
    EXPECT_EQ(AnswerPost(context, Ask("same"), R"({"prompt":"Twice"})", kHere).status, 422);
  }
}

TEST_F(AnswerStreamsTest, WhoeverWaitsForAClaimThatGivesWayGoesWhereItWent) {
  LatePeers late(*nodes_[1]->streams);
  std::vector<std::string> read(4);
  std::vector<std::thread> clients;
  clients.emplace_back([&] { read[1] = Read(*nodes_[1], Ask("same"), 1000, &late); });
  EXPECT_TRUE(Eventually([&] { return late.asked.load(); }));
  // One that has to follow the second node's claim, from elsewhere and there; then one whose claim is stronger.
  clients.emplace_back([&] { read[2] = Read(*nodes_[2], Ask("same")); });
  clients.emplace_back([&] { read[3] = Read(*nodes_[1], Ask("same")); });
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(Generations(), 0U) << "nobody but the second node may start what it has not decided on";
  clients.emplace_back([&] { read[0] = Read(*nodes_[0], Ask("same")); });
  std::this_thread::sleep_for(milliseconds(100));
  late.may_ask = true;
  for (std::thread& client : clients) client.join();
  for (const std::string& one : read) EXPECT_EQ(one, read[0]);
  EXPECT_EQ(Generations(), 1U);
}

TEST_F(AnswerStreamsTest, TheSameCallAfterALossGivesTheWholeAnswer) {
  const std::string want = TextOf(Read(*nodes_[0], Ask()));
  const std::string id = IdOf(Read(*nodes_[0], Ask("again"), 8));
  ASSERT_TRUE(Eventually([&] { return net_.KeeperOf(id) != nullptr; }));
  nodes_[0]->Die();
  net_.TellMembers();
  ApiContext context = nodes_[1]->Context();
  const std::string whole = R"({"prompt":"Once","max_tokens":30,"seed":3})";
  const Reply reply = AnswerPost(context, Ask("again"), whole, kHere);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json answer = Json::parse(reply.body);
  EXPECT_EQ(answer["id"], id);
  std::string streamed = want;
  std::erase(streamed, '|');
  EXPECT_EQ(answer["choices"][0]["text"], streamed);
}

TEST_F(AnswerStreamsTest, WhatIsNoMessageEndsTheStreamAndNothingElse) {
  for (const char* protocol : {kKeepProtocol, kAnswerProtocol}) {
    const Result<int> fd = net_.Open(*nodes_[0], nodes_[1]->id, protocol);
    ASSERT_TRUE(fd.ok());
    const std::string garbage(100, 'x');
    EXPECT_EQ(::send(*fd, garbage.data(), garbage.size(), kNoSignal), 100);
    // Nothing but a frame that says that this is the end.
    char bytes[2 * kFrameHeaderBytes];
    EXPECT_LE(::recv(*fd, bytes, sizeof bytes, MSG_WAITALL), static_cast<ssize_t>(kFrameHeaderBytes));
    ::close(*fd);
  }
  const std::string whole = Read(*nodes_[0], Ask());
  EXPECT_EQ(Resume(*nodes_[1], IdOf(whole), ""), whole);
}

}  // namespace
}  // namespace shoal
