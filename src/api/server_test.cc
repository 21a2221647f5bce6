// The answers' shapes over a real socket, with a scripted backend: chat, text completions, streams, models, metrics.
#include "api/server.h"

#include <cpp-httplib/httplib.h>
#include <gtest/gtest.h>

#include "api/json_input.h"
#include "api/scripted_backend_test.h"

namespace shoal {
namespace {

constexpr const char* kJson = "application/json";

// ChatML whose calls are JSON objects in <tool_call> tags.
constexpr const char* kToolTemplate = R"({%- if tools %}
{{- '<|im_start|>system\nTools:' }}
{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}
{{- '\nA call is\n<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %})";

class ServerTest : public testing::Test {
 protected:
  void Serve(Script script, ServerOptions options = {}) {
    backend_ = std::make_shared<ScriptedBackend>(std::move(script));
    options.port = 0;
    server_ = Server::Make(backend_, options);
    const Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started.error().message;
    client_ = std::make_unique<httplib::Client>("127.0.0.1", server_->port());
    client_->set_keep_alive(true);
  }
  Json Post(const std::string& path, const std::string& body, int status = 200) {
    const auto result = client_->Post(path, body, kJson);
    if (!result) {
      ADD_FAILURE() << "no answer: " << httplib::to_string(result.error());
      return {};
    }
    EXPECT_EQ(result->status, status) << result->body;
    EXPECT_EQ(result->get_header_value("Content-Type"), kJson);
    return Json::parse(result->body);
  }
  Json Chat(const std::string& fields) {
    return Post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}])" + fields + "}");
  }
  // The data of each event, without [DONE], which must be last if `done`.
  std::vector<Json> Events(const std::string& path, const std::string& body, bool done = true) {
    const auto result = client_->Post(path, body, kJson);
    std::vector<Json> events;
    if (!result) {
      ADD_FAILURE() << httplib::to_string(result.error());
      return events;
    }
    EXPECT_EQ(result->status, 200) << result->body;
    EXPECT_EQ(result->get_header_value("Content-Type"), "text/event-stream");
    std::string rest = result->body;
    bool ended = false;
    for (std::size_t end = rest.find("\n\n"); end != rest.npos; end = rest.find("\n\n")) {
      std::string event = rest.substr(0, end);
      rest.erase(0, end + 2);
      EXPECT_FALSE(ended) << event;
      for (; event[0] == ':'; ++comments_) event.erase(0, event.find('\n') + 1);
      if (event == "data: [DONE]")
        ended = true;
      else
        events.push_back(Json::parse(event.substr(6, event.find("\nid: ") - 6)));
    }
    EXPECT_EQ(rest, "");
    EXPECT_EQ(ended, done);
    return events;
  }

  std::shared_ptr<ScriptedBackend> backend_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<httplib::Client> client_;
  int comments_ = 0;
};

TEST_F(ServerTest, ChatAnswerHasOpenAisShape) {
  Serve({.text = "Hello there", .reused = 3});
  const Json answer = Chat(R"(,"seed":5,"max_tokens":50)");
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "smollm2");
  EXPECT_EQ(answer["id"].get<std::string>().substr(0, 9), "chatcmpl-");
  ASSERT_EQ(answer["choices"].size(), 1U);
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "Hello there");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["logprobs"].is_null());
  const auto requests = backend_->Requests();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].sampling.seed, 5U);
  EXPECT_EQ(requests[0].tokens_max, 50);
  const Json& usage = answer["usage"];
  EXPECT_EQ(usage["prompt_tokens"], requests[0].prompt.size());
  EXPECT_EQ(usage["completion_tokens"], SmolLm2Vocabulary()->Tokenize("Hello there", false, true)->size());
  EXPECT_EQ(usage["total_tokens"].get<int>(),
            usage["prompt_tokens"].get<int>() + usage["completion_tokens"].get<int>());
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 3);
  EXPECT_EQ(backend_->alive, 0);
}

