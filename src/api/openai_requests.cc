// The fields of OpenAI's requests, one group of fields a function.
#include "api/openai_requests.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>

#include "api/request_fields.h"

namespace shoal {
namespace {

constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kNameBytesMax = 64;  // of a function, as OpenAI's

std::string Indexed(const std::string& name, std::size_t index) { return name + "[" + std::to_string(index) + "]"; }

std::string DumpText(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

void ReadSampling(FieldReader& fields, SamplingParams& sampling) {
  fields.Number("temperature", 0, 2, sampling.temperature);
  fields.Number("top_p", 0, 1, sampling.top_p);
  fields.Number("min_p", 0, 1, sampling.min_p);
  fields.Number("typical_p", 0, 1, sampling.typical_p);
  fields.Number("presence_penalty", -2, 2, sampling.presence_penalty);
  fields.Number("frequency_penalty", -2, 2, sampling.frequency_penalty);
  if (fields.Number("repetition_penalty", 0, 10, sampling.repeat_penalty) && sampling.repeat_penalty <= 0) {
    fields.Fail("repetition_penalty", "must be greater than 0.");
  }
  if (fields.Integer("top_k", -1, kInt32Max, sampling.top_k)) sampling.top_k = std::max(sampling.top_k, 0);
  fields.Bool("ignore_eos", sampling.ignore_end);
  if (fields.String("grammar", sampling.grammar) && sampling.grammar.size() > kGrammarBytesMax) {
    fields.Fail("grammar", "is longer than " + std::to_string(kGrammarBytesMax) + " bytes.");
  }
}

void ReadLogitBias(FieldReader& fields, SamplingParams& sampling) {
  const Json* biases = fields.Object("logit_bias");
  if (biases == nullptr) return;
  if (biases->size() > kLogitBiasMax) {
    return fields.Fail("logit_bias", "has more than " + std::to_string(kLogitBiasMax) + " entries.");
  }
  for (const auto& [key, value] : biases->items()) {
    LogitBias bias;
    const auto [end, status] = std::from_chars(key.data(), key.data() + key.size(), bias.token);
    if (status != std::errc() || end != key.data() + key.size() || bias.token < 0) {
      return fields.Fail("logit_bias", "has a key that is not a token id.");
    }
    const double number = value.is_number() ? value.get<double>() : 1e9;
    if (!(number >= -100 && number <= 100)) {
      return fields.Fail("logit_bias", "must map token ids to numbers from -100 to 100.");
    }
    // OpenAI: "-100 should result in a ban".
    bias.bias = number <= -100 ? -std::numeric_limits<float>::infinity() : static_cast<float>(number);
    sampling.logit_bias.push_back(bias);
  }
}

void ReadStops(FieldReader& fields, std::vector<std::string>& stops) {
  const Json* value = fields.Find("stop");
  if (value == nullptr) return;
  if (value->is_string()) {
    stops.push_back(value->get<std::string>());
  } else if (value->is_array() && value->size() <= kStopsMax) {
    for (const Json& stop : *value) {
      if (!stop.is_string()) return fields.Fail("stop", "must be a string or an array of strings.");
      stops.push_back(stop.get<std::string>());
    }
  } else {
    return fields.Fail("stop", "must be a string or an array of at most " + std::to_string(kStopsMax) + " strings.");
  }
  // One empty string is what some clients send for "none".
  if (value->is_string() && stops.back().empty()) return stops.clear();
  for (const std::string& stop : stops) {
    if (stop.empty() || stop.size() > kStopBytesMax) {
      return fields.Fail("stop", "strings must have 1 to " + std::to_string(kStopBytesMax) + " bytes.");
    }
  }
}

void ReadTokensMax(FieldReader& fields, const char* name, std::int64_t min, RequestCommon& out) {
  std::int32_t tokens_max = 0;
  if (fields.Integer(name, min, kInt32Max, tokens_max)) out.tokens_max = tokens_max;
}

void ReadCommon(FieldReader& fields, RequestCommon& out) {
  fields.String("model", out.model);
  ReadSampling(fields, out.sampling);
  ReadLogitBias(fields, out.sampling);
  ReadStops(fields, out.stops);
  out.seed_given = fields.Seed("seed", out.sampling.seed);
  fields.Integer("n", 1, kChoicesMax, out.choices);
  fields.Bool("stream", out.stream);
  fields.Bool("return_token_ids", out.token_ids);
  if (const Json* options = fields.Object("stream_options")) {
    if (!out.stream) return fields.Fail("stream_options", "is allowed only with 'stream': true.");
    FieldReader inner(*options, "stream_options.");
    inner.Bool("include_usage", out.include_usage);
    if (!inner.ok()) fields.Fail("stream_options.include_usage", "must be true or false.");
  }
}

// "response_format": plain text, any JSON object, or a schema.
void ReadResponseFormat(FieldReader& fields, bool& json_object, std::string& json_schema) {
  const Json* format = fields.Object("response_format");
  if (format == nullptr) return;
  const std::string type =
      format->contains("type") && (*format)["type"].is_string() ? (*format)["type"].get<std::string>() : "";
  if (type == "text") return;
  if (type == "json_object") {
    json_object = true;
    return;
  }
  if (type != "json_schema") {
    return fields.Fail("response_format.type", "must be 'text', 'json_object' or 'json_schema'.");
  }
  const auto outer = format->find("json_schema");
  if (outer == format->end() || !outer->is_object()) {
    return fields.Fail("response_format.json_schema", "must be an object with a 'schema'.");
  }
  const auto schema = outer->find("schema");
  if (schema == outer->end() || !schema->is_object()) {
    return fields.Fail("response_format.json_schema.schema", "must be a JSON schema object.");
  }
  json_schema = DumpText(*schema);
}

void RefuseUnsupported(FieldReader& fields, std::initializer_list<const char*> names, const std::string& why) {
  for (const char* name : names) {
    const Json* value = fields.Find(name);
    if (value != nullptr && !(value->is_string() && value->get_ref<const std::string&>().empty())) {
      fields.Fail(name, why);
    }
  }
}

// ---- /v1/completions

bool ReadTokenArray(const Json& array, std::vector<TokenId>& tokens) {
  for (const Json& token : array) {
    if (!token.is_number_unsigned() || token.get<std::uint64_t>() > static_cast<std::uint64_t>(kInt32Max)) return false;
    tokens.push_back(token.get<TokenId>());
  }
  return !tokens.empty();
}

void ReadPrompts(FieldReader& fields, std::vector<PromptInput>& prompts) {
  static constexpr const char* kShape =
      "must be a string, an array of strings, an array of token ids, or an array of those.";
  const Json* value = fields.Find("prompt");
  if (value == nullptr) return fields.Fail("prompt", "is missing.");
  if (value->is_string()) {
    prompts.push_back({value->get<std::string>(), {}});
    return;
  }
  if (!value->is_array() || value->empty()) return fields.Fail("prompt", kShape);
  if (value->front().is_number()) {
    if (!ReadTokenArray(*value, prompts.emplace_back().tokens)) fields.Fail("prompt", kShape);
    return;
  }
  if (value->size() > kPromptsMax) {
    return fields.Fail("prompt", "has more than " + std::to_string(kPromptsMax) + " entries.");
  }
  for (const Json& prompt : *value) {
    PromptInput& input = prompts.emplace_back();
    if (prompt.is_string())
      input.text = prompt.get<std::string>();
    else if (!prompt.is_array() || !ReadTokenArray(prompt, input.tokens))
      return fields.Fail("prompt", kShape);
  }
}

// ---- /v1/chat/completions

// Text parts only: a model that sees or hears is not served here.
void CheckContentParts(FieldReader& fields, const Json& parts, const std::string& name) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Json& part = parts[i];
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (!part.is_object() || type == part.end() || !type->is_string()) {
      return fields.Fail(Indexed(name, i), "must be an object with a 'type'.");
    }
    if (*type != "text") {
      return fields.Fail(Indexed(name, i) + ".type", "must be 'text': this server takes text only.");
    }
    const auto text = part.find("text");
    if (text == part.end() || !text->is_string()) return fields.Fail(Indexed(name, i) + ".text", "must be a string.");
  }
}

// What is null is absent, as in the request itself; clients that write whole objects have many of them.
void RemoveNulls(Json& object, std::string_view but_not = "") {
  if (!object.is_object()) return;
  for (auto member = object.begin(); member != object.end();) {
    member = member->is_null() && member.key() != but_not ? object.erase(member) : std::next(member);
  }
}

void CheckMessage(FieldReader& fields, Json& message, const std::string& name) {
  if (!message.is_object()) return fields.Fail(name, "must be an object.");
  auto role = message.find("role");
  if (role == message.end() || !role->is_string()) return fields.Fail(name + ".role", "must be a string.");
  RemoveNulls(message, "content");
  role = message.find("role");
  if (*role == "developer") *role = "system";  // newer clients' name for the same; templates know only the old one
  static constexpr std::string_view kRoles[] = {"system", "user", "assistant", "tool"};
  const std::string role_name = role->get<std::string>();
  if (std::find(std::begin(kRoles), std::end(kRoles), role_name) == std::end(kRoles)) {
    return fields.Fail(name + ".role", "must be 'system', 'developer', 'user', 'assistant' or 'tool'.");
  }
  const auto tool_calls = message.find("tool_calls");
  const bool has_calls = tool_calls != message.end();
  if (has_calls && (role_name != "assistant" || !tool_calls->is_array())) {
    return fields.Fail(name + ".tool_calls", "must be an array, of an assistant's message.");
  }
  if (has_calls) {
    for (Json& call : *tool_calls) {
      RemoveNulls(call);
      if (call.is_object() && call.contains("function")) RemoveNulls(call["function"]);
    }
  }
  for (const char* text : {"name", "tool_call_id", "reasoning_content"}) {
    const auto found = message.find(text);
    if (found != message.end() && !found->is_string()) return fields.Fail(name + "." + text, "must be a string.");
  }
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (!has_calls) fields.Fail(name + ".content", "is missing.");
    return;
  }
  if (content->is_array()) return CheckContentParts(fields, *content, name + ".content");
  if (!content->is_string()) fields.Fail(name + ".content", "must be a string or an array of text parts.");
}

