// Templates of the real models, a hand-made one with tools, reasoning, streaming, and grammars from JSON schemas.
#include "text/chat.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/test_vocabularies.h"
#include "engine/token_sampler.h"
#include "runtime/rng.h"
#include "text/detokenizer.h"

namespace shoal {
namespace {

using nlohmann::json;

// ChatML with tools in <tool_call> tags, as several open models were trained on.
constexpr const char* kToolTemplate = R"({%- if tools %}
{{- '<|im_start|>system\n' }}
{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\n\n' }}{%- endif %}
{{- 'Call functions when they help. They are:\n<tools>' }}
{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\n</tools>\nFor each call write a JSON object in tags:\n' }}
{{- '<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call><|im_end|>\n' }}
{%- elif messages[0]['role'] == 'system' %}
{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first)
    or (message.role == 'assistant' and not message.tool_calls) %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
)";

// The same without tools, with thoughts in <think> tags.
constexpr const char* kThinkTemplate = R"({%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\n' }}
{%- if message.reasoning_content is string and message.reasoning_content %}
{{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{%- endif %}
{{- message.content + '<|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
)";

constexpr const char* kWeatherTool = R"([{"type": "function", "function": {"name": "get_weather",
  "description": "Weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"},
  "days": {"type": "integer"}}, "required": ["city", "days"]}}}])";

std::shared_ptr<const ChatTemplate> Template(const std::string& source = "") {
  auto chat = ChatTemplate::Open(SmolLm2Vocabulary(), source);
  EXPECT_TRUE(chat.ok()) << chat.error().message;
  return std::move(chat).value();
}

ChatRequest User(const std::string& text) {
  ChatRequest request;
  request.messages_json = json::array({{{"role", "user"}, {"content", text}}}).dump();
  return request;
}

std::shared_ptr<const ChatPrompt> Render(const ChatTemplate& chat, const ChatRequest& request) {
  auto prompt = chat.Render(request);
  EXPECT_TRUE(prompt.ok()) << prompt.error().message;
  return std::move(prompt).value();
}

// Joins deltas as a client does.
ChatMessage Stream(const std::shared_ptr<const ChatPrompt>& prompt, const std::string& text, std::size_t step) {
  ChatStream stream(prompt);
  ChatMessage joined;
  for (std::size_t at = 0; at < text.size(); at += step) {
    const auto delta = stream.Add(text.substr(at, step), at + step >= text.size());
    EXPECT_TRUE(delta.ok()) << delta.error().message;
    if (!delta.ok()) break;
    joined.content += delta->content;
    joined.reasoning += delta->reasoning;
    for (const auto& call : delta->tool_calls) {
      EXPECT_LE(call.index, joined.tool_calls.size());
      if (call.index == joined.tool_calls.size()) {
        EXPECT_FALSE(call.id.empty());
        EXPECT_FALSE(call.name.empty());
        joined.tool_calls.push_back({call.id, call.name, ""});
      }
      joined.tool_calls[call.index].arguments += call.arguments;
    }
  }
  return joined;
}

