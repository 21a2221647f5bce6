// The request parsers: every field's meaning, every refusal's `param`, and JSON that attacks.
#include "api/openai_requests.h"

#include <gtest/gtest.h>

#include <cmath>

#include "api/json_input.h"

namespace shoal {
namespace {

ChatCompletionRequest Chat(const std::string& fields) {
  ChatCompletionRequest request;
  const auto error = ParseChatCompletionRequest(
      R"({"messages":[{"role":"user","content":"hi"}])" + (fields.empty() ? "" : "," + fields) + "}", request);
  EXPECT_FALSE(error.has_value()) << fields << ": " << (error ? error->message : "");
  return request;
}

ApiError ChatError(const std::string& body) {
  ChatCompletionRequest request;
  const auto error = ParseChatCompletionRequest(body, request);
  EXPECT_TRUE(error.has_value()) << body;
  return error.value_or(ApiError{});
}

std::string BadField(const std::string& fields) {
  const ApiError error = ChatError(R"({"messages":[{"role":"user","content":"hi"}],)" + fields + "}");
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.type, "invalid_request_error");
  EXPECT_NE(error.message.find(error.param), std::string::npos) << error.message;
  return error.param;
}

CompletionRequest Text(const std::string& body) {
  CompletionRequest request;
  const auto error = ParseCompletionRequest(body, request);
  EXPECT_FALSE(error.has_value()) << body << ": " << (error ? error->message : "");
  return request;
}

std::string BadText(const std::string& body) {
  CompletionRequest request;
  const auto error = ParseCompletionRequest(body, request);
  EXPECT_TRUE(error.has_value()) << body;
  return error ? error->param : "";
}

TEST(OpenAiRequests, SamplingFieldsArriveAsGiven) {
  const auto r = Chat(R"("temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"typical_p":0.75,"presence_penalty":-1,
      "frequency_penalty":1.5,"repetition_penalty":1.25,"seed":-3,"n":4,"max_tokens":9,"logprobs":true,
      "top_logprobs":5,"logit_bias":{"11":-100,"12":5.5},"stream":true,"stream_options":{"include_usage":true},
      "user":"u","no_such_field":{"a":[1]}, "model":"m","ignore_eos":true)");
  EXPECT_EQ(r.sampling.temperature, 0.5F);
  EXPECT_EQ(r.sampling.top_p, 0.25F);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.min_p, 0.125F);
  EXPECT_EQ(r.sampling.typical_p, 0.75F);
  EXPECT_EQ(r.sampling.presence_penalty, -1);
  EXPECT_EQ(r.sampling.frequency_penalty, 1.5F);
  EXPECT_EQ(r.sampling.repeat_penalty, 1.25F);
  EXPECT_EQ(r.sampling.seed, static_cast<std::uint64_t>(-3));
  EXPECT_TRUE(r.seed_given);
  EXPECT_TRUE(r.sampling.ignore_end);
  EXPECT_EQ(r.choices, 4);
  EXPECT_EQ(r.tokens_max, 9);
  EXPECT_EQ(r.sampling.logprobs, 5);
  ASSERT_EQ(r.sampling.logit_bias.size(), 2U);
  EXPECT_EQ(r.sampling.logit_bias[0], (LogitBias{11, -INFINITY}));
  EXPECT_EQ(r.sampling.logit_bias[1], (LogitBias{12, 5.5F}));
  EXPECT_TRUE(r.stream);
  EXPECT_TRUE(r.include_usage);
  EXPECT_EQ(r.model, "m");
}