TEST_F(ServerTest, ChatStreamIsRoleDeltasReasonUsage) {
  Serve({.text = "One two three"});
  const auto events = Events("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],"stream":true,
      "stream_options":{"include_usage":true}})");
  ASSERT_GE(events.size(), 4U);
  EXPECT_EQ(events.front()["choices"][0]["delta"]["role"], "assistant");
  std::string text, reason;
  for (std::size_t i = 0; i + 1 < events.size(); ++i) {
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
    EXPECT_TRUE(events[i].contains("usage") && events[i]["usage"].is_null());
    const Json& choice = events[i]["choices"][0];
    text += choice["delta"].value("content", "");
    if (!choice["finish_reason"].is_null()) reason += choice["finish_reason"].get<std::string>();
  }
  EXPECT_EQ(text, "One two three");
  EXPECT_EQ(reason, "stop");
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_GT(events.back()["usage"]["completion_tokens"].get<int>(), 0);
}

TEST_F(ServerTest, StopStringsAcrossTokensEndTheAnswerAndTheGeneration) {
  Serve({.text = " apples and oranges and pears", .forever = true});
  const Json answer = Post("/v1/completions", R"({"prompt":"x","max_tokens":500,"stop":["s and pe"],"logprobs":1})");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["text"], " apples and orange");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_LT(answer["usage"]["completion_tokens"].get<int>(), 10);
  EXPECT_EQ(backend_->alive, 0);
  // The reports cover the shown text, not what lies within the stop string.
  std::string joined;
  for (const Json& token : choice["logprobs"]["tokens"]) joined += token.get<std::string>();
  EXPECT_EQ(joined.rfind(" apples and orange", 0), 0U) << joined;
  EXPECT_EQ(joined.find(" pe"), joined.npos) << joined;
  EXPECT_EQ(choice["logprobs"]["text_offset"][0], 0);
}

TEST_F(ServerTest, LengthIsAReason) {
  Serve({.text = "word ", .forever = true});
  EXPECT_EQ(Chat(R"(,"max_tokens":7)")["choices"][0]["finish_reason"], "length");
  const Json text = Post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(text["usage"]["completion_tokens"], 16);
  EXPECT_EQ(text["choices"][0]["finish_reason"], "length");
}

TEST_F(ServerTest, ChoicesHaveTheirOwnSeedsAndIndexes) {
  Serve({.text = "a b c d", .token_delay = std::chrono::milliseconds(3)});
  const Json answer = Chat(R"(,"n":3,"seed":40)");
  ASSERT_EQ(answer["choices"].size(), 3U);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  std::vector<std::uint64_t> seeds;
  for (const auto& request : backend_->Requests()) seeds.push_back(request.sampling.seed);
  EXPECT_EQ(seeds, (std::vector<std::uint64_t>{40, 41, 42}));
  // The prompt counts once.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], backend_->Requests()[0].prompt.size());

  const auto events = Events("/v1/completions", R"({"prompt":"x","n":3,"stream":true})");
  std::string texts[3];
  bool interleaved = false;
  int ended = 0;
  for (const Json& event : events) {
    const Json& choice = event["choices"][0];
    const int index = choice["index"].get<int>();
    if (index == 0 && !texts[1].empty() && ended == 0) interleaved = true;
    texts[index] += choice["text"].get<std::string>();
    if (!choice["finish_reason"].is_null()) ++ended;
  }
  for (const std::string& text : texts) EXPECT_EQ(text, "a b c d");
  EXPECT_EQ(ended, 3);
  EXPECT_TRUE(interleaved);
}