// Random logits under the prompt's constraints, after `start`: what can a model possibly answer? It would rather end at
// once (`wants_end`), and closes strings and objects soon.
std::string RandomAnswer(const ChatPrompt& prompt, SamplingParams params, int tokens_max, const std::string& start = "",
                         bool wants_end = false) {
  const auto vocabulary = SmolLm2Vocabulary();
  prompt.ConstrainSampling(params);
  const auto started = *vocabulary->Tokenize(start, false, true);
  auto sampler = TokenSampler::Make(vocabulary, params, started, static_cast<std::uint32_t>(started.size()));
  EXPECT_TRUE(sampler.ok()) << sampler.error().message << "\n" << params.grammar;
  if (!sampler.ok()) return "";
  Detokenizer detokenizer(vocabulary, prompt.stops, false, params.preserved_tokens);
  std::string text;
  for (const TokenId token : started) text += detokenizer.Add(token).text;
  Rng rng(params.seed);
  std::vector<float> logits(static_cast<std::size_t>(vocabulary->size()));
  const TokenId quote = vocabulary->Tokenize("\"", false, false)->front();
  for (Position p = 0; p < tokens_max; ++p) {
    for (float& x : logits) x = static_cast<float>(rng.Uniform() * 8);
    if (p % 4 == 3) logits[static_cast<std::size_t>(quote)] = 20;
    if (wants_end) logits[static_cast<std::size_t>(vocabulary->eos())] = 40;
    const auto sampled = (*sampler)->Sample(logits, p);
    EXPECT_TRUE(sampled.ok()) << sampled.error().message;
    if (!sampled.ok()) break;
    text += detokenizer.Add(sampled->token).text;
    if (sampled->end) break;
  }
  return text + detokenizer.Finish();
}

TEST(ChatTemplate, SmolLm2RendersChatMlWithItsSystemPrompt) {
  const auto chat = Template();
  EXPECT_TRUE(chat->from_model());
  const auto prompt = Render(*chat, User("Hi!"));
  EXPECT_EQ(prompt->prompt,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(prompt->tokens, *SmolLm2Vocabulary()->Tokenize(prompt->prompt, false, true));
  EXPECT_TRUE(prompt->plain());

  ChatRequest turns;
  turns.messages_json = R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One"},
    {"role": "assistant", "content": "Two"}, {"role": "user", "content": [{"type": "text", "text": "Three"}]}])";
  EXPECT_EQ(
      Render(*chat, turns)->prompt,
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>\n"
      "<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, AModelWithoutTemplateGetsChatMlAndItsStop) {
  const auto vocabulary = Gemma3Vocabulary();
  const auto chat = ChatTemplate::Open(vocabulary);
  ASSERT_TRUE(chat.ok()) << chat.error().message;
  EXPECT_FALSE((*chat)->from_model());
  const auto prompt = Render(**chat, User("Hi!"));
  EXPECT_NE(prompt->prompt.find("<|im_start|>user\nHi!<|im_end|>"), std::string::npos);
  EXPECT_NE(std::find(prompt->stops.begin(), prompt->stops.end(), "<|im_end|>"), prompt->stops.end());
  EXPECT_EQ(std::count(prompt->tokens.begin(), prompt->tokens.end(), vocabulary->bos()), 1);
  EXPECT_EQ(prompt->tokens.front(), vocabulary->bos());
}

TEST(ChatTemplate, BosThatTheTemplateWritesIsNotDoubled) {
  const auto vocabulary = Gemma3Vocabulary();
  const auto chat = ChatTemplate::Open(vocabulary,
                                       "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + "
                                       "(message.role if message.role != 'assistant' else "
                                       "'model') + '\\n' + message.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
                                       "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}");
  ASSERT_TRUE(chat.ok()) << chat.error().message;
  const auto prompt = Render(**chat, User("Hi!"));
  EXPECT_EQ(std::count(prompt->tokens.begin(), prompt->tokens.end(), vocabulary->bos()), 1);
  EXPECT_EQ(prompt->tokens.front(), vocabulary->bos());
  std::string text;
  for (const TokenId token : prompt->tokens) text += vocabulary->Piece(token, true);
  EXPECT_EQ(text, "<bos><start_of_turn>user\nHi!<end_of_turn>\n<start_of_turn>model\n");
}

