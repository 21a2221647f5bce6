// Answers that clients come back to: ids of events, streams that go on, keys that name an answer, what is kept.
#include "api/answering.h"

#include <cpp-httplib/httplib.h>
#include <gtest/gtest.h>

#include "api/json_input.h"
#include "api/scripted_backend_test.h"
#include "api/server.h"

namespace shoal {
namespace {

constexpr const char* kJson = "application/json";
constexpr const char* kStory = R"({"prompt":"Once","max_tokens":40,"stream":true,"seed":3})";

struct Event {
  std::string text, id;  // the whole of it, "\n\n" included; its id, or empty
};

std::vector<Event> EventsOf(const std::string& body) {
  std::vector<Event> events;
  for (std::size_t begin = 0; begin < body.size();) {
    const std::size_t end = body.find("\n\n", begin);
    if (end == std::string::npos) {
      ADD_FAILURE() << "half an event: " << body.substr(begin);
      break;
    }
    Event event{body.substr(begin, end + 2 - begin), ""};
    const std::size_t id = event.text.find("\nid: ");
    if (id != std::string::npos) event.id = event.text.substr(id + 5, event.text.find('\n', id + 1) - id - 5);
    events.push_back(std::move(event));
    begin = end + 2;
  }
  return events;
}

std::string Joined(const std::vector<Event>& events, std::size_t from) {
  std::string text;
  for (std::size_t i = from; i < events.size(); ++i) text += events[i].text;
  return text;
}

// Of a stream of events: the id of the response.
std::string IdOf(const std::string& body) {
  return Json::parse(body.substr(6, body.find('\n') - 6))["id"].get<std::string>();
}

class AnsweringTest : public testing::Test {
 protected:
  void Serve(Script script, ServerOptions options = {}) {
    backend_ = std::make_shared<ScriptedBackend>(std::move(script));
    options.port = 0;
    server_ = Server::Make(backend_, options);
    const Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started.error().message;
  }
  httplib::Client Client() const { return httplib::Client("127.0.0.1", server_->port()); }
  httplib::Response Post(const std::string& body, const httplib::Headers& headers = {},
                         const std::string& path = "/v1/completions") {
    const auto result = Client().Post(path, headers, body, kJson);
    if (result) return *result;
    ADD_FAILURE() << httplib::to_string(result.error());
    return {};
  }
  httplib::Response Resume(const std::string& id, const std::string& position = "") {
    const auto result = Client().Get("/v1/stream/" + id, httplib::Headers{{"Last-Event-ID", position}});
    if (result) return *result;
    ADD_FAILURE() << httplib::to_string(result.error());
    return {};
  }
  // Reads a stream until it has `events` of them, then leaves. What it read.
  std::string ReadSome(const std::string& body, std::size_t events, const httplib::Headers& headers = {}) {
    std::string text;
    const auto result = Client().Post("/v1/completions", headers, body, kJson, [&](const char* data, std::size_t size) {
      text.append(data, size);
      return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) < 3 * events;
    });
    text.erase(text.rfind("\n\n") + 2);
    return text;
  }

  std::shared_ptr<ScriptedBackend> backend_;
  std::unique_ptr<Server> server_;
};

TEST_F(AnsweringTest, AStreamGoesOnAfterAnyOfItsEvents) {
  Serve({.text = "One two three four five", .reused = 2});
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const std::string body = Post(R"({"prompt":"x","messages":[{"role":"user","content":"hi"}],"max_tokens":50,
        "stream":true,"stream_options":{"include_usage":true}})",
                                  {}, path)
                                 .body;
    const std::vector<Event> events = EventsOf(body);
    ASSERT_GE(events.size(), 7U);
    EXPECT_EQ(Resume(IdOf(body)).body, body);
    std::set<std::string> ids;
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
      ASSERT_NE(events[i].id, "") << events[i].text;
      EXPECT_TRUE(ids.insert(events[i].id).second) << events[i].id;
      EXPECT_EQ(Resume(IdOf(body), events[i].id).body, Joined(events, i + 1));
    }
    EXPECT_EQ(events.back().text, "data: [DONE]\n\n");
    EXPECT_EQ(events.back().id, "");
  }
  EXPECT_EQ(backend_->Requests().size(), 2U) << "reading again generates nothing";
}

