// Clients that lie, stall, leave or come in crowds: what they get, and that nothing of theirs stays.
#include <arpa/inet.h>
#include <cpp-httplib/httplib.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/json_input.h"
#include "api/scripted_backend_test.h"
#include "api/server.h"
#include "base/socket.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kHang{30'000};  // what takes longer will never happen

// A TCP client that sends what it is told and reads what comes.
class RawClient {
 public:
  explicit RawClient(int port) : sock_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    connected_ = ::connect(sock_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { Close(); }
  bool connected() const { return connected_; }
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(sock_, bytes.data(), bytes.size(), kNoSignal);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  // Everything until the server closes, `until` appears, or `limit` passes.
  std::string Read(const std::string& until = "", milliseconds limit = kHang) {
    std::string all;
    const auto deadline = steady_clock::now() + limit;
    while (steady_clock::now() < deadline && (until.empty() || all.find(until) == all.npos)) {
      pollfd entry{sock_, POLLIN, 0};
      if (::poll(&entry, 1, 50) <= 0) continue;
      char buffer[4096];
      const ssize_t n = ::recv(sock_, buffer, sizeof buffer, 0);
      ended_ = n <= 0;
      if (ended_) break;
      all.append(buffer, static_cast<std::size_t>(n));
    }
    return all;
  }
  bool ended() const { return ended_; }  // Read saw the server close
  void Close() {
    if (sock_ >= 0) ::close(sock_);
    sock_ = -1;
  }

 private:
  int sock_;
  bool connected_ = false, ended_ = false;
};

std::string PostText(const std::string& path, const std::string& body, const std::string& headers = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

class AbuseTest : public testing::Test {
 protected:
  void Serve(Script script, ServerOptions options = {}) {
    backend_ = std::make_shared<ScriptedBackend>(std::move(script));
    options.port = 0;
    server_ = Server::Make(backend_, options);
    ASSERT_TRUE(server_->Start().ok());
  }
  httplib::Client Client() const { return httplib::Client("127.0.0.1", server_->port()); }
  int port() const { return server_->port(); }
  double Metric(const std::string& name) {
    const std::string text = "\n" + backend_->registry.PrometheusText();
    const auto at = text.find("\n" + name + " ");
    return at == text.npos ? -1 : std::atof(text.c_str() + at + name.size() + 2);
  }

  std::shared_ptr<ScriptedBackend> backend_;
  std::unique_ptr<Server> server_;
};

const Script kForever{.text = "word ", .forever = true, .token_delay = milliseconds(5)};
const std::string kLongText = R"({"prompt":"x","max_tokens":100000})";
const std::string kLongStream = R"({"prompt":"x","max_tokens":100000,"stream":true})";

TEST_F(AbuseTest, ClientThatLeavesAStreamFreesItsSlot) {
  Serve(kForever);
  RawClient client(port());
  client.Send(PostText("/v1/completions", kLongStream));
  EXPECT_NE(client.Read("\"text\"").find("200 OK"), std::string::npos);
  EXPECT_EQ(backend_->alive, 1);
  client.Close();
  EXPECT_TRUE(Eventually([&] { return backend_->alive == 0 && Metric("shoal_requests_in_flight") == 0; }));
  EXPECT_EQ(Metric("shoal_client_disconnects_total"), 1);
}

TEST_F(AbuseTest, ClientThatLeavesWhileWaitingFreesItsSlot) {
  for (const std::string& body : {kLongText, kLongStream}) {
    Script silent = kForever;
    silent.token_delay = milliseconds(60'000);  // as in a long queue
    Serve(silent);
    RawClient client(port());
    client.Send(PostText("/v1/completions", body));
    ASSERT_TRUE(Eventually([&] { return backend_->alive == 1; }));
    client.Close();
    EXPECT_TRUE(Eventually([&] { return backend_->alive == 0 && Metric("shoal_requests_in_flight") == 0; }));
    // The server did not fail.
    EXPECT_TRUE(
        Eventually([&] { return Metric("shoal_http_requests_total{route=\"/v1/completions\",status=\"499\"}") == 1; }));
    EXPECT_EQ(Metric("shoal_http_requests_total{route=\"/v1/completions\",status=\"503\"}"), -1);
  }
}

TEST_F(AbuseTest, OneGenerationTooManyIsRefusedAndThenServed) {
  ServerOptions options;
  options.requests_max = 2;
  Serve(kForever, options);
  RawClient busy(port());
  busy.Send(PostText("/v1/completions", R"({"prompt":"x","n":2,"max_tokens":100000})"));
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 2; }));
  auto client = Client();
  const auto refused = client.Post("/v1/completions", R"({"prompt":"x","max_tokens":1})", "application/json");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->get_header_value("Retry-After"), "1");
  EXPECT_EQ(Json::parse(refused->body)["error"]["code"], "rate_limit_exceeded");
  busy.Close();
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 0; }));
  EXPECT_EQ(client.Post("/v1/completions", R"({"prompt":"x","max_tokens":1})", "application/json")->status, 200);
  const auto never = client.Post("/v1/completions", R"({"prompt":"x","n":3})", "application/json");
  EXPECT_EQ(never->status, 400);  // waiting would not help
}