TEST(OpenAiRequests, AbsentAndNullFieldsAreDefaults) {
  const auto r =
      Chat(R"("temperature":null,"stop":null,"seed":null,"max_tokens":null,"tools":null,"stream_options":null,
                        "response_format":null,"logit_bias":null,"n":null)");
  EXPECT_EQ(r.sampling, SamplingParams{});
  EXPECT_FALSE(r.seed_given);
  EXPECT_FALSE(r.tokens_max.has_value());
  EXPECT_EQ(r.choices, 1);
  EXPECT_TRUE(r.chat.parallel_tool_calls);
  EXPECT_EQ(r.chat.tools_json, "");
  EXPECT_EQ(Chat("\"max_tokens\":5,\"max_completion_tokens\":6").tokens_max, 6);
  EXPECT_EQ(Chat("\"top_k\":-1").sampling.top_k, 0);
  EXPECT_EQ(Chat("\"seed\":18446744073709551615").sampling.seed, UINT64_MAX);
  EXPECT_EQ(Chat("\"seed\":42.0").sampling.seed, 42U);
}

TEST(OpenAiRequests, NullsWithinMessagesAndToolsAreAbsent) {
  ChatCompletionRequest request;
  const auto error = ParseChatCompletionRequest(
      R"({"messages":[{"role":"user","content":"hi","name":null,"audio":null},)"
      R"({"role":"assistant","content":null,"refusal":null,"reasoning_content":null,"tool_calls":)"
      R"([{"id":"1","index":null,"type":"function","function":{"name":"f","arguments":"{}","x":null}}]},)"
      R"({"role":"tool","tool_call_id":"1","content":"7","name":null}],)"
      R"("tools":[{"type":"function","function":{"name":"f","description":null,"parameters":null,"strict":null}}]})",
      request);
  ASSERT_FALSE(error.has_value()) << error->param << " " << error->message;
  EXPECT_EQ(request.chat.messages_json,
            R"([{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":)"
            R"([{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},)"
            R"({"role":"tool","tool_call_id":"1","content":"7"}])");
  EXPECT_EQ(request.chat.tools_json, R"([{"type":"function","function":{"name":"f"}}])");
}

TEST(OpenAiRequests, WholeNumbersMayBeWrittenAsOthers) {
  EXPECT_EQ(Chat(R"("max_tokens":10.0)").tokens_max, 10);
  for (const char* bad : {"10.5", "1e300", "-1.0", "1e15"}) {
    EXPECT_EQ(BadField(std::string("\"max_tokens\":") + bad), "max_tokens");
  }
}