void ReadMessages(FieldReader& fields, ChatRequest& chat) {
  const Json* value = fields.Array("messages");
  if (!fields.ok()) return;
  if (value == nullptr || value->empty()) return fields.Fail("messages", "must be an array of at least one message.");
  Json messages = *value;
  for (std::size_t i = 0; i < messages.size() && fields.ok(); ++i) {
    CheckMessage(fields, messages[i], Indexed("messages", i));
  }
  chat.messages_json = DumpText(messages);
}

bool IsFunctionName(const Json& name) {
  if (!name.is_string()) return false;
  const auto& text = name.get_ref<const std::string&>();
  return !text.empty() && text.size() <= kNameBytesMax && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  });
}

// The function's name of {"type": "function", "function": {"name": ...}}, or null.
const Json* FunctionName(const Json& value) {
  if (!value.is_object() || value.value("type", Json()) != "function") return nullptr;
  const auto function = value.find("function");
  if (function == value.end() || !function->is_object()) return nullptr;
  const auto name = function->find("name");
  return name == function->end() || !IsFunctionName(*name) ? nullptr : &*name;
}

void CheckTools(FieldReader& fields, Json& tools) {
  if (tools.size() > kToolsMax) return fields.Fail("tools", "has more than " + std::to_string(kToolsMax) + " entries.");
  for (std::size_t i = 0; i < tools.size(); ++i) {
    if (FunctionName(tools[i]) == nullptr) {
      return fields.Fail(Indexed("tools", i),
                         "must be {\"type\": \"function\", \"function\": {\"name\": ...}} with a "
                         "name of 1 to 64 letters, digits, '_', '-' or '.'.");
    }
    RemoveNulls(tools[i]["function"]);
    const Json& function = tools[i]["function"];
    const auto parameters = function.find("parameters");
    if (parameters != function.end() && !parameters->is_object()) {
      return fields.Fail(Indexed("tools", i) + ".function.parameters", "must be a JSON schema object.");
    }
    const auto description = function.find("description");
    if (description != function.end() && !description->is_string()) {
      return fields.Fail(Indexed("tools", i) + ".function.description", "must be a string.");
    }
  }
}

