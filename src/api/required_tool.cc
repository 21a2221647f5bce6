// The schema of "one call of one of these tools", and a ChatPrompt that reads it back.
#include "api/required_tool.h"

#include "api/json_input.h"

namespace shoal {
namespace {

std::string DumpText(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json CallSchema(const Json& function, Json& root_definitions) {
  Json parameters = {{"type", "object"}};
  if (const auto given = function.find("parameters");
      given != function.end() && given->is_object() && !given->empty()) {
    parameters = *given;
  }
  // References are read from the root of the schema.
  for (const char* key : {"$defs", "definitions"}) {
    if (const auto definitions = parameters.find(key); definitions != parameters.end() && definitions->is_object()) {
      root_definitions[key].update(*definitions);
    }
  }
  return {{"type", "object"},
          {"properties", {{"name", {{"const", function.at("name")}}}, {"arguments", std::move(parameters)}}},
          {"required", {"name", "arguments"}},
          {"additionalProperties", false}};
}

Json OneCallSchema(const Json& tools) {
  Json definitions = Json::object();
  Json calls = Json::array();
  for (const Json& tool : tools) calls.push_back(CallSchema(tool.at("function"), definitions));
  Json schema = calls.size() == 1 ? calls[0] : Json{{"anyOf", std::move(calls)}};
  schema.update(definitions);
  return schema;
}

std::string WithInstruction(const std::string& messages_json, const std::string& tools_json) {
  const std::string instruction =
      "You answer by calling a function. The functions are:\n" + tools_json +
      "\nAnswer with one JSON object and nothing else: {\"name\": <function>, \"arguments\": <object>}";
  Json messages = Json::parse(messages_json);
  if (messages[0]["role"] == "system" && messages[0]["content"].is_string()) {
    messages[0]["content"] = messages[0]["content"].get<std::string>() + "\n\n" + instruction;
  } else {
    messages.insert(messages.begin(), Json{{"role", "system"}, {"content", instruction}});
  }
  return DumpText(messages);
}

class RequiredToolPrompt final : public ChatPrompt {
 public:
  explicit RequiredToolPrompt(std::shared_ptr<const ChatPrompt> inner)
      : inner_(std::move(inner)), id_(ToolCallId(inner_->call_seed, 0)) {
    prompt = inner_->prompt;
    tokens = inner_->tokens;
    stops = inner_->stops;
    call_seed = inner_->call_seed;
  }
  void ConstrainSampling(SamplingParams& params) const override { inner_->ConstrainSampling(params); }
  // Nothing of a call is told before it is whole: its text becomes the arguments in one piece.
  Result<ChatMessage> Parse(const std::string& text, bool partial) const override {
    if (partial) return ChatMessage{};
    Json call;
    const bool parsed = !ParseJson(text, call) && call.is_object() && call.contains("name") &&
                        call["name"].is_string() && call.contains("arguments") && call["arguments"].is_object();
    if (!parsed) return Error{ErrorCode::kInternal, "the answer is not a whole tool call"};
    ChatMessage message;
    message.tool_calls.push_back({id_, call["name"].get<std::string>(), DumpText(call["arguments"])});
    return message;
  }

 private:
  const std::shared_ptr<const ChatPrompt> inner_;
  const std::string id_;
};

}  // namespace

Result<std::shared_ptr<const ChatPrompt>> RenderRequiredTool(const ChatTemplate& chat_template,
                                                             const ChatRequest& request) {
  ChatRequest plain = request;
  SHOAL_ASSIGN_OR_RETURN(plain.grammar,
                         GrammarFromJsonSchema(DumpText(OneCallSchema(Json::parse(request.tools_json))), "tools"));
  plain.messages_json = WithInstruction(request.messages_json, request.tools_json);
  plain.tools_json.clear();
  plain.tool_choice = ToolChoice::kNone;
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const ChatPrompt> inner, chat_template.Render(plain));
  return std::shared_ptr<const ChatPrompt>(std::make_shared<RequiredToolPrompt>(std::move(inner)));
}

}  // namespace shoal
