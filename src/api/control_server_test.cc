// The control routes over a real Unix socket: who may open it, what is answered, and what malformed requests get.
#include "api/control_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>

#include <cpp-httplib/httplib.h>

#include "api/control_json.h"
#include "api/scripted_backend_test.h"
#include "api/scripted_control_test.h"
#include "api/server.h"
#include "api/unix_socket.h"

namespace shoal {
namespace {

class ControlServerTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/shoal-control-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    path_ = folder_ + "/control.sock";
  }
  void TearDown() override {
    server_.reset();
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }
  Status Serve() {
    ServerOptions options;
    options.unix_socket = path_;
    options.api_key = "";
    server_ = Server::Make(backend_, options, control_);
    return server_->Start();
  }
  httplib::Client Client() const {
    httplib::Client client(path_, 80);
    client.set_address_family(AF_UNIX);
    return client;
  }
  // Status and body.
  std::pair<int, Json> Post(const std::string& path, const std::string& body) const {
    const auto result = Client().Post(path, body, "application/json");
    if (!result) return {0, {}};
    return {result->status, Json::parse(result->body)};
  }

  std::string folder_, path_;
  std::shared_ptr<ScriptedBackend> backend_ = std::make_shared<ScriptedBackend>(Script{.text = "Hello there"});
  std::shared_ptr<ScriptedControl> control_ = std::make_shared<ScriptedControl>();
  std::unique_ptr<Server> server_;
};

TEST_F(ControlServerTest, OnlyTheOwnerMayOpenItAndTheApiIsThereToo) {
  ASSERT_TRUE(Serve().ok());
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0600);
  EXPECT_EQ(Client().Get("/health")->status, 200);
  EXPECT_EQ(Json::parse(Client().Get("/v1/models")->body)["data"][0]["id"], "smollm2");
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x"})").second["choices"][0]["text"], "Hello there");
  EXPECT_NE(Client().Get("/metrics")->body.find("route=\"/v1/completions\""), std::string::npos);
  server_->Stop(100);
  EXPECT_NE(::stat(path_.c_str(), &info), 0);
}

TEST_F(ControlServerTest, StatusSurvivesTheWayThereAndBack) {
  control_->status = TwoNodes();
  ASSERT_TRUE(Serve().ok());
  const auto answer = Client().Get("/control/status");
  ASSERT_TRUE(answer);
  const Json json = Json::parse(answer->body);
  EXPECT_EQ(json["nodes"][0]["device"]["memory_bytes"], 8ULL << 30);
  EXPECT_EQ(json["placements"][0]["stages"][0]["last"], 9);
  const Result<ClusterStatus> back = ParseClusterStatus(answer->body);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(DumpJson(ToJson(*back)), DumpJson(ToJson(TwoNodes())));
  EXPECT_EQ(back->placements[0].epoch, (Epoch{3} << 32) | 0xFFFFFFFF);
  EXPECT_EQ(back->placements[0].stages[1].layers, (LayerRange{10, 30}));
  EXPECT_EQ(back->placements[0].observed, (ObservedSpeeds{12.5, 40, 7.5, 0}));
  EXPECT_TRUE(json["placements"][0]["observed"]["prompt_tokens_s"].is_null()) << "it was not measured";
}

TEST_F(ControlServerTest, CommandsReachTheServiceAndItsErrorsComeBack) {
  ASSERT_TRUE(Serve().ok());
  EXPECT_EQ(Post("/control/invite", "{}").second["code"], "AAAA-BBBB-CCCC-DDDD");
  PlaceCommand command{"smollm2", "0-9,10-29", {"alpha", "12D3b"}, 2048, 4, "bf16", "energy"};
  const auto [status, placed] = Post("/control/place", DumpJson(ToJson(command)));
  EXPECT_EQ(status, 200);
  EXPECT_EQ(placed["state"], "live");
  ASSERT_EQ(control_->placed.size(), 1U);
  EXPECT_EQ(DumpJson(ToJson(control_->placed[0])), DumpJson(ToJson(command)));
  EXPECT_EQ(Post("/control/unplace", R"({"model":"smollm2"})").first, 200);
  EXPECT_EQ(Post("/control/revoke", R"({"node":"beta"})").first, 200);
  EXPECT_EQ(Post("/control/models", "{}").first, 200);
  EXPECT_EQ(Post("/control/join", R"({"code":"AAAA","name":"desk","peers":["10.0.0.1:48100"]})").first, 200);
  EXPECT_EQ(Post("/control/leave", "").first, 200);
  EXPECT_EQ(control_->notes, (std::vector<std::string>{"unplace smollm2", "revoke beta", "models",
                                                       "join AAAA as 'desk' by 1", "leave"}));

  for (const ErrorCode code : {ErrorCode::kNotFound, ErrorCode::kUnsupported, ErrorCode::kOutOfMemory,
                               ErrorCode::kUnavailable, ErrorCode::kInvalidArgument, ErrorCode::kInternal}) {
    control_->failure = Error{code, "why \xFF"};
    const auto refused = Client().Post("/control/invite", "{}", "application/json");
    ASSERT_TRUE(refused);
    EXPECT_GE(refused->status, 400);
    EXPECT_EQ(ParseControlError(refused->status, refused->body).code, code);
    EXPECT_EQ(Json::parse(refused->body)["error"]["message"], "why \xEF\xBF\xBD");
  }
}