TEST(OpenAiRequests, WrongFieldsAreNamed) {
  for (const auto& [fields, param] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"("temperature":2.1)", "temperature"},
           {R"("temperature":"1")", "temperature"},
           {R"("top_p":-0.1)", "top_p"},
           {R"("n":0)", "n"},
           {R"("n":17)", "n"},
           {R"("n":1.5)", "n"},
           {R"("n":18446744073709551615)", "n"},
           {R"("max_tokens":0)", "max_tokens"},
           {R"("max_tokens":99999999999)", "max_tokens"},
           {R"("seed":1.5)", "seed"},
           {R"("stop":[1])", "stop"},
           {R"("stop":["a",""])", "stop"},
           {R"("stop":7)", "stop"},
           {R"("stream":"yes")", "stream"},
           {R"("stream_options":{"include_usage":true})", "stream_options"},
           {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
           {R"("top_logprobs":3)", "top_logprobs"},
           {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
           {R"("logprobs":2)", "logprobs"},
           {R"("logit_bias":{"x":1})", "logit_bias"},
           {R"("logit_bias":{"1":101})", "logit_bias"},
           {R"("logit_bias":{"-1":1})", "logit_bias"},
           {R"("logit_bias":[])", "logit_bias"},
           {R"("repetition_penalty":0)", "repetition_penalty"},
           {R"("response_format":{"type":"xml"})", "response_format.type"},
           {R"("response_format":{})", "response_format.type"},
           {R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
           {R"("response_format":{"type":"json_schema","json_schema":{"name":"x"}})",
            "response_format.json_schema.schema"},
           {R"("tools":[{"type":"function"}])", "tools[0]"},
           {R"("tools":{})", "tools"},
           {R"("tools":[7])", "tools[0]"},
           {R"("tools":[{"type":"function","function":{"name":"a b"}}])", "tools[0]"},
           {R"("tools":[{"type":"function","function":{"name":"f","parameters":3}}])", "tools[0].function.parameters"},
           {R"("tool_choice":"required")", "tool_choice"},
           {R"("functions":[])", "functions"},
           {R"("tools":[{"type":"function","function":{"name":"f"}}],)"
            R"("tool_choice":{"type":"function","function":{"name":"g"}})",
            "tool_choice"},
           {R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":5)", "tool_choice"},
           {R"("chat_template_kwargs":{"enable_thinking":"x"})", "chat_template_kwargs.enable_thinking"}}) {
    EXPECT_EQ(BadField(fields), param) << fields;
  }
  std::string many = "\"stop\":[";
  for (int i = 0; i < 17; ++i) many += std::string(i > 0 ? "," : "") + "\"s\"";
  EXPECT_EQ(BadField(many + "]"), "stop");
}

TEST(OpenAiRequests, WrongMessagesAreNamed) {
  for (const auto& [messages, param] : std::initializer_list<std::pair<const char*, const char*>>{
           {"null", "messages"},
           {"[]", "messages"},
           {"{}", "messages"},
           {"[3]", "messages[0]"},
           {R"([{"content":"x"}])", "messages[0].role"},
           {R"([{"role":"king","content":"x"}])", "messages[0].role"},
           {R"([{"role":"user","content":"x"},{"role":"user"}])", "messages[1].content"},
           {R"([{"role":"user","content":3}])", "messages[0].content"},
           {R"([{"role":"user","content":[{"type":"image_url"}]}])", "messages[0].content[0].type"},
           {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
           {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]"},
           {R"([{"role":"user","content":"x","tool_calls":[]}])", "messages[0].tool_calls"}}) {
    EXPECT_EQ(ChatError(std::string("{\"messages\":") + messages + "}").param, param) << messages;
  }
}

TEST(OpenAiRequests, DeveloperIsSystemAndTheOrderOfKeysStays) {
  ChatCompletionRequest r;
  ASSERT_FALSE(ParseChatCompletionRequest(
      R"({"messages":[{"role":"developer","content":"z"},{"role":"assistant","content":null,
          "tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}]})",
      r));
  EXPECT_EQ(r.chat.messages_json,
            R"([{"role":"system","content":"z"},{"role":"assistant","content":null,)"
            R"("tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}])");
  const auto schema = Chat(R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":
      {"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}}})");
  EXPECT_EQ(schema.chat.json_schema,
            R"({"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}})");
  EXPECT_TRUE(Chat(R"("response_format":{"type":"json_object"})").chat.json_object);
}

TEST(OpenAiRequests, ToolChoice) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}])";
  EXPECT_EQ(Chat(tools).chat.tool_choice, ToolChoice::kAuto);
  EXPECT_EQ(Chat(tools + R"(,"tool_choice":"none")").chat.tool_choice, ToolChoice::kNone);
  EXPECT_EQ(Chat(tools + R"(,"tool_choice":"required")").chat.tool_choice, ToolChoice::kRequired);
  EXPECT_FALSE(Chat(tools + R"(,"parallel_tool_calls":false)").chat.parallel_tool_calls);
  const auto named = Chat(tools + R"(,"tool_choice":{"type":"function","function":{"name":"g"}})");
  EXPECT_EQ(named.chat.tool_choice, ToolChoice::kRequired);
  const auto parallel =
      Chat(tools + R"(,"parallel_tool_calls":true,"tool_choice":{"type":"function","function":{"name":"g"}})");
  EXPECT_FALSE(parallel.chat.parallel_tool_calls) << "one call, of that function";
  EXPECT_EQ(named.chat.tools_json, R"([{"type":"function","function":{"name":"g"}}])");
}

