// The only user of llama-common's chat code. Its exceptions end here; its log is off, because it would print what
// people wrote and what models answered.
#include "text/chat.h"

// llama-common. In angle brackets: its chat.h is not the one of this folder.
#include <chat.h>
#include <common.h>
#include <json-schema-to-grammar.h>
#include <json.h>
#include <log.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <mutex>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/token_sampler.h"
#include "runtime/rng.h"
#include "text/schema_check.h"

namespace shoal {
namespace {

constexpr int kJsonDepthMax = 128;  // llama-common walks JSON recursively
constexpr std::string_view kChatMlEnd = "<|im_end|>";
constexpr auto kReasoning = COMMON_REASONING_FORMAT_DEEPSEEK;  // reasoning apart from content, streamed too

Error Invalid(const std::string& why) { return Error{ErrorCode::kInvalidArgument, why}; }

// Parses `text`, refusing depths that would exhaust the stack later. Errors: kInvalidArgument.
Result<common_json> ParseJson(const std::string& text, const char* what) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kJsonDepthMax) return Invalid(std::string(what) + ": nested too deeply");
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  try {
    return common_json::parse(text);
  } catch (const std::exception& e) { return Invalid(std::string(what) + ": " + e.what()); }
}

// Null where a tool has no parameters that are an object.
common_json* ParametersOf(common_json& tool) {
  if (!tool.is_object() || !tool.contains("function") || !tool.at("function").is_object()) return nullptr;
  common_json& function = tool.at("function");
  return function.contains("parameters") ? &function.at("parameters") : nullptr;
}

common_chat_tool_choice ToCommon(ToolChoice choice) {
  switch (choice) {
    case ToolChoice::kNone: return COMMON_CHAT_TOOL_CHOICE_NONE;
    case ToolChoice::kRequired: return COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    case ToolChoice::kAuto: break;
  }
  return COMMON_CHAT_TOOL_CHOICE_AUTO;
}

Result<common_chat_templates_inputs> ToInputs(const ChatRequest& request) {
  common_chat_templates_inputs inputs;
  SHOAL_ASSIGN_OR_RETURN(const common_json messages, ParseJson(request.messages_json, "messages"));
  if (!messages.is_array() || messages.empty()) return Invalid("messages: must be a list with at least one message");
  inputs.messages = common_chat_msgs_parse_oaicompat(messages);
  SchemaCheck schemas;
  if (!request.tools_json.empty()) {
    SHOAL_ASSIGN_OR_RETURN(common_json tools, ParseJson(request.tools_json, "tools"));
    for (std::size_t i = 0; tools.is_array() && i < tools.size(); ++i) {
      common_json* parameters = ParametersOf(tools.at(i));
      if (parameters != nullptr) SHOAL_RETURN_IF_ERROR(schemas.Take(*parameters, "tools"));
    }
    inputs.tools = common_chat_tools_parse_oaicompat(tools);
  }
  const bool constrained = request.json_object || !request.json_schema.empty();
  const bool with_tools = !inputs.tools.empty() && request.tool_choice != ToolChoice::kNone;
  if (!request.grammar.empty() && (constrained || with_tools)) {
    return Invalid("grammar: cannot be combined with tools or a JSON response format");
  }
  if (request.tool_choice == ToolChoice::kRequired && inputs.tools.empty()) {
    return Invalid("tool_choice: 'required' needs tools");
  }
  if (constrained) {
    inputs.json_schema = request.json_schema.empty() ? R"({"type": "object"})" : request.json_schema;
    SHOAL_ASSIGN_OR_RETURN(common_json schema, ParseJson(inputs.json_schema, "json_schema"));
    if (!schema.is_object()) return Invalid("json_schema: must be an object");
    SHOAL_RETURN_IF_ERROR(schemas.Take(schema, "json_schema"));
    inputs.json_schema = schema.dump_safe();
    // An empty schema allows any value; llama-common would take it for no schema at all.
    if (schema.empty()) inputs.json_schema = R"({"type": "object"})";
  }
  for (const auto& [name, value] : request.template_arguments) {
    SHOAL_RETURN_IF_ERROR(ParseJson(value, "chat_template_kwargs"));
    inputs.chat_template_kwargs[name] = value;
  }
  inputs.tool_choice = ToCommon(request.tool_choice);
  inputs.parallel_tool_calls = request.parallel_tool_calls;
  inputs.enable_thinking = request.enable_thinking;
  inputs.reasoning_format = kReasoning;
  inputs.grammar = request.grammar;
  inputs.use_jinja = true;
  if (request.now_s != 0) inputs.now = std::chrono::system_clock::from_time_t(request.now_s);
  inputs.add_generation_prompt = true;
  return inputs;
}