TEST_F(ServerTest, CompletionPromptsOfAllShapesAndEcho) {
  Serve({.text = " yes"});
  const Json two = Post("/v1/completions", R"({"prompt":["Am I?","Are you?"],"echo":true,"n":2})");
  ASSERT_EQ(two["choices"].size(), 4U);
  EXPECT_EQ(two["choices"][1]["text"], "Am I? yes");
  EXPECT_EQ(two["choices"][2]["text"], "Are you? yes");
  const auto tokens = *SmolLm2Vocabulary()->Tokenize("Am I?", true, true);
  EXPECT_EQ(Post("/v1/completions", Json({{"prompt", tokens}, {"echo", true}}).dump())["choices"][0]["text"],
            "Am I? yes");
  EXPECT_EQ(backend_->Requests().back().prompt, tokens);
  const Json none = Post("/v1/completions", R"({"prompt":"Am I?","echo":true,"max_tokens":0})");
  EXPECT_EQ(none["choices"][0]["text"], "Am I?");
  EXPECT_EQ(none["usage"]["completion_tokens"], 0);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":[999999]})", 400)["error"]["param"], "prompt");
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x","logit_bias":{"999999":1}})", 400)["error"]["param"],
            "logit_bias");
}

TEST_F(ServerTest, LogprobsInBothShapes) {
  Serve({.text = "caf\xC3\xA9 \xF0\x9F\x90\x9F."});
  const Json chat = Chat(R"(,"logprobs":true,"top_logprobs":2)");
  const Json& content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_GE(content.size(), 3U);
  std::string bytes;
  for (const Json& token : content) {
    EXPECT_EQ(token["top_logprobs"].size(), 2U);
    EXPECT_FLOAT_EQ(token["logprob"].get<float>(), -0.5F);
    for (const Json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
  }
  EXPECT_EQ(bytes, "caf\xC3\xA9 \xF0\x9F\x90\x9F.");  // also where a token is half a character
  EXPECT_EQ(chat["choices"][0]["message"]["content"], bytes);

  std::size_t streamed = 0;
  for (const Json& event : Events("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],"stream":true,
      "logprobs":true,"top_logprobs":2})")) {
    const Json& logprobs = event["choices"][0]["logprobs"];
    if (!logprobs.is_null()) streamed += logprobs["content"].size();
  }
  EXPECT_EQ(streamed, content.size());

  const Json text = Post("/v1/completions", R"({"prompt":"x","logprobs":2})")["choices"][0]["logprobs"];
  EXPECT_EQ(text["tokens"].size(), content.size());
  EXPECT_EQ(text["token_logprobs"].size(), content.size());
  EXPECT_EQ(text["top_logprobs"][0].size(), 2U);
  EXPECT_EQ(text["text_offset"].back(), 6);  // characters: c a f é space fish
}

TEST_F(ServerTest, EarlyFailureIsAStatusLateFailureAnEvent) {
  Serve({.text = "", .end = GenerationEnd::kError, .error = {ErrorCode::kUnavailable, "stage 1 is gone"}});
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x","stream":true})", 503)["error"]["message"], "stage 1 is gone");
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x"})", 503)["error"]["message"], "stage 1 is gone");
  Serve({.text = "some text", .end = GenerationEnd::kError, .error = {ErrorCode::kUnavailable, "stage 1 is gone"}});
  const auto events = Events("/v1/completions", R"({"prompt":"x","stream":true})", false);
  ASSERT_GE(events.size(), 2U);
  EXPECT_EQ(events.back()["error"]["message"], "stage 1 is gone");
  EXPECT_EQ(backend_->alive, 0);
}

TEST_F(ServerTest, BackendRefusalsHaveTheirStatus) {
  Serve({.text = "x"});
  const auto refuse = [&](ErrorCode code, int after) {
    const std::lock_guard lock(backend_->mutex);
    backend_->refusal = {code, "no"};
    backend_->refuse_after = after;
  };
  refuse(ErrorCode::kOverloaded, 2);  // the third of three: the two that started must go
  const auto busy = client_->Post("/v1/completions", R"({"prompt":"x","n":3,"stream":true})", kJson);
  ASSERT_TRUE(busy);
  EXPECT_EQ(busy->status, 429);
  EXPECT_EQ(busy->get_header_value("Retry-After"), "1");
  EXPECT_EQ(backend_->alive, 0);
  refuse(ErrorCode::kContextFull, 0);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x"})", 400)["error"]["code"], "context_length_exceeded");
  refuse(ErrorCode::kUnavailable, 0);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x"})", 503)["error"]["type"], "server_error");
  backend_->refuse_after = -1;
  backend_->context_tokens = 4;
  EXPECT_EQ(Post("/v1/completions", Json({{"prompt", std::string(2000, 'x')}}).dump(), 400)["error"]["code"],
            "context_length_exceeded");
}