// A named function: only that tool, and it must be called.
void ChooseNamedTool(FieldReader& fields, const Json& choice, Json& tools, ChatRequest& chat) {
  const Json* name = FunctionName(choice);
  if (name == nullptr) {
    return fields.Fail("tool_choice",
                       "must be 'none', 'auto', 'required' or {\"type\": \"function\", \"function\": "
                       "{\"name\": ...}}.");
  }
  Json chosen = Json::array();
  for (Json& tool : tools) {
    if (tool["function"]["name"] == *name) chosen.push_back(std::move(tool));
  }
  if (chosen.empty()) return fields.Fail("tool_choice", "names a function that is not in 'tools'.");
  tools = std::move(chosen);
  chat.tool_choice = ToolChoice::kRequired;
  chat.parallel_tool_calls = false;
}

void ReadTools(FieldReader& fields, ChatRequest& chat) {
  chat.parallel_tool_calls = true;  // OpenAI's default
  fields.Bool("parallel_tool_calls", chat.parallel_tool_calls);
  Json tools = Json::array();
  if (const Json* given = fields.Array("tools")) tools = *given;
  CheckTools(fields, tools);
  if (const Json* choice = fields.Find("tool_choice")) {
    if (*choice == "none")
      chat.tool_choice = ToolChoice::kNone;
    else if (*choice == "auto")
      chat.tool_choice = ToolChoice::kAuto;
    else if (tools.empty())
      return fields.Fail("tool_choice", "is allowed only with 'tools'.");
    else if (*choice == "required")
      chat.tool_choice = ToolChoice::kRequired;
    else
      ChooseNamedTool(fields, *choice, tools, chat);
  }
  if (!tools.empty()) chat.tools_json = DumpText(tools);
}