// Why llama-common threw `words`. It makes grammars of schemas while it applies a template: what it says then is of
// them.
Error WhyNot(const ChatRequest& request, const std::string& words) {
  const auto schema = GrammarFromJsonSchema(request.json_schema);
  if (!schema.ok()) return schema.error();
  const auto tools = ParseJson(request.tools_json.empty() ? "[]" : request.tools_json, "tools");
  for (std::size_t i = 0; tools.ok() && tools->is_array() && i < tools->size(); ++i) {
    common_json tool = tools->at(i);
    const common_json* parameters = ParametersOf(tool);
    if (parameters == nullptr) continue;
    const auto grammar = GrammarFromJsonSchema(parameters->dump_safe(), "tools");
    if (!grammar.ok()) return grammar.error();
  }
  return Invalid("chat template: " + words);
}

// The prompt's tokens with BOS once: llama-common has taken it off the text where the tokenizer adds it. An EOS that
// the tokenizer would add has no place before an answer.
Result<std::vector<TokenId>> TokenizePrompt(const Vocabulary& vocabulary, const std::string& prompt) {
  SHOAL_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, vocabulary.Tokenize(prompt, true, true));
  const TokenId eos = vocabulary.eos();
  if (eos >= 0 && !tokens.empty() && tokens.back() == eos) {
    const std::string end = vocabulary.Piece(eos, true);
    const bool in_text =
        prompt.size() >= end.size() && prompt.compare(prompt.size() - end.size(), end.size(), end) == 0;
    if (!in_text) tokens.pop_back();
  }
  return tokens;
}

// The one token that `text` is, or -1.
TokenId SingleToken(const Vocabulary& vocabulary, const std::string& text) {
  const auto tokens = vocabulary.Tokenize(text, false, true);
  return tokens.ok() && tokens->size() == 1 ? tokens->front() : -1;
}

class TemplatePrompt : public ChatPrompt {
 public:
  // May throw what llama-common throws.
  TemplatePrompt(std::shared_ptr<const Vocabulary> vocabulary, const ChatRequest& request, bool with_tools,
                 common_chat_params params)
      : vocabulary_(std::move(vocabulary)), parser_(params) {
    call_seed = request.call_seed;
    prompt = std::move(params.prompt);
    stops = std::move(params.additional_stops);
    parser_.reasoning_format = kReasoning;
    parser_.parse_tool_calls = with_tools;
    if (!request.parallel_tool_calls) tool_calls_max_ = 1;
    if (!params.parser.empty()) parser_.parser.load(params.parser);

    const bool constrained = request.json_object || !request.json_schema.empty();
    if (params.grammar.empty()) {
      grammar_ = request.grammar;
    } else {
      lazy_ = params.grammar_lazy;
      grammar_ = params.grammar;
      if (!lazy_) grammar_prefill_ = GenerationPromptTokens();
    }
    for (const std::string& text : params.preserved_tokens) {
      const TokenId token = SingleToken(*vocabulary_, text);
      if (token >= 0) preserved_.push_back(token);
    }
    for (const common_grammar_trigger& trigger : params.grammar_triggers) AddTrigger(trigger);
    plain_ = !with_tools && !constrained && !params.supports_thinking && PassesTextThrough();
  }

  void ConstrainSampling(SamplingParams& sampling) const override {
    if (!grammar_.empty()) {
      sampling.grammar = grammar_;
      sampling.grammar_prefill = grammar_prefill_;
      sampling.grammar_lazy = lazy_;
      sampling.grammar_triggers = triggers_;
    }
    sampling.preserved_tokens = preserved_;
  }

  Result<ChatMessage> Parse(const std::string& text, bool partial) const override {
    ChatMessage message;
    if (plain_) {
      message.content = text;
      return message;
    }
    try {
      common_chat_msg parsed = common_chat_parse(text, partial, parser_);
      message.content = parsed.content.empty() ? parsed.render_content() : std::move(parsed.content);
      message.reasoning = std::move(parsed.reasoning_content);
      for (common_chat_tool_call& call : parsed.tool_calls) {
        if (message.tool_calls.size() == tool_calls_max_) break;  // some templates' grammars do not stop at one
        if (call.id.empty()) call.id = ToolCallId(call_seed, message.tool_calls.size());
        message.tool_calls.push_back({std::move(call.id), std::move(call.name), std::move(call.arguments)});
      }
    } catch (const std::exception& e) {
      return Error{ErrorCode::kInternal,
                   std::string("the answer does not follow the chat template's format: ") + e.what()};
    }
    return message;
  }

  bool plain() const override { return plain_; }

 private:
  // The start of the answer that the template has put into the prompt already.
  std::vector<TokenId> GenerationPromptTokens() const {
    const std::string& text = parser_.generation_prompt;
    auto started = vocabulary_->Tokenize(text, false, true);
    if (!started.ok() || started->empty() || text.empty()) return {};
    // Some tokenizers put a space before the text; the grammar does not expect it.
    const std::string first = vocabulary_->Piece(started->front(), true);
    if (!first.empty() && first[0] == ' ' && text[0] != ' ') started->erase(started->begin());
    return std::move(started).value();
  }