TEST(ChatTemplate, BrokenTemplatesAndMessagesAreErrors) {
  const auto broken = ChatTemplate::Open(SmolLm2Vocabulary(), "{% for %}");
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);

  const auto chat = Template();
  std::string deep(100000, '[');
  for (const std::string& messages :
       {std::string("not json"), std::string("[]"), std::string("{}"), std::string(R"([{"content": "x"}])"),
        std::string(R"([{"role": 5, "content": "x"}])"), std::string(R"([{"role": "user", "content": 7}])"), deep}) {
    ChatRequest request;
    request.messages_json = messages;
    const auto prompt = chat->Render(request);
    ASSERT_FALSE(prompt.ok()) << messages.substr(0, 80);
    EXPECT_EQ(prompt.error().code, ErrorCode::kInvalidArgument);
  }
  for (const char* tools : {"5", R"([{"type": "other"}])", R"([{"type": "function"}])", "[{"}) {
    ChatRequest request = User("Hi");
    request.tools_json = tools;
    EXPECT_FALSE(chat->Render(request).ok()) << tools;
  }
  const auto refusing = Template("{{ raise_exception('only cats may speak') }}");
  const auto refused = refusing->Render(User("Hi"));
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("only cats may speak"), std::string::npos) << refused.error().message;
}

TEST(ChatPrompt, ToolCallsAreParsedWholeAndStreamed) {
  ChatRequest request = User("Weather in Paris and Rome?");
  request.tools_json = kWeatherTool;
  request.parallel_tool_calls = true;
  const auto prompt = Render(*Template(kToolTemplate), request);
  EXPECT_NE(prompt->prompt.find("get_weather"), std::string::npos);
  EXPECT_FALSE(prompt->plain());
  const std::string text =
      "Let me look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris 日本\", \"days\": "
      "2}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\", \"days\": 3}}\n</tool_call>";
  const auto whole = prompt->Parse(text, false);
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_EQ(whole->content.substr(0, 12), "Let me look.");
  ASSERT_EQ(whole->tool_calls.size(), 2U);
  EXPECT_EQ(whole->tool_calls[0].name, "get_weather");
  EXPECT_EQ(json::parse(whole->tool_calls[0].arguments), json::parse(R"({"city": "Paris 日本", "days": 2})"));
  EXPECT_EQ(json::parse(whole->tool_calls[1].arguments)["city"], "Rome");
  EXPECT_NE(whole->tool_calls[0].id, whole->tool_calls[1].id);

  for (const std::size_t step : {1, 3, 7, 1000}) {
    const ChatMessage streamed = Stream(prompt, text, step);
    EXPECT_EQ(streamed.content.substr(0, 12), "Let me look.");
    ASSERT_EQ(streamed.tool_calls.size(), 2U) << "step " << step;
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(streamed.tool_calls[i].name, whole->tool_calls[i].name);
      EXPECT_EQ(streamed.tool_calls[i].id, whole->tool_calls[i].id);
      EXPECT_EQ(json::parse(streamed.tool_calls[i].arguments), json::parse(whole->tool_calls[i].arguments));
    }
  }
}

TEST(ChatPrompt, AnAnswerCutOffInAToolCallGivesWhatThereIs) {
  ChatRequest request = User("Weather?");
  request.tools_json = kWeatherTool;
  const auto prompt = Render(*Template(kToolTemplate), request);
  const ChatMessage cut = Stream(prompt, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Par", 5);
  ASSERT_EQ(cut.tool_calls.size(), 1U);
  EXPECT_EQ(cut.tool_calls[0].name, "get_weather");
  EXPECT_NE(cut.tool_calls[0].arguments.find("Par"), std::string::npos);
}

TEST(ChatPrompt, ARequiredToolCallIsMadeWhateverTheModelWants) {
  ChatRequest request = User("Weather?");
  request.tools_json = kWeatherTool;
  request.tool_choice = ToolChoice::kRequired;
  const auto prompt = Render(*Template(kToolTemplate), request);
  SamplingParams greedy;
  greedy.temperature = 0;
  EXPECT_NE(RandomAnswer(*prompt, greedy, 3, "", true), "") << "ended without a call";
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    SamplingParams params;
    params.seed = seed;
    const std::string text = RandomAnswer(*prompt, params, 400, "<tool_call>\n{\"", true);
    const auto message = prompt->Parse(text, false);
    ASSERT_TRUE(message.ok()) << message.error().message << "\n" << text;
    ASSERT_EQ(message->tool_calls.size(), 1U) << text;
    EXPECT_EQ(message->tool_calls[0].name, "get_weather");
    const json arguments = json::parse(message->tool_calls[0].arguments);
    EXPECT_TRUE(arguments["city"].is_string()) << text;
    EXPECT_TRUE(arguments["days"].is_number_integer()) << text;
  }
}

