// Parse, tokenize, start, then either collect everything or stream it.
#include "api/completion.h"

#include <ctime>

#include "api/openai_requests.h"
#include "api/openai_responses.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

// No token of any vocabulary stands for more bytes on average, so a longer text cannot fit: said before tokenizing it.
constexpr std::size_t kBytesPerTokenMax = 256;

struct Session {
  CompletionRequest request;
  std::shared_ptr<Backend> backend;
  AnswerHead head;
  std::vector<std::string> echoes;  // by prompt; empty unless asked for
  std::unique_ptr<GenerationRun> run;
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

std::optional<ApiError> Prepare(const Backend& backend, Session& session) {
  CompletionRequest& request = session.request;
  if (request.json_object || !request.json_schema.empty()) {
    auto grammar = GrammarFromJsonSchema(request.json_schema);
    if (!grammar.ok()) return FromError(grammar.error(), "response_format");
    request.sampling.grammar = *std::move(grammar);
  }
  if (auto error = CheckSampling(backend, request.seed_given, request.sampling)) return error;
  for (PromptInput& input : request.prompts) {
    const bool given_as_text = input.tokens.empty();
    if (auto error = PromptTokens(backend, input)) return error;
    std::string& echo = session.echoes.emplace_back();
    if (!request.echo) continue;
    if (given_as_text)
      echo = input.text;
    else
      for (const TokenId token : input.tokens) echo += backend.vocabulary().Piece(token, true);
  }
  session.head = {MakeId("cmpl-"), backend.model().id, std::time(nullptr), request.include_usage};
  session.head.token_ids = request.token_ids;
  for (const PromptInput& input : request.prompts) session.head.prompt_tokens += input.tokens.size();
  return std::nullopt;
}

std::variant<std::unique_ptr<GenerationRun>, ApiError> StartRun(ApiContext& context, const Session& session) {
  const CompletionRequest& request = session.request;
  std::vector<RunPrompt> prompts;
  for (const PromptInput& input : request.prompts) {
    prompts.push_back({input.tokens, request.sampling, request.tokens_max.value_or(0), request.stops});
  }
  return GenerationRun::Start(context, session.backend, prompts, request.choices);
}

// max_tokens 0: the prompt may be echoed and counted, nothing is generated.
Reply AnswerWithoutTokens(const Session& session) {
  RunUsage usage;
  std::vector<CompletionAnswer> answers;
  std::string events;
  for (std::size_t p = 0; p < session.request.prompts.size(); ++p) {
    usage.prompt_tokens += static_cast<std::int64_t>(session.request.prompts[p].tokens.size());
    for (std::int32_t i = 0; i < session.request.choices; ++i) {
      events += CompletionEvent(session.head, answers.size(), session.echoes[p], nullptr, {}, "length");
      answers.push_back({session.echoes[p], {}, {}, "length"});
    }
  }
  Reply reply;
  if (!session.request.stream) {
    reply.body = CompletionObject(session.head, answers, false, usage);
    return reply;
  }
  if (session.request.include_usage) events += UsageEvent(session.head, false, usage);
  reply.stream = [events = events + std::string(kDoneEvent)](EventSink& sink) { sink.Write(events); };
  return reply;
}

Reply Collect(Session& session, const ClientLink& link) {
  const auto choices = static_cast<std::size_t>(session.request.choices);
  std::vector<CompletionAnswer> answers(session.request.prompts.size() * choices);
  for (std::size_t i = 0; i < answers.size(); ++i) answers[i].text = session.echoes[i / choices];
  const auto outcome = session.run->Run(
      link,
      [&](std::size_t index, ChoiceStep& step) {
        CompletionAnswer& answer = answers[index];
        answer.text += step.text;
        std::move(step.tokens.begin(), step.tokens.end(), std::back_inserter(answer.tokens));
        answer.token_ids.insert(answer.token_ids.end(), step.token_ids.begin(), step.token_ids.end());
        if (step.end) answer.finish_reason = FinishReason(*step.end);
        return true;
      },
      [] { return true; });
  if (outcome == GenerationRun::Outcome::kFailed) return ErrorReply(FromError(session.run->error()));
  if (outcome == GenerationRun::Outcome::kGone) return ErrorReply(FromStatus(503, "The server is stopping."));
  Reply reply;
  reply.body = CompletionObject(session.head, answers, session.request.sampling.logprobs >= 0, session.run->usage());
  return reply;
}

void Stream(Session& session, const ClientLink& link, EventSink& sink) {
  const auto choices = static_cast<std::size_t>(session.request.choices);
  const bool logprobs = session.request.sampling.logprobs >= 0;
  if (session.request.echo) {
    for (std::size_t i = 0; i < session.request.prompts.size() * choices; ++i) {
      if (!sink.Write(CompletionEvent(session.head, i, session.echoes[i / choices], nullptr, {}, ""))) return;
    }
  }
  const auto outcome = session.run->Run(
      link,
      [&](std::size_t index, ChoiceStep& step) {
        const bool ids = session.head.token_ids && !step.token_ids.empty();
        if (step.text.empty() && step.tokens.empty() && !ids && !step.end) return true;
        return sink.Write(CompletionEvent(session.head, index, step.text, logprobs ? &step.tokens : nullptr,
                                          step.token_ids, step.end ? FinishReason(*step.end) : ""));
      },
      [&] { return sink.Write(kKeepAliveEvent); });
  if (outcome == GenerationRun::Outcome::kFailed) sink.Write(ErrorEvent(FromError(session.run->error())));
  if (outcome != GenerationRun::Outcome::kDone) return;
  if (session.request.include_usage) sink.Write(UsageEvent(session.head, false, session.run->usage()));
  sink.Write(kDoneEvent);
}

}  // namespace