void ReadTemplateArguments(FieldReader& fields, ChatRequest& chat) {
  std::string effort;
  if (fields.String("reasoning_effort", effort)) {
    if (effort == "none") chat.enable_thinking = false;
    chat.template_arguments["reasoning_effort"] = DumpText(Json(effort));
  }
  if (const Json* arguments = fields.Object("chat_template_kwargs")) {
    for (const auto& [key, value] : arguments->items()) chat.template_arguments[key] = DumpText(value);
    FieldReader inner(*arguments, "chat_template_kwargs.");
    inner.Bool("enable_thinking", chat.enable_thinking);
    if (!inner.ok()) fields.Fail("chat_template_kwargs.enable_thinking", "must be true or false.");
  }
}

void ReadChatLogprobs(FieldReader& fields, SamplingParams& sampling) {
  bool wanted = false;
  fields.Bool("logprobs", wanted);
  std::int32_t top = 0;
  if (fields.Integer("top_logprobs", 0, kLogprobsMax, top) && top > 0 && !wanted) {
    fields.Fail("top_logprobs", "is allowed only with 'logprobs': true.");
  }
  if (wanted) sampling.logprobs = top;
}

// The body as an object, or the error.
std::optional<ApiError> ParseObject(std::string_view body, Json& object) {
  if (auto error = ParseJson(body, object)) return error;
  if (!object.is_object()) return InvalidRequest("The body must be a JSON object.", "", "invalid_json");
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ParseCompletionRequest(std::string_view body, CompletionRequest& out) {
  Json object;
  if (auto error = ParseObject(body, object)) return error;
  FieldReader fields(object);
  out.tokens_max = kCompletionTokensDefault;
  ReadCommon(fields, out);
  ReadPrompts(fields, out.prompts);
  ReadTokensMax(fields, "max_tokens", 0, out);
  fields.Bool("echo", out.echo);
  std::int32_t logprobs = -1;
  if (fields.Integer("logprobs", 0, kLogprobsMax, logprobs)) out.sampling.logprobs = logprobs;
  if (out.echo && logprobs >= 0) { fields.Fail("echo", "cannot be combined with 'logprobs': prompts are not scored."); }
  std::int32_t best_of = 0;
  if (fields.Integer("best_of", 1, kChoicesMax, best_of) && best_of != out.choices) {
    fields.Fail("best_of", "other than 'n' is not supported.");
  }
  RefuseUnsupported(fields, {"suffix"}, "is not supported.");
  ReadResponseFormat(fields, out.json_object, out.json_schema);
  return fields.error();
}

std::optional<ApiError> ParseChatCompletionRequest(std::string_view body, ChatCompletionRequest& out) {
  Json object;
  if (auto error = ParseObject(body, object)) return error;
  FieldReader fields(object);
  ReadCommon(fields, out);
  ReadMessages(fields, out.chat);
  ReadTokensMax(fields, "max_tokens", 1, out);
  ReadTokensMax(fields, "max_completion_tokens", 1, out);
  ReadChatLogprobs(fields, out.sampling);
  RefuseUnsupported(fields, {"functions", "function_call"}, "is the old form: send 'tools' and 'tool_choice'.");
  ReadTools(fields, out.chat);
  ReadResponseFormat(fields, out.chat.json_object, out.chat.json_schema);
  ReadTemplateArguments(fields, out.chat);
  out.chat.grammar = std::move(out.sampling.grammar);
  out.sampling.grammar.clear();
  return fields.error();
}

}  // namespace shoal