// With several choices the order of their events is not the same in every run: an id counts for each choice.
TEST_F(AnsweringTest, ManyChoicesGoOnEachWhereItWas) {
  Serve({.text = "a b c d e f", .token_delay = std::chrono::milliseconds(2)});
  const std::string body = Post(R"({"prompt":["x","y"],"n":2,"stream":true,"echo":true})").body;
  const std::vector<Event> events = EventsOf(body);
  for (const std::size_t after : {std::size_t{2}, events.size() / 2, events.size() - 2}) {
    EXPECT_EQ(std::count(events[after].id.begin(), events[after].id.end(), '-'), 3) << events[after].id;
    std::vector<std::string> want(4), got(4);
    const auto add = [](std::vector<std::string>& texts, const std::string& event) {
      if (event == "data: [DONE]\n\n") return;
      const Json choice = Json::parse(event.substr(6, event.find('\n') - 6))["choices"][0];
      texts[choice["index"].get<std::size_t>()] += choice["text"].get<std::string>() + "|";
    };
    for (std::size_t i = after + 1; i < events.size(); ++i) add(want, events[i].text);
    for (const Event& event : EventsOf(Resume(IdOf(body), events[after].id).body)) add(got, event.text);
    EXPECT_EQ(got, want);
  }
}

TEST_F(AnsweringTest, WhatCannotBeGoneOnWithIsSaid) {
  Serve({.text = "One two"});
  EXPECT_EQ(Resume("cmpl-aaaaaaaaaaaaaaaaaaaaaaaa").status, 404);
  EXPECT_EQ(Resume(std::string(3000, 'a')).status, 404);
  const std::string id = IdOf(Post(kStory).body);
  for (const char* wrong : {"x", "1-2", "-1", "1-", "end", "99999999999999999999999"}) {
    const httplib::Response refused = Resume(id, wrong);
    EXPECT_EQ(refused.status, 400) << wrong;
    EXPECT_EQ(Json::parse(refused.body)["error"]["param"], "Last-Event-ID");
  }
  EXPECT_EQ(Resume(id, "4000").body, "data: [DONE]\n\n");  // more than there is: nothing is missing
}

TEST_F(AnsweringTest, OneKeyIsOneGenerationStreamedOrNot) {
  Serve({.text = "One two three", .token_delay = std::chrono::milliseconds(20)});
  const httplib::Headers key{{"Idempotency-Key", "k1"}};
  const std::string streamed = R"({"prompt":"x","max_tokens":50,"stream":true})",
                    whole = R"({"max_tokens":50,"prompt":"x"})";
  std::string stream;
  std::thread first([&] { stream = Post(streamed, key).body; });
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 1; }));
  const Json answer = Json::parse(Post(whole, key).body);
  first.join();
  EXPECT_EQ(answer["choices"][0]["text"], "One two three");
  EXPECT_EQ(answer["id"], IdOf(stream));
  EXPECT_EQ(Post(streamed, key).body, stream);
  EXPECT_EQ(backend_->Requests().size(), 1U);

  const httplib::Response other = Post(R"({"prompt":"y","max_tokens":50})", key);
  EXPECT_EQ(other.status, 422);
  EXPECT_EQ(Json::parse(other.body)["error"]["code"], "idempotency_key_reused");
  EXPECT_EQ(Post(whole, {{"Idempotency-Key", std::string(256, 'k')}}).status, 400);
  // Another client's key of the same name is another key; so is the same one at another address.
  EXPECT_EQ(Post(streamed, {{"Idempotency-Key", "k1"}, {"Authorization", "Bearer other"}}).status, 200);
  EXPECT_EQ(Post(R"({"messages":[{"role":"user","content":"hi"}]})", key, "/v1/chat/completions").status, 200);
  EXPECT_EQ(backend_->Requests().size(), 3U);
}