ApiError ModelNotFound(std::string_view name) {
  return {404,
          "The model '" + std::string(name) + "' is not served here; GET /v1/models lists what is.",
          "invalid_request_error",
          "model",
          "model_not_found",
          0};
}

std::optional<ApiError> FindBackend(Service& service, const std::string& name, std::shared_ptr<Backend>& out) {
  out = service.Find(name);
  if (out != nullptr) return std::nullopt;
  if (!service.models().empty()) return ModelNotFound(name);
  return FromStatus(503, "No model is placed here yet: `shoal place MODEL` places one.");
}

std::optional<ApiError> CheckSampling(const Backend& backend, bool seed_given, SamplingParams& sampling) {
  if (!seed_given) sampling.seed = RandomSeed();
  for (const LogitBias& bias : sampling.logit_bias) {
    if (bias.token >= backend.vocabulary().size()) {
      return InvalidRequest("'logit_bias' names token " + std::to_string(bias.token) +
                                ", which is not in the "
                                "vocabulary.",
                            "logit_bias");
    }
  }
  const Status status = Validate(sampling);
  if (!status.ok()) return FromError(status.error());
  return std::nullopt;
}

std::string FinishReason(GenerationEnd end) { return end == GenerationEnd::kLength ? "length" : "stop"; }

Reply AnswerCompletion(ApiContext& context, std::string_view body, const ClientLink& link) {
  auto session = std::make_shared<Session>();
  if (auto error = ParseCompletionRequest(body, session->request)) return ErrorReply(*error);
  if (auto error = FindBackend(context.service, session->request.model, session->backend)) return ErrorReply(*error);
  if (auto error = Prepare(*session->backend, *session)) return ErrorReply(*error);
  if (session->request.tokens_max == 0) return AnswerWithoutTokens(*session);
  auto run = StartRun(context, *session);
  if (const auto* error = std::get_if<ApiError>(&run)) return ErrorReply(*error);
  session->run = std::get<0>(std::move(run));
  if (!session->request.stream) return Collect(*session, link);
  if (!session->run->AwaitFirst(kFirstStepWait, link)) return ErrorReply(FromStatus(503, "The server is stopping."));
  if (auto error = session->run->EarlyError()) return ErrorReply(FromError(*error));
  Reply reply;
  reply.stream = [session, link](EventSink& sink) { Stream(*session, link, sink); };
  return reply;
}

}  // namespace shoal
