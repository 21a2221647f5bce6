// Text completions: prompts of all shapes to tokens, and OpenAI's shapes of what comes.
#include "api/answer_plan.h"
#include "api/openai_requests.h"

namespace shoal {
namespace {

// No token of any vocabulary stands for more bytes on average, so a longer text cannot fit: said before tokenizing it.
constexpr std::size_t kBytesPerTokenMax = 256;

class CompletionStreamView final : public StreamView {
 public:
  CompletionStreamView(const AnswerHead& head, bool logprobs, bool echo, std::vector<std::string> echoes)
      : head_(head), logprobs_(logprobs), echo_(echo), echoes_(std::move(echoes)) {}

  std::string Begin(std::size_t choice) override {
    return echo_ ? CompletionEvent(head_, choice, echoes_[choice], nullptr, {}, "") : "";
  }

  std::vector<std::string> Add(std::size_t choice, ChoiceStep& step) override {
    const bool ids = head_.token_ids && !step.token_ids.empty();
    if (step.text.empty() && step.tokens.empty() && !ids && !step.end) return {};
    return {CompletionEvent(head_, choice, step.text, logprobs_ ? &step.tokens : nullptr, step.token_ids,
                            step.end ? FinishReasonText(*step.end) : "")};
  }

 private:
  const AnswerHead head_;
  const bool logprobs_, echo_;
  const std::vector<std::string> echoes_;  // by choice
};

class CompletionWholeView final : public WholeView {
 public:
  CompletionWholeView(const AnswerHead& head, bool logprobs, const std::vector<std::string>& echoes)
      : head_(head), logprobs_(logprobs) {
    for (const std::string& echo : echoes) answers_.push_back({echo, {}, {}, ""});
  }

  void Add(std::size_t choice, ChoiceStep& step) override {
    CompletionAnswer& answer = answers_[choice];
    answer.text += step.text;
    std::move(step.tokens.begin(), step.tokens.end(), std::back_inserter(answer.tokens));
    answer.token_ids.insert(answer.token_ids.end(), step.token_ids.begin(), step.token_ids.end());
    if (step.end) answer.finish_reason = FinishReasonText(*step.end);
  }

  std::string Body(const RunUsage& usage) override { return CompletionObject(head_, answers_, logprobs_, usage); }

 private:
  const AnswerHead head_;
  const bool logprobs_;
  std::vector<CompletionAnswer> answers_;
};

class CompletionPlan final : public AnswerPlan {
 public:
  std::unique_ptr<StreamView> Stream(const AnswerHead& as) const override {
    return std::make_unique<CompletionStreamView>(as, logprobs(), echo, EchoesOfChoices());
  }
  std::unique_ptr<WholeView> Whole() const override {
    return std::make_unique<CompletionWholeView>(head, logprobs(), EchoesOfChoices());
  }

  bool echo = false;
  std::vector<std::string> echoes;  // by prompt; empty texts unless asked for

 private:
  bool logprobs() const { return prompts[0].sampling.logprobs >= 0 && !nothing; }
  std::vector<std::string> EchoesOfChoices() const {
    std::vector<std::string> of_choices;
    for (std::size_t i = 0; i < choices(); ++i) of_choices.push_back(echoes[i / choices_per_prompt]);
    return of_choices;
  }
};

std::optional<ApiError> PromptTokens(const Backend& backend, PromptInput& input) {
  const Vocabulary& vocabulary = backend.vocabulary();
  const auto context_tokens = static_cast<std::size_t>(backend.model().context_tokens_max);
  if (input.text.size() > context_tokens * kBytesPerTokenMax) {
    return FromError({ErrorCode::kContextFull, "The prompt has " + std::to_string(input.text.size()) +
                                                   " bytes, too many for a context of " +
                                                   std::to_string(context_tokens) + " tokens."},
                     "prompt");
  }
  if (input.tokens.empty()) {
    auto tokens = vocabulary.Tokenize(input.text, true, true);
    if (!tokens.ok()) return FromError(tokens.error(), "prompt");
    input.tokens = *std::move(tokens);
    if (input.tokens.empty() && vocabulary.bos() >= 0) input.tokens.push_back(vocabulary.bos());
    if (input.tokens.empty()) return InvalidRequest("The prompt is empty.", "prompt");
  }
  for (const TokenId token : input.tokens) {
    if (token >= vocabulary.size()) {
      return InvalidRequest("Token " + std::to_string(token) + " is not in the vocabulary of " +
                                std::to_string(vocabulary.size()) + " tokens.",
                            "prompt");
    }
  }
  return std::nullopt;
}

std::optional<ApiError> TakePrompts(CompletionRequest& request, CompletionPlan& plan) {
  for (PromptInput& input : request.prompts) {
    const bool given_as_text = input.tokens.empty();
    if (auto error = PromptTokens(*plan.backend, input)) return error;
    plan.head.prompt_tokens += input.tokens.size();
    std::string& echo = plan.echoes.emplace_back();
    if (request.echo && given_as_text) echo = input.text;
    if (request.echo && !given_as_text)
      for (const TokenId token : input.tokens) echo += plan.backend->vocabulary().Piece(token, true);
    plan.prompts.push_back({std::move(input.tokens), request.sampling, request.tokens_max.value_or(0), request.stops});
  }
  return std::nullopt;
}

}  // namespace

PlannedAnswer PlanCompletion(Service& service, const AnswerRecord& record) {
  auto plan = std::make_unique<CompletionPlan>();
  CompletionRequest request;
  if (auto error = ParseCompletionRequest(record.body, request)) return *error;
  if (auto error = FindBackend(service, record, request.model, plan->backend)) return *error;
  const bool json = request.json_object || !request.json_schema.empty();
  if (json) {
    auto grammar = GrammarFromJsonSchema(request.json_schema);
    if (!grammar.ok()) return FromError(grammar.error(), "response_format");
    request.sampling.grammar = *std::move(grammar);
  }
  if (!request.seed_given) request.sampling.seed = record.seed;
  if (auto error = CheckSampling(*plan->backend, request.sampling, json ? "response_format" : "grammar")) return *error;
  plan->head = {record.id, plan->backend->model().id, record.created_s, request.include_usage, request.token_ids, 0};
  if (auto error = TakePrompts(request, *plan)) return *error;
  plan->choices_per_prompt = static_cast<std::size_t>(request.choices);
  plan->echo = request.echo;
  plan->streamed = request.stream;
  plan->nothing = request.tokens_max == 0;  // the prompt may be echoed and counted, no more
  return plan;
}

}  // namespace shoal