TEST_F(ServerTest, ModelsAndTheirNames) {
  Serve({.text = "x"});
  const auto get = [&](const std::string& path) { return Json::parse(client_->Get(path)->body); };
  EXPECT_EQ(get("/v1/models")["data"][0]["id"], "smollm2");
  EXPECT_EQ(get("/v1/models/smollm2")["object"], "model");
  EXPECT_EQ(get("/v1/models/other/one")["error"]["code"], "model_not_found");
  for (const char* name : {"smollm2", "smollm2.gguf", "default", ""}) {
    Post("/v1/completions", Json({{"prompt", "x"}, {"model", name}}).dump());
  }
  const Json refused = Post("/v1/completions", R"({"prompt":"x","model":"gpt-4"})", 404);
  EXPECT_EQ(refused["error"]["code"], "model_not_found");
  EXPECT_EQ(refused["error"]["param"], "model");
}

// Several models, which may come and go.
class ManyModels final : public Service {
 public:
  std::vector<ModelCard> models() override {
    std::vector<ModelCard> cards;
    for (const auto& backend : backends) cards.push_back(backend->model());
    return cards;
  }
  std::shared_ptr<Backend> Find(const std::string& model) override {
    for (const auto& backend : backends)
      if (IsServedModel(backend->model(), model)) return backend;
    return nullptr;
  }
  bool healthy() const override { return true; }
  MetricsRegistry& metrics() override { return registry; }
  void RefreshMetrics() override {}

  std::vector<std::shared_ptr<ScriptedBackend>> backends;
  MetricsRegistry registry;
};

TEST_F(ServerTest, SeveralModelsOneOrNone) {
  const auto service = std::make_shared<ManyModels>();
  ServerOptions options;
  options.port = 0;
  server_ = Server::Make(service, options);
  ASSERT_TRUE(server_->Start().ok());
  client_ = std::make_unique<httplib::Client>("127.0.0.1", server_->port());
  const auto get = [&](const std::string& path) { return Json::parse(client_->Get(path)->body); };
  const auto text = [&](const std::string& model) {
    return Post("/v1/completions", Json({{"prompt", "x"}, {"model", model}}).dump())["choices"][0]["text"];
  };
  EXPECT_TRUE(get("/v1/models")["data"].empty());
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const Json none = Post(path, R"({"prompt":"x","messages":[{"role":"user","content":"hi"}],"model":"b"})", 503);
    EXPECT_NE(none["error"]["message"].get<std::string>().find("shoal place MODEL"), std::string::npos);
    EXPECT_EQ(none["error"]["type"], "server_error");
  }
  service->backends = {std::make_shared<ScriptedBackend>(Script{.text = "from a"}, "a"),
                       std::make_shared<ScriptedBackend>(Script{.text = "from b"}, "b")};
  EXPECT_EQ(get("/v1/models")["data"].size(), 2U);
  EXPECT_EQ(get("/v1/models/b.gguf")["id"], "b");
  EXPECT_EQ(text("b"), "from b");
  EXPECT_EQ(text("a.gguf"), "from a");
  EXPECT_EQ(text("default"), "from a");
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":"x","model":"c"})", 404)["error"]["code"], "model_not_found");
}