TEST_F(AnsweringTest, AKeyWhoseRequestFailedIsFree) {
  Serve({.text = "One"});
  const httplib::Headers key{{"Idempotency-Key", "k2"}};
  {
    const std::lock_guard lock(backend_->mutex);
    backend_->refuse_after = 0;
  }
  EXPECT_EQ(Post(R"({"prompt":"x"})", key).status, 429);
  EXPECT_EQ(Post(R"({"prompt":"y"})", key).status, 200);
}

TEST_F(AnsweringTest, AnAnswerThatNobodyReadsStopsAndGoesOnWhenSomebodyDoes) {
  Serve({.text = "one two three four", .forever = true, .token_delay = std::chrono::milliseconds(5)});
  const std::string want = Joined(EventsOf(Post(kStory).body), 0);
  const std::string some = ReadSome(kStory, 5);
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 0; }));
  const std::vector<Event> events = EventsOf(some);
  const std::string rest = Resume(IdOf(some), events.back().id).body;
  EXPECT_GT(backend_->Requests().back().emitted, 0U);
  EXPECT_LT(backend_->Requests().back().emitted, 40U);
  const auto texts = [](const std::string& body) {
    std::string text;
    for (const Event& event : EventsOf(body)) {
      if (event.id.empty()) continue;
      text +=
          Json::parse(event.text.substr(6, event.text.find('\n') - 6))["choices"][0]["text"].get<std::string>() + "|";
    }
    return text;
  };
  EXPECT_EQ(texts(some) + texts(rest), texts(want));
}

TEST_F(AnsweringTest, WhatIsToBeKeptGoesOnForAWhile) {
  ServerOptions options;
  options.keep_grace_ms = 700;
  Serve({.text = "word ", .forever = true, .token_delay = std::chrono::milliseconds(10)}, options);
  const std::string unkept = R"({"prompt":"x","max_tokens":2000,"stream":true})";
  ReadSome(unkept, 2);
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 0; }));
  const std::string id = IdOf(ReadSome(unkept, 2, {{"Shoal-Keep", "true"}}));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(backend_->alive, 1) << "it is kept";
  EXPECT_EQ(backend_->Requests().size(), 2U);
  ASSERT_TRUE(Eventually([&] { return backend_->alive == 0; })) << "but not for ever";
  ReadSome(unkept, 2, {{"Idempotency-Key", "k"}});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(backend_->alive, 1) << "a key asks for it too";
}

TEST_F(AnsweringTest, ALateFailureCanBeGoneOnWith) {
  Serve({.text = "some text", .end = GenerationEnd::kError, .error = {ErrorCode::kUnavailable, "a node is gone"}});
  const std::string body = Post(kStory).body;
  const std::vector<Event> events = EventsOf(body);
  EXPECT_NE(events.back().text.find("a node is gone"), std::string::npos);
  EXPECT_EQ(events.back().id, "");
  const std::size_t shown = events.size() - 1;
  const std::string again = Resume(IdOf(body), events[shown - 1].id).body;
  EXPECT_NE(again.find("a node is gone"), std::string::npos);
  EXPECT_EQ(backend_->Requests().back().emitted, shown);
}

TEST_F(AnsweringTest, AStreamNeedsTheServersKey) {
  ServerOptions options;
  options.api_key = "secret";
  Serve({.text = "One"}, options);
  const httplib::Headers key{{"Authorization", "Bearer secret"}};
  const std::string id = IdOf(Post(kStory, key).body);
  EXPECT_EQ(Resume(id).status, 401);
  EXPECT_EQ(Client().Get("/v1/stream/" + id, key)->status, 200);
  EXPECT_EQ(Client().Post("/v1/stream/" + id, key, "{}", kJson)->status, 405);
}