TEST_F(ControlServerTest, MalformedRequestsAreRefusedAndReachNobody) {
  ASSERT_TRUE(Serve().ok());
  const std::string long_name(256, 'x');
  Json many_nodes = {{"model", "m"}, {"nodes", std::vector<std::string>(kControlNodesMax + 1, "n")}};
  for (const std::string& body : {std::string(""),
                                  std::string("{"),
                                  std::string("[]"),
                                  std::string("null"),
                                  std::string("{}"),
                                  std::string(R"({"model":7})"),
                                  std::string(R"({"model":""})"),
                                  R"({"model":")" + long_name + "\"}",
                                  std::string(R"({"model":"m","slots":0})"),
                                  std::string(R"({"model":"m","slots":1.5})"),
                                  std::string(R"({"model":"m","context_tokens":-1})"),
                                  std::string(R"({"model":"m","context_tokens":99999999999})"),
                                  std::string(R"({"model":"m","wire":"f64"})"),
                                  std::string(R"({"model":"m","goal":"cheap"})"),
                                  std::string(R"({"model":"m","nodes":"alpha"})"),
                                  std::string(R"({"model":"m","nodes":[1]})"),
                                  std::string(R"({"model":"m","nodes":[""]})"),
                                  std::string(R"({"model":"m","stagse":"3"})"),
                                  std::string(R"({"model":"m","stages":3})"),
                                  many_nodes.dump(),
                                  std::string(kControlBodyBytesMax + 1, ' '),
                                  std::string("{\"model\":\"\xC3\"}"),
                                  std::string(100'000, '[')}) {
    const auto [status, answer] = Post("/control/place", body);
    EXPECT_EQ(status, 400) << body.substr(0, 80);
    EXPECT_EQ(answer["error"]["code"], "invalid_argument") << body.substr(0, 80);
    EXPECT_FALSE(answer["error"]["message"].get<std::string>().empty());
  }
  EXPECT_EQ(Post("/control/leave", R"({"now":true})").first, 400);
  EXPECT_EQ(Post("/control/join", R"({"name":"desk"})").first, 400);
  EXPECT_EQ(Post("/control/join", R"({"code":"AAAA","peers":[7]})").first, 400);
  EXPECT_EQ(Post("/control/unplace", R"({"model":"m","node":"n"})").first, 400);
  EXPECT_EQ(Post("/control/revoke", "{}").first, 400);
  EXPECT_TRUE(control_->placed.empty());
  EXPECT_TRUE(control_->notes.empty());
  EXPECT_EQ(Client().Get("/control/place")->status, 405);
  EXPECT_EQ(Client().Post("/control/status", "", "application/json")->status, 405);
  EXPECT_EQ(Client().Get("/control/other")->status, 404);
}

TEST_F(ControlServerTest, TheNetworkHasNoControlRoutes) {
  ServerOptions options;
  options.port = 0;
  server_ = Server::Make(backend_, options);
  ASSERT_TRUE(server_->Start().ok());
  httplib::Client client("127.0.0.1", server_->port());
  EXPECT_EQ(client.Get("/control/status")->status, 404);
  EXPECT_EQ(client.Post("/control/leave", "{}", "application/json")->status, 404);
  EXPECT_TRUE(control_->notes.empty());
}

TEST_F(ControlServerTest, StaleFilesAreReplacedLiveOnesAndOthersAreNot) {
  // A server that died leaves its file.
  const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path_.begin(), path_.end(), address.sun_path);
  ASSERT_EQ(::bind(dead, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(dead);
  EXPECT_FALSE(SomebodyListens(path_));
  ASSERT_TRUE(Serve().ok());
  EXPECT_TRUE(SomebodyListens(path_));

  ServerOptions options;
  options.unix_socket = path_;
  const Status second = Server::Make(backend_, options, control_)->Start();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(Client().Get("/health")->status, 200);  // the first one is unharmed
  server_.reset();

  std::ofstream(path_) << "a file of somebody";
  const Status refused = Serve();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(::access(path_.c_str(), F_OK), 0);
}

TEST_F(ControlServerTest, PathsThatNoSocketCanHaveAreRefused) {
  path_ = folder_ + "/" + std::string(120, 'x');
  const Status refused = Serve();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("SHOAL_HOME"), std::string::npos);
  path_ = folder_ + "/no-such-folder/s";
  EXPECT_EQ(Serve().error().code, ErrorCode::kUnavailable);
}

TEST(ControlJson, AnswersThatBreakTheShapeAreCorrupt) {
  for (const char* body : {"", "{", "[]", "{}", R"({"code":1})", R"({"nodes":[]})"}) {
    const auto status = ParseClusterStatus(body);
    ASSERT_FALSE(status.ok()) << body;
    EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
    EXPECT_FALSE(ParseInviteStatus(body).ok());
    EXPECT_FALSE(ParsePlacementStatus(body).ok());
  }
  const auto odd = ParseClusterStatus(R"({"self":1,"cluster":null,"nodes":[1,{"id":"n","cores":"x"}],"links":{},
      "placements":[{"stages":[null,{"first":-1,"last":2147483647}]}]})");
  ASSERT_TRUE(odd.ok());
  EXPECT_EQ(odd->nodes.size(), 1U);
  EXPECT_EQ(odd->nodes[0].id, "n");
  EXPECT_EQ(odd->placements[0].stages.size(), 1U);
}

TEST(ControlJson, ErrorsOfEveryShapeHaveACode) {
  EXPECT_EQ(ParseControlError(503, "").code, ErrorCode::kUnavailable);
  EXPECT_EQ(ParseControlError(404, R"({"error":{"message":"no","code":"model_not_found"}})").code,
            ErrorCode::kNotFound);
  EXPECT_EQ(ParseControlError(404, R"({"error":{"message":"no","code":"model_not_found"}})").message, "no");
  EXPECT_EQ(ParseControlError(400, R"({"error":{"message":"m","code":"out_of_memory"}})").code,
            ErrorCode::kOutOfMemory);
  EXPECT_EQ(ParseControlError(500, "[1]").code, ErrorCode::kInternal);
}

}  // namespace
}  // namespace shoal