TEST_F(ServerTest, ARequestHoldsItsModelUntilItEnds) {
  const auto service = std::make_shared<ManyModels>();
  service->backends = {
      std::make_shared<ScriptedBackend>(Script{.text = "a b c d", .token_delay = std::chrono::milliseconds(100)}, "a")};
  const std::weak_ptr<ScriptedBackend> model = service->backends[0];
  ServerOptions options;
  options.port = 0;
  server_ = Server::Make(service, options);
  ASSERT_TRUE(server_->Start().ok());
  client_ = std::make_unique<httplib::Client>("127.0.0.1", server_->port());
  std::string text;
  std::thread request([&] { text = Post("/v1/completions", R"({"prompt":"x"})")["choices"][0]["text"]; });
  ASSERT_TRUE(Eventually([&] {
    const auto held = model.lock();
    return held != nullptr && held->alive == 1;
  }));
  service->backends.clear();
  EXPECT_FALSE(model.expired());
  request.join();
  EXPECT_EQ(text, "a b c d");
  EXPECT_TRUE(Eventually([&] { return model.expired(); }));
}

TEST_F(ServerTest, TokenIdsWhenAskedFor) {
  Serve({.text = "One two three"});
  const std::vector<TokenId> said = *SmolLm2Vocabulary()->Tokenize("One two three", false, true);
  const std::string messages = R"("messages":[{"role":"user","content":"hi"}])";
  for (const auto& [path, fields] : {std::pair<std::string, std::string>{"/v1/completions", R"("prompt":"Hello you")"},
                                     {"/v1/chat/completions", messages}}) {
    const Json whole = Post(path, "{" + fields + R"(,"return_token_ids":true,"n":2})");
    const auto prompt_tokens = backend_->Requests().back().prompt.size();
    EXPECT_EQ(whole["prompt_tokens"], prompt_tokens);
    ASSERT_EQ(whole["choices"].size(), 2U);
    for (const Json& choice : whole["choices"]) EXPECT_EQ(choice["token_ids"].get<std::vector<TokenId>>(), said);
    std::vector<TokenId> streamed;
    for (const Json& event : Events(path, "{" + fields + R"(,"return_token_ids":true,"stream":true})")) {
      EXPECT_EQ(event["prompt_tokens"], prompt_tokens);
      if (!event["choices"][0].contains("token_ids")) continue;
      for (const Json& id : event["choices"][0]["token_ids"]) streamed.push_back(id.get<TokenId>());
    }
    EXPECT_EQ(streamed, said);
    const Json plain = Post(path, "{" + fields + "}");
    EXPECT_FALSE(plain.contains("prompt_tokens"));
    EXPECT_FALSE(plain["choices"][0].contains("token_ids"));
    EXPECT_EQ(Post(path, "{" + fields + R"(,"return_token_ids":1})", 400)["error"]["param"], "return_token_ids");
  }
}

TEST_F(ServerTest, HealthAndMetrics) {
  Serve({.text = "x y", .reused = 2});
  EXPECT_EQ(client_->Get("/health")->status, 200);
  backend_->healthy_flag = false;
  EXPECT_EQ(client_->Get("/health")->status, 503);
  Chat("");
  client_->Get("/nowhere");
  const std::string text = client_->Get("/metrics")->body;
  EXPECT_EQ(backend_->refreshes, 1);
  for (const char* line :
       {"shoal_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1\n",
        "shoal_http_requests_total{route=\"/health\",status=\"503\"} 1\n",
        "shoal_http_requests_total{route=\"other\",status=\"404\"} 1\n", "shoal_requests_in_flight 0\n",
        "shoal_time_to_first_token_seconds_count 1\n", "shoal_request_seconds_count 1\n",
        "shoal_completion_tokens_total 2\n", "shoal_prompt_cached_tokens_total 2\n"}) {
    EXPECT_NE(text.find(line), text.npos) << line << " is not in\n" << text;
  }
}