TEST_F(AbuseTest, HugeBodyIsRefusedBeforeItIsRead) {
  ServerOptions options;
  options.body_bytes_max = 1U << 20;
  Serve({.text = "x"}, options);
  // By its stated length: the answer comes though the client sends on.
  RawClient client(port());
  client.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n");
  const std::string chunk(1U << 20, 'x');
  for (int i = 0; i < 100 && client.Send(chunk); ++i) {}
  const std::string answer = client.Read();
  EXPECT_NE(answer.find(" 413 "), std::string::npos) << answer;
  EXPECT_NE(answer.find("\"request_too_large\""), std::string::npos);
  // Without a stated length: once the limit is passed.
  RawClient chunked(port());
  chunked.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 4 && chunked.Send("100000\r\n" + chunk + "\r\n"); ++i) {}
  EXPECT_NE(chunked.Read().find(" 413 "), std::string::npos);
  EXPECT_EQ(Client().Get("/health")->status, 200);
}

TEST_F(AbuseTest, SlowHeadersAndSlowBodiesEndAtTheirDeadline) {
  ServerOptions options;
  options.read_timeout_s = 1;
  Serve({.text = "x"}, options);
  for (const std::string& start :
       {std::string("POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "),
        std::string("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n")}) {
    const auto begin = steady_clock::now();
    RawClient client(port());
    client.Send(start);
    std::string answer;
    // A byte each 100 ms: each read is in time, the whole never.
    while (answer.empty() && steady_clock::now() - begin < kHang) {
      client.Send("a");
      answer = client.Read("\r\n", milliseconds(100));
    }
    EXPECT_NE(answer.find(" 408 "), std::string::npos) << answer;
  }
  // Silence from the start is closed without a word.
  RawClient silent(port());
  EXPECT_EQ(silent.Read("", kHang), "");
  EXPECT_TRUE(silent.ended());
  EXPECT_TRUE(Eventually([&] { return Metric("shoal_http_connections") == 0; }));
}

TEST_F(AbuseTest, SlowClientsCannotTakeAllConnections) {
  ServerOptions options;
  options.connections_max = 4;
  options.read_timeout_s = 1;
  Serve({.text = "x"}, options);
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(std::make_unique<RawClient>(port()));
    slow.back()->Send("GET /health HT");
  }
  ASSERT_TRUE(Eventually([&] { return Metric("shoal_http_connections") == 4; }));
  RawClient refused(port());
  refused.Send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(refused.Read().find(" 503 "), std::string::npos);
  // Their time ends, and others are served again.
  EXPECT_TRUE(Eventually([&] {
    const auto r = Client().Get("/health");
    return r && r->status == 200;
  }));
}

TEST_F(AbuseTest, ManyAtOnceNeverWaitBehindOneAnother) {
  Serve(kForever);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    EXPECT_TRUE(clients.back()->Send(PostText("/v1/completions", kLongStream)));
  }
  EXPECT_TRUE(Eventually([&] { return backend_->alive == 40; })) << "none has ended";
  for (auto& client : clients) {
    EXPECT_NE(client->Read("\"text\"").find("200 OK"), std::string::npos);
    client->Close();
  }
  EXPECT_TRUE(Eventually([&] { return backend_->alive == 0; }));
}