  void AddTrigger(const common_grammar_trigger& trigger) {
    const std::string& value = trigger.value;
    switch (trigger.type) {
      case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: triggers_.push_back({trigger.token, ""}); return;
      case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN: triggers_.push_back({-1, value}); return;
      case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: {
        const bool open = value.empty() || value.front() != '^', unclosed = value.empty() || value.back() != '$';
        triggers_.push_back({-1, (open ? "^" : "") + value + (unclosed ? "$" : "")});
        return;
      }
      case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: {
        const TokenId token = SingleToken(*vocabulary_, value);
        if (token < 0) {
          triggers_.push_back({-1, regex_escape(value)});
          return;
        }
        triggers_.push_back({token, ""});
        if (std::find(preserved_.begin(), preserved_.end(), token) == preserved_.end()) preserved_.push_back(token);
        return;
      }
    }
  }

  // Asks the template's parser whether it leaves text with the usual kinds of markup as it is.
  bool PassesTextThrough() const {
    const std::string probe = " \n<a> {\"b\": [1]} ```c``` </think> <tool_call> **d** \n ";
    for (const bool partial : {true, false}) {
      const common_chat_msg parsed = common_chat_parse(probe, partial, parser_);
      if (parsed.content != probe || !parsed.reasoning_content.empty() || !parsed.tool_calls.empty()) return false;
    }
    return true;
  }

  std::shared_ptr<const Vocabulary> vocabulary_;
  common_chat_parser_params parser_;
  std::string grammar_;
  std::vector<TokenId> grammar_prefill_;
  bool lazy_ = false;
  bool plain_ = false;
  std::size_t tool_calls_max_ = std::string::npos;
  std::vector<GrammarTrigger> triggers_;
  std::vector<TokenId> preserved_;
};

}  // namespace

struct ChatTemplate::State {
  std::shared_ptr<const Vocabulary> vocabulary;
  common_chat_templates_ptr templates;
};

ChatTemplate::ChatTemplate(std::unique_ptr<State> state) : state_(std::move(state)) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::Open(std::shared_ptr<const Vocabulary> vocabulary,
                                                               const std::string& override_source) {
  SHOAL_CHECK(vocabulary != nullptr);
  static std::once_flag quiet;
  std::call_once(quiet, [] { common_log_set_verbosity_thold(-1); });
  auto state = std::make_unique<State>();
  state->vocabulary = std::move(vocabulary);
  try {
    state->templates = common_chat_templates_init(state->vocabulary->llama(), override_source);
  } catch (const std::exception& e) { return Error{ErrorCode::kCorrupt, std::string("chat template: ") + e.what()}; }
  if (!common_chat_templates_was_explicit(state->templates.get())) {
    Log(LogLevel::kWarning, "text", "the model has no chat template: using ChatML; answers may be poor");
  }
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(state)));
}

bool ChatTemplate::from_model() const { return common_chat_templates_was_explicit(state_->templates.get()); }

Result<std::shared_ptr<const ChatPrompt>> ChatTemplate::Render(const ChatRequest& request) const {
  const Vocabulary& vocabulary = *state_->vocabulary;
  std::shared_ptr<TemplatePrompt> prompt;
  try {
    SHOAL_ASSIGN_OR_RETURN(const common_chat_templates_inputs inputs, ToInputs(request));
    const bool with_tools = !inputs.tools.empty() && request.tool_choice != ToolChoice::kNone;
    common_chat_params params = common_chat_templates_apply(state_->templates.get(), inputs);
    prompt = std::make_shared<TemplatePrompt>(state_->vocabulary, request, with_tools, std::move(params));
  } catch (const std::exception& e) { return WhyNot(request, e.what()); }
  // Without a template of its own the model's vocabulary need not have ChatML's end as an ending token.
  if (!from_model() && !vocabulary.IsEndOfGeneration(SingleToken(vocabulary, std::string(kChatMlEnd)))) {
    prompt->stops.emplace_back(kChatMlEnd);
  }
  SHOAL_ASSIGN_OR_RETURN(prompt->tokens, TokenizePrompt(vocabulary, prompt->prompt));
  return std::shared_ptr<const ChatPrompt>(std::move(prompt));
}

std::string ToolCallId(std::uint64_t call_seed, std::size_t index) {
  char id[40];
  std::snprintf(id, sizeof id, "call_%016llx%04zx", static_cast<unsigned long long>(CounterRandom(call_seed, 0)),
                index & 0xFFFFU);
  return id;
}

Result<std::string> GrammarFromJsonSchema(const std::string& schema_json, const char* what) {
  SHOAL_ASSIGN_OR_RETURN(common_json schema,
                         ParseJson(schema_json.empty() ? R"({"type": "object"})" : schema_json, what));
  if (!schema.is_object()) return Invalid(std::string(what) + ": must be an object");
  SHOAL_RETURN_IF_ERROR(SchemaCheck().Take(schema, what));
  try {
    return json_schema_to_grammar(schema, /*force_gbnf=*/true);
  } catch (const std::exception& e) { return Invalid(std::string(what) + ": " + e.what()); }
}

}  // namespace shoal
