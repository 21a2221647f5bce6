// Chat completions: parse, render by the model's template, and OpenAI's shapes of what comes.
#include "api/answer_plan.h"
#include "api/chat_choice.h"
#include "api/openai_requests.h"
#include "api/required_tool.h"

namespace shoal {
namespace {

// As for text completions: longer conversations cannot fit whatever their tokens are. Twice, for the JSON around.
constexpr std::size_t kBytesPerTokenMax = 512;

class ChatStreamView final : public StreamView {
 public:
  ChatStreamView(const AnswerHead& head, bool logprobs, std::vector<ChatChoice> choices)
      : head_(head), logprobs_(logprobs), choices_(std::move(choices)) {}

  std::string Begin(std::size_t choice) override { return ChatRoleEvent(head_, choice); }

  std::vector<std::string> Add(std::size_t choice, ChoiceStep& step) override {
    std::vector<std::string> events;
    const ChatDelta delta = choices_[choice].Add(step);
    const bool ids = head_.token_ids && !step.token_ids.empty();
    if (!delta.empty() || !step.tokens.empty() || ids) {
      const auto* tokens = logprobs_ ? &step.tokens : nullptr;
      events.push_back(ChatDeltaEvent(head_, choice, delta, tokens, step.token_ids, ""));
    }
    if (step.end) events.push_back(ChatDeltaEvent(head_, choice, {}, nullptr, {}, choices_[choice].finish_reason()));
    return events;
  }

 private:
  const AnswerHead head_;
  const bool logprobs_;
  std::vector<ChatChoice> choices_;
};

class ChatWholeView final : public WholeView {
 public:
  ChatWholeView(const AnswerHead& head, bool logprobs, std::vector<ChatChoice> choices)
      : head_(head), logprobs_(logprobs), choices_(std::move(choices)), answers_(choices_.size()) {}

  void Add(std::size_t choice, ChoiceStep& step) override {
    choices_[choice].Add(step);
    ChatAnswer& answer = answers_[choice];
    answer.token_ids.insert(answer.token_ids.end(), step.token_ids.begin(), step.token_ids.end());
    std::move(step.tokens.begin(), step.tokens.end(), std::back_inserter(answer.tokens));
  }

  std::string Body(const RunUsage& usage) override {
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      answers_[i].message = choices_[i].message();
      answers_[i].finish_reason = choices_[i].finish_reason();
    }
    return ChatObject(head_, answers_, logprobs_, usage);
  }

 private:
  const AnswerHead head_;
  const bool logprobs_;
  std::vector<ChatChoice> choices_;
  std::vector<ChatAnswer> answers_;
};

class ChatPlan final : public AnswerPlan {
 public:
  std::unique_ptr<StreamView> Stream(const AnswerHead& as) const override {
    return std::make_unique<ChatStreamView>(as, logprobs(), MakeChoices());
  }
  std::unique_ptr<WholeView> Whole() const override {
    return std::make_unique<ChatWholeView>(head, logprobs(), MakeChoices());
  }

  std::shared_ptr<const ChatPrompt> prompt;

 private:
  bool logprobs() const { return prompts[0].sampling.logprobs >= 0; }
  std::vector<ChatChoice> MakeChoices() const {
    std::vector<ChatChoice> made;
    for (std::size_t i = 0; i < choices(); ++i) made.emplace_back(prompt);
    return made;
  }
};

// FNV-1a. Ids of calls follow from the answer's id, which nobody can guess.
std::uint64_t SeedOfCalls(const std::string& id) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

// The field of a request that a message of ChatTemplate::Render is about.
std::string FieldOf(const Error& error) {
  static constexpr std::pair<std::string_view, const char*> kFields[] = {
      {"json_schema: ", "response_format"},
      {"tools: ", "tools"},
      {"tool_choice: ", "tool_choice"},
      {"grammar: ", "grammar"},
      {"chat_template_kwargs: ", "chat_template_kwargs"},
  };
  for (const auto& [start, field] : kFields)
    if (error.message.starts_with(start)) return field;
  return "messages";
}

// Whence the grammar of an answer is.
const char* GrammarField(const ChatRequest& chat) {
  if (!chat.grammar.empty()) return "grammar";
  return chat.json_object || !chat.json_schema.empty() ? "response_format" : "tools";
}

std::optional<ApiError> Render(const ChatTemplate& chat_template, ChatCompletionRequest& request, ChatPlan& plan) {
  if (request.chat.tool_choice == ToolChoice::kRequired) {  // the answer is a call: there is nothing else to format
    request.chat.json_schema.clear();
    request.chat.json_object = false;
  }
  SamplingParams sampling = request.sampling;
  auto prompt = chat_template.Render(request.chat);
  if (prompt.ok()) (*prompt)->ConstrainSampling(sampling);
  if (prompt.ok() && request.chat.tool_choice == ToolChoice::kRequired && sampling.grammar.empty()) {
    // The template passed the tools over, and nothing would make the model call one.
    sampling = request.sampling;
    prompt = RenderRequiredTool(chat_template, request.chat);
    if (prompt.ok()) (*prompt)->ConstrainSampling(sampling);
  }
  if (!prompt.ok()) return FromError(prompt.error(), FieldOf(prompt.error()));
  plan.prompt = *std::move(prompt);
  request.sampling = std::move(sampling);
  return std::nullopt;
}

}  // namespace

PlannedAnswer PlanChat(Service& service, const AnswerRecord& record) {
  auto plan = std::make_unique<ChatPlan>();
  ChatCompletionRequest request;
  if (auto error = ParseChatCompletionRequest(record.body, request)) return *error;
  if (auto error = FindBackend(service, record, request.model, plan->backend)) return *error;
  const ModelCard card = plan->backend->model();
  const auto chat_template = plan->backend->chat_template();
  if (chat_template == nullptr) {
    return InvalidRequest("This model has no chat template: use /v1/completions.", "model");
  }
  if (request.chat.messages_json.size() > static_cast<std::size_t>(card.context_tokens_max) * kBytesPerTokenMax) {
    return FromError({ErrorCode::kContextFull, "The messages are too long for a context of " +
                                                   std::to_string(card.context_tokens_max) + " tokens."},
                     "messages");
  }
  request.chat.now_s = record.created_s;
  request.chat.call_seed = SeedOfCalls(record.id);
  if (auto error = Render(*chat_template, request, *plan)) return *error;
  if (!request.seed_given) request.sampling.seed = record.seed;
  if (auto error = CheckSampling(*plan->backend, request.sampling, GrammarField(request.chat))) return *error;
  RunPrompt prompt{plan->prompt->tokens, request.sampling, request.tokens_max.value_or(0), request.stops};
  prompt.stops.insert(prompt.stops.end(), plan->prompt->stops.begin(), plan->prompt->stops.end());
  plan->head = {record.id, card.id, record.created_s, request.include_usage, request.token_ids, prompt.tokens.size()};
  plan->prompts.push_back(std::move(prompt));
  plan->choices_per_prompt = static_cast<std::size_t>(request.choices);
  plan->chat = true;
  plan->streamed = request.stream;
  return plan;
}

}  // namespace shoal