TEST(OpenAiRequests, StopIsOneOrMany) {
  EXPECT_EQ(Chat(R"("stop":"x")").stops, std::vector<std::string>{"x"});
  EXPECT_EQ(Chat(R"("stop":["x","y"])").stops, (std::vector<std::string>{"x", "y"}));
  EXPECT_TRUE(Chat(R"("stop":"")").stops.empty());
}

TEST(OpenAiRequests, PromptShapes) {
  EXPECT_EQ(Text(R"({"prompt":"a"})").prompts[0].text, "a");
  EXPECT_EQ(Text(R"({"prompt":"a"})").tokens_max, kCompletionTokensDefault);
  EXPECT_EQ(Text(R"({"prompt":["a","b"]})").prompts[1].text, "b");
  EXPECT_EQ(Text(R"({"prompt":[1,2]})").prompts[0].tokens, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(Text(R"({"prompt":[[1],[2,3]]})").prompts[1].tokens, (std::vector<TokenId>{2, 3}));
  EXPECT_EQ(Text(R"({"prompt":"a","logprobs":3})").sampling.logprobs, 3);
  for (const char* prompt :
       {"null", "7", "[]", "[-1]", "[1.5]", "[1,\"a\"]", "[[]]", "[[1],[-2]]", "[4294967296]", "{}"}) {
    EXPECT_EQ(BadText(std::string("{\"prompt\":") + prompt + "}"), "prompt") << prompt;
  }
  EXPECT_EQ(BadText(R"({"prompt":"a","echo":true,"logprobs":1})"), "echo");
  EXPECT_EQ(BadText(R"({"prompt":"a","best_of":3})"), "best_of");
  EXPECT_EQ(BadText(R"({"prompt":"a","suffix":"b"})"), "suffix");
  EXPECT_EQ(BadText(R"({"prompt":"a","logprobs":true})"), "logprobs");
}

TEST(OpenAiRequests, MalformedJsonTellsWhere) {
  for (const char* body : {"", "{", "[1]", "nul", "{\"a\":1,}", "{\"a\":1}{", "{'a':1}", "\xff\xfe", "{\"a\":1e999}"}) {
    EXPECT_EQ(ChatError(body).code, "invalid_json") << body;
  }
  const ApiError error = ChatError("{\n \"messages\": [}");
  EXPECT_NE(error.message.find("line 2, column 15"), std::string::npos) << error.message;
}

TEST(OpenAiRequests, InvalidUtf8IsRefused) {
  for (const char* bytes : {"\xff", "\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf5\x80\x80\x80"}) {
    const ApiError error = ChatError(std::string(R"({"messages":[{"role":"user","content":")") + bytes + "\"}]}");
    EXPECT_EQ(error.code, "invalid_json");
    EXPECT_TRUE(Json::accept(ErrorBody(error)));
  }
  EXPECT_EQ(ChatError(R"({"messages":[{"role":"user","content":"\ud800"}]})").code, "invalid_json");
}

TEST(OpenAiRequests, HugeStructuresAreRefusedBeforeTheyAreBuilt) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 1'000'000; ++i) deep += open;
    EXPECT_NE(ChatError(deep).message.find("nested deeper"), std::string::npos);
  }
  std::string wide = "[0";
  for (std::size_t i = 0; i < kJsonValuesMax; ++i) wide += ",0";
  EXPECT_NE(ChatError(wide + "]").message.find("values"), std::string::npos);
  std::string keys = "{\"a\":0";
  for (std::size_t i = 0; i < kJsonObjectKeysMax; ++i) keys += ",\"a\":0";
  EXPECT_NE(ChatError(keys + "}").message.find("keys"), std::string::npos);
  // Brackets within strings are no nesting.
  Json parsed;
  EXPECT_FALSE(ParseJson("\"" + std::string(100'000, '[') + "\\\"\"", parsed).has_value());
  std::string at_limit(kJsonDepthMax, '[');
  EXPECT_FALSE(ParseJson(at_limit + std::string(kJsonDepthMax, ']'), parsed).has_value());
}

}  // namespace
}  // namespace shoal