TEST(ChatPrompt, ToolsInAutoBindOnlyFromTheTag) {
  ChatRequest request = User("Weather?");
  request.tools_json = kWeatherTool;
  const auto prompt = Render(*Template(kToolTemplate), request);
  SamplingParams params;
  prompt->ConstrainSampling(params);
  EXPECT_FALSE(params.grammar.empty());
  EXPECT_TRUE(params.grammar_lazy);
  EXPECT_FALSE(params.grammar_triggers.empty());
  EXPECT_TRUE(Validate(params).ok());
  const auto free = prompt->Parse("No call needed.", false);
  ASSERT_TRUE(free.ok()) << free.error().message;
  EXPECT_EQ(free->content, "No call needed.");
  EXPECT_TRUE(free->tool_calls.empty());
}

TEST(ChatPrompt, EarlierToolCallsAndResultsAreRendered) {
  ChatRequest request;
  request.messages_json = R"([{"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
      "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\", \"days\": 1}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"}])";
  request.tools_json = kWeatherTool;
  const std::string text = Render(*Template(kToolTemplate), request)->prompt;
  EXPECT_NE(text.find("<tool_response>\nsunny\n</tool_response>"), std::string::npos) << text;
  EXPECT_NE(text.find("\"city\": \"Paris\""), std::string::npos) << text;
}

TEST(ChatPrompt, ReasoningIsSplitFromContent) {
  const auto chat = Template(kThinkTemplate);
  const auto prompt = Render(*chat, User("2+2?"));
  const std::string text = "<think>\nTwo and two\nmake four.\n</think>\n\nIt is 4.";
  const auto whole = prompt->Parse(text, false);
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_NE(whole->reasoning.find("Two and two\nmake four."), std::string::npos);
  EXPECT_EQ(whole->reasoning.find("It is"), std::string::npos);
  EXPECT_EQ(whole->content, "It is 4.");
  for (const std::size_t step : {1, 2, 5}) {
    const ChatMessage streamed = Stream(prompt, text, step);
    EXPECT_NE(streamed.reasoning.find("Two and two\nmake four."), std::string::npos);
    EXPECT_EQ(streamed.content, "It is 4.");
  }
  ChatRequest silent = User("2+2?");
  silent.enable_thinking = false;
  const auto without = Render(*chat, silent);
  EXPECT_NE(without->prompt.find("<think>\n\n</think>"), std::string::npos);
  EXPECT_EQ(without->Parse("4", false)->content, "4");
}

TEST(ChatPrompt, PlainAnswersStreamAsTheyCome) {
  const auto prompt = Render(*Template(), User("Hi"));
  const std::string text = "  Some <b>text</b> with </think> and <tool_call> {\"a\": 1}\n\n";
  EXPECT_EQ(Stream(prompt, text, 1).content, text);
  EXPECT_EQ(prompt->Parse(text, false)->content, text);
  ChatStream stream(prompt);
  for (int i = 0; i < 200000; ++i) ASSERT_EQ(stream.Add("word ", false)->content, "word ");
  EXPECT_EQ(stream.message().content.size(), 1000000U);
}

TEST(ChatStream, LongParsedAnswersCostAboutLinearTime) {
  ChatRequest request = User("Weather?");
  request.tools_json = kWeatherTool;
  ChatStream stream(Render(*Template(kToolTemplate), request));
  std::string sent;
  for (int i = 0; i < 8000; ++i) sent += stream.Add("some ", false)->content;
  sent += stream.Add("end", true)->content;
  EXPECT_EQ(sent.size(), 40003U);
}

