// The commands' client against a scripted node behind a real socket: answers, errors, streams, nobody there.
#include "api/control_client.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "api/scripted_backend_test.h"
#include "api/scripted_control_test.h"
#include "api/server.h"
#include "apps/cli/commands.h"
#include "apps/cli/conversation.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/holders.h"
#include "apps/cli/status_text.h"

namespace shoal::cli {
namespace {

class ControlClientTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/shoal-client-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    home_ = folder;
    ::setenv("SHOAL_HOME", home_.c_str(), 1);
  }
  void TearDown() override {
    server_.reset();
    ::rmdir(home_.c_str());
  }
  void Serve(Script script = {.text = "Hello there"}) {
    backend_ = std::make_shared<ScriptedBackend>(std::move(script));
    ServerOptions options;
    options.unix_socket = home_ + "/control.sock";
    server_ = Server::Make(backend_, options, control_);
    const Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started.error().message;
  }

  std::string home_;
  std::shared_ptr<ScriptedBackend> backend_;
  std::shared_ptr<ScriptedControl> control_ = std::make_shared<ScriptedControl>();
  std::unique_ptr<Server> server_;
};

TEST_F(ControlClientTest, NobodyThereIsSaidSo) {
  const ControlClient client = NodeHere();
  EXPECT_FALSE(client.NodeRuns());
  const auto status = client.GetStatus();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(status.error().message, "no node runs here: start one with `shoal up`");
  EXPECT_EQ(ExitCodeFor(status.error().code), kExitUnavailable);
  EXPECT_EQ(client.Stream("/v1/completions", "{}", [](const Json&) { return true; }).error().code,
            ErrorCode::kUnavailable);
  const ControlClient long_path(home_ + "/" + std::string(200, 'x'), [] { return false; });
  EXPECT_EQ(long_path.GetStatus().error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ControlClientTest, EveryCommandReachesTheNode) {
  Serve();
  const ControlClient client = NodeHere();
  ASSERT_TRUE(client.NodeRuns());
  control_->status = TwoNodes();
  EXPECT_EQ(client.GetStatus()->nodes[1].state, "suspect");
  EXPECT_EQ(client.Invite()->code, "AAAA-BBBB-CCCC-DDDD");
  const auto placed = client.Place({"smollm2", "2", {"alpha", "beta"}, 512, 3, "f32"});
  ASSERT_TRUE(placed.ok());
  EXPECT_EQ(placed->stages[0].layers, (LayerRange{0, 30}));
  EXPECT_EQ(control_->placed[0].nodes, (std::vector<std::string>{"alpha", "beta"}));
  EXPECT_EQ(control_->placed[0].slots, 3);
  EXPECT_TRUE(client.Unplace("smollm2").ok());
  EXPECT_TRUE(client.Revoke("beta").ok());
  EXPECT_TRUE(client.Join({"AAAA", "", {}}).ok());
  EXPECT_TRUE(client.Leave().ok());
  EXPECT_EQ(control_->notes,
            (std::vector<std::string>{"unplace smollm2", "revoke beta", "join AAAA as '' by 0", "leave"}));
}

TEST_F(ControlClientTest, ErrorsKeepTheirCodeAndMessage) {
  Serve();
  for (const ErrorCode code : {ErrorCode::kNotFound, ErrorCode::kUnsupported, ErrorCode::kOutOfMemory,
                               ErrorCode::kUnavailable, ErrorCode::kInternal, ErrorCode::kStale}) {
    control_->failure = Error{code, "because"};
    const auto placed = NodeHere().Place({"m", "", {}, 0, 8, "f16"});
    ASSERT_FALSE(placed.ok());
    EXPECT_EQ(placed.error().code, code);
    EXPECT_EQ(placed.error().message, "because");
  }
  EXPECT_EQ(NodeHere().Unplace("").error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ControlClientTest, ACallThatIsNotWantedAnyMoreEnds) {
  Serve({.text = "word ", .forever = true, .token_delay = std::chrono::milliseconds(60'000)});
  std::atomic<bool> cancelled{false};
  const ControlClient client(home_ + "/control.sock", [&] { return cancelled.load(); });
  Status status;
  std::thread call([&] {
    status = client.Stream("/v1/completions", R"({"prompt":"x","stream":true,"max_tokens":1000})",
                           [](const Json&) { return true; });
  });
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  cancelled = true;
  call.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(Eventually([&] { return backend_->alive == 0; }));  // the node let go of it too
}

TEST_F(ControlClientTest, ConversationPlacesTheModelThenStreams) {
  Serve();
  const ControlClient client = NodeHere();
  RunOptions options;
  options.model.model = "smollm2";
  options.model.quiet = true;
  options.raw = true;
  options.tokens_max = 5;
  options.stops = {"zebra"};
  auto conversation = ClusterConversation(client, options, {});
  ASSERT_TRUE(conversation.ok()) << conversation.error().message;
  ASSERT_EQ(control_->placed.size(), 1U);
  EXPECT_EQ(control_->placed[0].stages, "");
  std::string shown;
  const auto answer = (*conversation)->Ask("Say hello", [&](TextKind, const std::string& text) { shown += text; });
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->text, "Hello there");
  EXPECT_EQ(shown, "Hello there");
  EXPECT_EQ(answer->tokens, *SmolLm2Vocabulary()->Tokenize("Hello there", false, true));
  EXPECT_EQ(answer->prompt_tokens, static_cast<std::int32_t>(backend_->Requests()[0].prompt.size()));
  EXPECT_EQ(answer->finish, "stop");
  EXPECT_EQ(backend_->Requests()[0].tokens_max, 5);
  ASSERT_EQ((*conversation)->StagesJson().size(), 1U);
  EXPECT_EQ((*conversation)->StagesJson()[0]["layers"], "0-29");

  // Placed now: not again. A chat remembers its turns.
  options.raw = false;
  conversation = ClusterConversation(client, options, {});
  ASSERT_TRUE(conversation.ok());
  EXPECT_EQ(control_->placed.size(), 1U);
  ASSERT_TRUE((*conversation)->Ask("One", [](TextKind, const std::string&) {}).ok());
  const auto second = (*conversation)->Ask("Two", [](TextKind, const std::string&) {});
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->message.content, "Hello there");
  const auto requests = backend_->Requests();
  EXPECT_GT(requests[2].prompt.size(), requests[1].prompt.size() + answer->tokens.size());
}

TEST_F(ControlClientTest, ConversationSaysWhatFailed) {
  Serve({.text = "some text", .end = GenerationEnd::kError, .error = {ErrorCode::kUnavailable, "stage 1 is gone"}});
  control_->status = TwoNodes();
  const ControlClient client = NodeHere();
  RunOptions options;
  options.model.model = "smollm2.gguf";
  options.raw = true;
  auto conversation = ClusterConversation(client, options, {});
  ASSERT_TRUE(conversation.ok());
  const auto late = (*conversation)->Ask("x", [](TextKind, const std::string&) {});
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().message, "stage 1 is gone");
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  backend_->context_tokens = 4;
  const auto early = (*conversation)->Ask(std::string(3000, 'x'), [](TextKind, const std::string&) {});
  ASSERT_FALSE(early.ok());
  EXPECT_EQ(early.error().code, ErrorCode::kContextFull);
  EXPECT_NE(early.error().message.find("4 tokens"), std::string::npos) << early.error().message;
  options.local_only = "--cpus";
  const auto refused = ClusterConversation(client, options, {});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST(EventReader, EventsInAnyPieces) {
  const std::string stream = ": waiting\n\n: waiting\ndata: {\"n\":1}\nid: 1\n\ndata: {\"n\":2}\n\ndata: [DONE]\n\n";
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    EventReader reader;
    int sum = 0;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      EXPECT_TRUE(reader.Add(std::string_view(stream).substr(at, piece), [&](const Json& event) {
        sum += event["n"].get<int>();
        return true;
      }));
    }
    EXPECT_EQ(sum, 3);
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(reader.rest(), "");
  }
}

TEST(EventReader, WhatIsNoStreamIsCorrupt) {
  for (const char* bytes : {"hello\n\n", "data: {\n\n", "data: 7\n\n", "event: x\n\n"}) {
    EventReader reader;
    EXPECT_FALSE(reader.Add(bytes, [](const Json&) { return true; }));
    ASSERT_TRUE(reader.error().has_value()) << bytes;
    EXPECT_EQ(reader.error()->code, ErrorCode::kCorrupt);
  }
  EventReader endless;
  const std::string chunk(1U << 20, 'x');
  bool more = true;
  int chunks = 0;
  while (more && chunks < 100) {
    more = endless.Add(chunk, [](const Json&) { return true; });
    ++chunks;
  }
  EXPECT_LT(chunks, 10);
  EXPECT_EQ(endless.error()->code, ErrorCode::kCorrupt);
}

TEST(Holders, HaveLayersOfThatVeryModelAndAreThere) {
  ClusterStatus cluster = TwoNodes();
  const ModelStatus model = cluster.nodes[0].models.front();
  cluster.nodes[1].models = {model, model};
  cluster.nodes[1].models[0].fingerprint = 7;  // another model of that name
  cluster.nodes[1].models[1].name = "called otherwise";
  cluster.nodes[1].models[1].held = {{10, 20}};
  const std::vector<Holder> holders = HoldersOf(cluster, model.fingerprint);
  ASSERT_EQ(holders.size(), 2U);
  EXPECT_EQ(holders[0].node, "alpha");
  EXPECT_EQ(holders[0].layers, model.held);
  EXPECT_EQ(holders[1].node, "beta");
  EXPECT_EQ(LayersText(holders[1].layers, 30), "10-19 of 30");
  EXPECT_TRUE(AllLayersHeld(holders, 30));
  EXPECT_FALSE(AllLayersHeld(holders, 31));
  EXPECT_FALSE(AllLayersHeld({holders[0]}, 30)) << "layers 10-19 are nowhere";
  EXPECT_FALSE(AllLayersHeld({holders[1]}, 20)) << "nor are 0-9";
  const nlohmann::json json = HoldersJson(holders);
  EXPECT_EQ(json[1], nlohmann::json::parse(R"({"node":"beta","held":[{"first":10,"last":19}],"held_bytes":60000000})"));

  ASSERT_EQ(OtherModels(cluster, {model.fingerprint}).size(), 1U);
  EXPECT_EQ(OtherModels(cluster, {model.fingerprint}).front().fingerprint, 7U);
  EXPECT_EQ(OtherModels(cluster, {}).size(), 2U) << "each once";

  cluster.nodes[1].models[1].held = {};
  cluster.nodes[1].models[1].held_bytes = 0;  // has heard of it
  EXPECT_EQ(HoldersOf(cluster, model.fingerprint).size(), 1U);
  cluster.nodes[0].state = "dead";
  EXPECT_TRUE(HoldersOf(cluster, model.fingerprint).empty());
}

TEST(Holders, LayersAsText) {
  EXPECT_EQ(LayersText({{0, 30}}, 30), "all 30");
  EXPECT_EQ(LayersText({{0, 10}, {20, 21}, {25, 30}}, 30), "0-9, 20, 25-29 of 30");
  EXPECT_EQ(LayersText({}, 30), "none of 30");
}

TEST(StatusText, ShowsNodesLinksAndStages) {
  const std::string text = StatusText(TwoNodes());
  for (const char* words : {"alpha (here) (owner)", "suspect", "1.5 ms", "11.4 MiB/s", "5.0 GiB of 8.0 GiB",
                            "http://10.0.0.1:8080/v1", "smollm2: live", "0-9", "10-29", "smollm2 (0-9, 20-29 of 30)"}) {
    EXPECT_NE(text.find(words), std::string::npos) << words << " is not in\n" << text;
  }
  ClusterStatus hostile = TwoNodes();
  hostile.nodes[1].name = "\033[2Jboo\n";
  hostile.nodes[1].state = "\x07";
  const std::string shown = StatusText(hostile);
  EXPECT_EQ(shown.find('\033'), std::string::npos);
  EXPECT_EQ(shown.find('\x07'), std::string::npos);
  hostile.placements.clear();
  EXPECT_NE(StatusText(hostile).find("shoal place MODEL"), std::string::npos);
}

}  // namespace
}  // namespace shoal::cli