// ---- The store ------------------------------------------------------------------------------------------------------

AnswerRecord RecordOf(const std::string& id, std::size_t body_bytes = 10) {
  AnswerRecord record;
  record.id = id;
  record.body.assign(body_bytes, 'x');
  return record;
}

TEST(Answers, KeepsOnlySoManyOldOnesAndSoManyBytes) {
  MetricsRegistry registry;
  AnswersOptions options;
  options.kept_max = 8;
  options.kept_bytes_max = 100'000;
  Answers answers(registry, options);
  for (int i = 0; i < 50; ++i) answers.Claim(RecordOf("own-" + std::to_string(i)));
  for (int i = 0; i < 50; ++i) answers.AddCopy(RecordOf("copy-" + std::to_string(i)));
  const auto known = [&](const std::string& prefix) {
    int count = 0;
    for (int i = 0; i < 50; ++i) count += answers.Find({prefix + std::to_string(i), {}}) != nullptr ? 1 : 0;
    return count;
  };
  EXPECT_LE(known("own-"), 8);
  EXPECT_GE(known("own-"), 6);
  EXPECT_LE(known("copy-"), 8);
  EXPECT_NE(answers.Find({"own-49", {}}), nullptr);
  EXPECT_EQ(answers.Find({"own-0", {}}), nullptr);
  answers.Claim(RecordOf("large", 200'000));
  for (int i = 0; i < 8; ++i) answers.Claim(RecordOf("after-" + std::to_string(i)));
  EXPECT_EQ(answers.Find({"large", {}}), nullptr);
  EXPECT_NE(answers.Find({"copy-49", {}}), nullptr) << "copies have room of their own";
}

TEST(Answers, ACopyIsFoundByItsKeyOnceTheClaimThatHidItGaveWay) {
  MetricsRegistry registry;
  Answers answers(registry, AnswersOptions{});
  AnswerRecord record = RecordOf("own");
  record.key.fill(1);
  const auto own = answers.Claim(record).answer;
  record.id = "theirs";
  const auto copy = answers.AddCopy(record);
  EXPECT_EQ(answers.Find({"", record.key}), own);
  answers.Drop(own);
  EXPECT_EQ(own->WaitForClaim(std::chrono::milliseconds(0)), Answer::Claim::kGivenWay);
  EXPECT_EQ(answers.Find({"", record.key}), copy);
}

TEST(Answers, ACopyTakesWhatFollowsAndNothingElse) {
  MetricsRegistry registry;
  Answers answers(registry, AnswersOptions{});
  const auto copy = answers.AddCopy(RecordOf("a"));
  ASSERT_NE(copy, nullptr);
  std::vector<AnswerEntry> entries(4);
  for (int i = 0; i < 4; ++i) entries[static_cast<std::size_t>(i)].token.token = i;
  EXPECT_TRUE(copy->Receive(0, {entries[0], entries[1]}));
  EXPECT_TRUE(copy->Receive(1, {entries[1], entries[2]}));  // the beginning is known
  EXPECT_FALSE(copy->Receive(5, {entries[3]}));             // one is missing
  const auto news = copy->Read(0, std::chrono::milliseconds(0));
  ASSERT_EQ(news.entries.size(), 3U);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(news.entries[static_cast<std::size_t>(i)].token.token, i);
  EXPECT_EQ(answers.AddCopy(RecordOf("a")), copy);         // its node chose this keeper again
  EXPECT_EQ(answers.AddCopy(RecordOf("a", 11)), nullptr);  // another answer of that id
  const auto own = answers.Claim(RecordOf("b")).answer;
  EXPECT_EQ(answers.AddCopy(RecordOf("b")), nullptr);
  EXPECT_FALSE(own->is_copy());
}

}  // namespace
}  // namespace shoal