TEST_F(AbuseTest, BadHttpGetsShapedErrors) {
  Serve({.text = "x"});
  const auto ask = [&](const std::string& bytes) {
    RawClient client(port());
    client.Send(bytes);
    const std::string answer = client.Read();
    const auto body = answer.find("\r\n\r\n");
    EXPECT_NE(body, answer.npos) << answer;
    if (body != answer.npos && bytes.rfind("HEAD", 0) != 0) {
      EXPECT_FALSE(Json::parse(answer.substr(body + 4))["error"]["message"].get<std::string>().empty());
    }
    return answer.substr(9, 3);
  };
  EXPECT_EQ(ask("NONSENSE\r\n\r\n"), "400");
  EXPECT_EQ(ask("GET /health HTTP/1.1\r\nX: " + std::string(200'000, 'a') + "\r\n\r\n"), "431");
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "404");
  EXPECT_EQ(ask("DELETE /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "405");
  EXPECT_EQ(ask("GET /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "405");
  EXPECT_EQ(ask("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "400");
  EXPECT_EQ(ask(PostText("/v1/completions", "{nope")), "400");
  EXPECT_EQ(ask(PostText("/v1/completions", std::string(500'000, '['))), "400");
  EXPECT_EQ(ask(PostText("/v1/completions", "--b--", "Content-Type: multipart/form-data; boundary=b\r\n")), "415");
  EXPECT_EQ(Client().Get("/health")->status, 200);
}

TEST_F(AbuseTest, KeepAliveAndPipelining) {
  Serve({.text = "x"});
  RawClient client(port());
  const std::string body = R"({"prompt":"x"})";
  client.Send(PostText("/v1/completions", body) + PostText("/v1/completions", body) +
              "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string all = client.Read("\"ok\"}");
  std::size_t answers = 0;
  for (auto at = all.find("HTTP/1.1 200"); at != all.npos; at = all.find("HTTP/1.1 200", at + 1)) ++answers;
  EXPECT_EQ(answers, 3U) << all;
  EXPECT_EQ(Metric("shoal_http_connections"), 1);
}

TEST_F(AbuseTest, OldHttpGetsAStreamItCanRead) {
  Serve({.text = "a b"});
  RawClient client(port());
  const std::string body = R"({"prompt":"x","stream":true})";
  client.Send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  const std::string answer = client.Read();
  EXPECT_EQ(answer.find("chunked"), answer.npos);
  EXPECT_NE(answer.find("\r\n\r\ndata: {"), answer.npos) << answer;
  EXPECT_NE(answer.find("data: [DONE]\n\n"), answer.npos);
}

TEST_F(AbuseTest, TheKeyGuardsAllButHealth) {
  ServerOptions options;
  options.api_key = "s3cret";
  Serve({.text = "x"}, options);
  auto client = Client();
  EXPECT_EQ(client.Get("/health")->status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/nowhere"}) {
    const auto refused = client.Get(path);
    ASSERT_TRUE(refused) << path;
    EXPECT_EQ(refused->status, 401) << path;
    EXPECT_EQ(Json::parse(refused->body)["error"]["code"], "invalid_api_key");
  }
  for (const char* value : {"Bearer", "Bearer x", "Bearer s3cre", "Bearer s3crett", "Bearer s3creT", "s3cret",
                            "Basic s3cret", "Bearer s3crets3cret"}) {
    const auto refused = client.Get("/v1/models", httplib::Headers{{"Authorization", value}});
    ASSERT_TRUE(refused) << value;
    EXPECT_EQ(refused->status, 401) << value;
  }
  EXPECT_EQ(client.Get("/v1/models", httplib::Headers{{"Authorization", "Bearer s3cret"}})->status, 200);
}

TEST_F(AbuseTest, BrowsersMayAsk) {
  ServerOptions options;
  options.api_key = "s3cret";
  options.cors_origin = "https://app.example";
  Serve({.text = "x"}, options);
  auto client = Client();
  const auto preflight = client.Options(
      "/v1/chat/completions", httplib::Headers{{"Origin", "https://app.example"},
                                               {"Access-Control-Request-Method", "POST"},
                                               {"Access-Control-Request-Headers", "authorization,x-stainless-os"}});
  EXPECT_EQ(preflight->status, 204);
  EXPECT_EQ(preflight->get_header_value("Access-Control-Allow-Origin"), "https://app.example");
  EXPECT_EQ(preflight->get_header_value("Access-Control-Allow-Headers"), "authorization,x-stainless-os");
  EXPECT_NE(preflight->get_header_value("Access-Control-Allow-Methods").find("POST"), std::string::npos);
  const auto refused = client.Get("/v1/models");  // errors must be readable by the page too
  EXPECT_EQ(refused->status, 401);
  EXPECT_EQ(refused->get_header_value("Access-Control-Allow-Origin"), "https://app.example");
  EXPECT_EQ(refused->get_header_value_count("Access-Control-Allow-Origin"), 1U);
}

TEST_F(AbuseTest, StopLetsAnswersEndThenCutsTheRest) {
  Serve({.text = "a b c d e f", .token_delay = milliseconds(50)});
  RawClient client(port());
  client.Send(PostText("/v1/completions", R"({"prompt":"x","stream":true})"));
  EXPECT_NE(client.Read("\"text\"").find("200"), std::string::npos);
  server_->Stop(5000);
  EXPECT_NE(client.Read().find("[DONE]"), std::string::npos);
  EXPECT_FALSE(RawClient(port()).connected());

  Serve(kForever);
  RawClient endless(port());
  RawClient idle(port());
  endless.Send(PostText("/v1/completions", kLongStream));
  EXPECT_NE(endless.Read("\"text\"").find("200"), std::string::npos);
  const auto begin = steady_clock::now();
  server_->Stop(200);
  EXPECT_LT(steady_clock::now() - begin, kHang);
  EXPECT_EQ(backend_->alive, 0);
}

TEST_F(AbuseTest, AddressInUseIsAnError) {
  Serve({.text = "x"});
  ServerOptions options;
  options.port = port();
  const Status second = Server::Make(backend_, options)->Start();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace shoal