TEST(ChatPrompt, AnswersFollowTheJsonSchema) {
  ChatRequest request = User("A point, please.");
  request.json_schema = R"({"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99},
    "colour": {"enum": ["red", "green"]}, "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}},
    "required": ["x", "colour", "tags"], "additionalProperties": false})";
  const auto prompt = Render(*Template(), request);
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    SamplingParams params;
    params.seed = seed;
    params.temperature = seed == 0 ? 0 : 1;
    const std::string text = RandomAnswer(*prompt, params, 300);
    const auto message = prompt->Parse(text, false);
    ASSERT_TRUE(message.ok()) << message.error().message << "\n" << text;
    const json value = json::parse(message->content, nullptr, false);
    ASSERT_TRUE(value.is_object()) << text;
    EXPECT_TRUE(value["x"].is_number_integer() && value["x"] >= 0 && value["x"] <= 99) << text;
    EXPECT_TRUE(value["colour"] == "red" || value["colour"] == "green") << text;
    ASSERT_TRUE(value["tags"].is_array() && value["tags"].size() <= 3) << text;
    for (const json& tag : value["tags"]) EXPECT_TRUE(tag.is_boolean());
    EXPECT_EQ(value.size(), 3U);
  }
}

TEST(ChatPrompt, ClientGrammarsAreKept) {
  ChatRequest request = User("Yes or no?");
  request.grammar = "root ::= \"yes\" | \"no\"";
  const auto prompt = Render(*Template(), request);
  const std::string answer = RandomAnswer(*prompt, {}, 10);
  EXPECT_TRUE(answer == "yes" || answer == "no") << answer;
  request.tools_json = kWeatherTool;
  EXPECT_FALSE(Template(kToolTemplate)->Render(request).ok());
}

TEST(ChatPrompt, JsonObjectModeGivesSomeObject) {
  ChatRequest request = User("JSON!");
  request.json_object = true;
  const auto prompt = Render(*Template(), request);
  SamplingParams params;
  prompt->ConstrainSampling(params);
  EXPECT_FALSE(params.grammar.empty());
  const std::string text = RandomAnswer(*prompt, params, 30);
  const std::size_t start = text.find_first_not_of(" \t\r\n`json");  // white space and a fence may come first
  ASSERT_NE(start, std::string::npos);
  EXPECT_EQ(text[start], '{') << text;
}

TEST(ChatTemplate, SaysWhichFieldHasASchemaThatCannotBe) {
  const std::string nowhere = R"({"$ref": "#/no/where"})";
  ChatRequest formatted = User("x");
  formatted.json_schema = nowhere;
  const auto answer = Template()->Render(formatted);
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().message.find("json_schema: "), 0U) << answer.error().message;
  // A template that knows tools: its grammar has their schemas.
  ChatRequest tooled = User("x");
  tooled.tool_choice = ToolChoice::kRequired;
  tooled.tools_json =
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": )" +
      nowhere + "}}}}]";
  const auto call = Template(kToolTemplate)->Render(tooled);
  ASSERT_FALSE(call.ok());
  EXPECT_EQ(call.error().message.find("tools: "), 0U) << call.error().message;
}

TEST(GrammarFromJsonSchema, ReportsWhatCannotBe) {
  EXPECT_TRUE(GrammarFromJsonSchema("").ok());
  EXPECT_TRUE(GrammarFromJsonSchema(R"({"type": "array", "items": {"type": "number"}})").ok());
  for (const char* schema : {"{", "5", R"({"type": "no-such-type"})", R"({"$ref": "#/definitions/absent"})"}) {
    const auto grammar = GrammarFromJsonSchema(schema);
    ASSERT_FALSE(grammar.ok()) << schema;
    EXPECT_EQ(grammar.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace shoal