TEST_F(ServerTest, ToolCallsAreParsedAndStreamed) {
  Serve({.text = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>"});
  backend_->template_source = kToolTemplate;
  const std::string body = R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":
      {"name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}])";
  const Json answer = Post("/v1/chat/completions", body + "}");
  const Json& message = answer["choices"][0]["message"];
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "tool_calls");
  ASSERT_EQ(message["tool_calls"].size(), 1U) << answer;
  EXPECT_EQ(message["tool_calls"][0]["type"], "function");
  EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "weather");
  EXPECT_EQ(Json::parse(message["tool_calls"][0]["function"]["arguments"].get<std::string>())["city"], "Oslo");
  EXPECT_FALSE(message["tool_calls"][0]["id"].get<std::string>().empty());
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_FALSE(backend_->Requests()[0].sampling.grammar.empty());

  std::string name, arguments, reason;
  int ids = 0;
  for (const Json& event : Events("/v1/chat/completions", body + ",\"stream\":true}")) {
    const Json& choice = event["choices"][0];
    if (!choice["finish_reason"].is_null()) reason = choice["finish_reason"].get<std::string>();
    if (!choice["delta"].contains("tool_calls")) continue;
    const Json& call = choice["delta"]["tool_calls"][0];
    ids += call.contains("id") ? 1 : 0;
    name += call["function"].value("name", "");
    arguments += call["function"].value("arguments", "");
  }
  EXPECT_EQ(ids, 1);
  EXPECT_EQ(name, "weather");
  EXPECT_EQ(Json::parse(arguments)["city"], "Oslo");
  EXPECT_EQ(reason, "tool_calls");
}

TEST_F(ServerTest, RequiredToolGoesBeforeAResponseFormat) {
  const std::string body =
      R"({"messages":[{"role":"user","content":"hi"}],"tool_choice":"required","tools":[{"type":"function",
      "function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},
      "required":["city"]}}}],"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object",
      "properties":{"never":{"type":"integer"}},"required":["never"]}}}})";
  Serve({.text = R"({"name": "weather", "arguments": {"city": "Oslo"}})"});
  const Json answer = Post("/v1/chat/completions", body);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "tool_calls") << answer;
  const std::string grammar = backend_->Requests().back().sampling.grammar;
  EXPECT_NE(grammar.find("weather"), std::string::npos);
  EXPECT_EQ(grammar.find("never"), std::string::npos);
}

TEST_F(ServerTest, RequiredToolIsCalledThoughTheTemplateKnowsNone) {
  Serve({.text = R"({"name": "weather", "arguments": {"city": "Oslo"}})"});
  const std::string body =
      R"({"messages":[{"role":"user","content":"hi"}],"tool_choice":"required","tools":[{"type":"function",
      "function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"$ref":"#/$defs/city"}},
      "required":["city"],"$defs":{"city":{"type":"string"}}}}},{"type":"function","function":{"name":"time"}}])";
  const Json answer = Post("/v1/chat/completions", body + "}");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  ASSERT_TRUE(choice["message"].contains("tool_calls")) << answer;
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "weather");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"city":"Oslo"})");
  const auto requests = backend_->Requests();
  EXPECT_NE(requests[0].sampling.grammar.find("weather"), std::string::npos);
  EXPECT_NE(requests[0].sampling.grammar.find("time"), std::string::npos);
  // Cut off, it is no call and no text of one.
  const Json cut = Post("/v1/chat/completions", body + ",\"max_tokens\":3}")["choices"][0];
  EXPECT_EQ(cut["finish_reason"], "length");
  EXPECT_EQ(cut["message"]["content"], "");
}

TEST_F(ServerTest, SilentStreamsAreKeptAlive) {
  ServerOptions options;
  options.stream_comment_ms = 200;
  Serve({.text = "x", .token_delay = std::chrono::milliseconds(2000)}, options);
  const auto events = Events("/v1/completions", R"({"prompt":"x","stream":true})");
  EXPECT_EQ(events.front()["choices"][0]["text"], "x");
  EXPECT_GE(comments_, 3);
}

}  // namespace
}  // namespace shoal
