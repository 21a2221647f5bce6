// Parse, render by the model's template, start, then either collect everything or stream it.
#include "api/chat.h"

#include <ctime>

#include "api/chat_choice.h"
#include "api/completion.h"
#include "api/openai_requests.h"
#include "api/openai_responses.h"
#include "api/required_tool.h"

namespace shoal {
namespace {

// As for text completions: longer conversations cannot fit whatever their tokens are. Twice, for the JSON around.
constexpr std::size_t kBytesPerTokenMax = 512;

struct Session {
  ChatCompletionRequest request;
  std::shared_ptr<Backend> backend;
  AnswerHead head;
  std::shared_ptr<const ChatPrompt> prompt;
  std::unique_ptr<GenerationRun> run;
};

std::optional<ApiError> Prepare(const Backend& backend, Session& session) {
  ChatCompletionRequest& request = session.request;
  const ModelCard card = backend.model();
  const auto chat_template = backend.chat_template();
  if (chat_template == nullptr) {
    return InvalidRequest("This model has no chat template: use /v1/completions.", "model");
  }
  if (request.chat.messages_json.size() > static_cast<std::size_t>(card.context_tokens_max) * kBytesPerTokenMax) {
    return FromError({ErrorCode::kContextFull, "The messages are too long for a context of " +
                                                   std::to_string(card.context_tokens_max) + " tokens."},
                     "messages");
  }
  SamplingParams sampling = request.sampling;
  auto prompt = chat_template->Render(request.chat);
  if (prompt.ok()) (*prompt)->ConstrainSampling(sampling);
  if (prompt.ok() && request.chat.tool_choice == ToolChoice::kRequired && sampling.grammar.empty()) {
    // The template passed the tools over, and nothing would make the model call one.
    sampling = request.sampling;
    prompt = RenderRequiredTool(*chat_template, request.chat);
    if (prompt.ok()) (*prompt)->ConstrainSampling(sampling);
  }
  if (!prompt.ok()) return FromError(prompt.error(), "messages");
  session.prompt = *std::move(prompt);
  request.sampling = std::move(sampling);
  if (auto error = CheckSampling(backend, request.seed_given, request.sampling)) return error;
  session.head = {MakeId("chatcmpl-"), card.id, std::time(nullptr), request.include_usage};
  session.head.token_ids = request.token_ids;
  session.head.prompt_tokens = session.prompt->tokens.size();
  return std::nullopt;
}

std::variant<std::unique_ptr<GenerationRun>, ApiError> StartRun(ApiContext& context, const Session& session) {
  RunPrompt prompt{session.prompt->tokens, session.request.sampling, session.request.tokens_max.value_or(0),
                   session.request.stops};
  prompt.stops.insert(prompt.stops.end(), session.prompt->stops.begin(), session.prompt->stops.end());
  return GenerationRun::Start(context, session.backend, {prompt}, session.request.choices);
}

std::vector<ChatChoice> MakeChoices(const Session& session) {
  std::vector<ChatChoice> choices;
  for (std::int32_t i = 0; i < session.request.choices; ++i) choices.emplace_back(session.prompt);
  return choices;
}

Reply Collect(Session& session, const ClientLink& link) {
  std::vector<ChatChoice> choices = MakeChoices(session);
  std::vector<ChatAnswer> answers(choices.size());
  const auto outcome = session.run->Run(
      link,
      [&](std::size_t index, ChoiceStep& step) {
        choices[index].Add(step);
        std::vector<TokenId>& ids = answers[index].token_ids;
        ids.insert(ids.end(), step.token_ids.begin(), step.token_ids.end());
        std::move(step.tokens.begin(), step.tokens.end(), std::back_inserter(answers[index].tokens));
        return true;
      },
      [] { return true; });
  if (outcome == GenerationRun::Outcome::kFailed) return ErrorReply(FromError(session.run->error()));
  if (outcome == GenerationRun::Outcome::kGone) return ErrorReply(FromStatus(503, "The server is stopping."));
  for (std::size_t i = 0; i < choices.size(); ++i) {
    answers[i].message = choices[i].message();
    answers[i].finish_reason = choices[i].finish_reason();
  }
  Reply reply;
  reply.body = ChatObject(session.head, answers, session.request.sampling.logprobs >= 0, session.run->usage());
  return reply;
}

void Stream(Session& session, const ClientLink& link, EventSink& sink) {
  const bool logprobs = session.request.sampling.logprobs >= 0;
  std::vector<ChatChoice> choices = MakeChoices(session);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (!sink.Write(ChatRoleEvent(session.head, i))) return;
  }
  const auto outcome = session.run->Run(
      link,
      [&](std::size_t index, ChoiceStep& step) {
        const ChatDelta delta = choices[index].Add(step);
        const bool ids = session.head.token_ids && !step.token_ids.empty();
        if (!delta.empty() || !step.tokens.empty() || ids) {
          const auto* tokens = logprobs ? &step.tokens : nullptr;
          if (!sink.Write(ChatDeltaEvent(session.head, index, delta, tokens, step.token_ids, ""))) return false;
        }
        if (!step.end) return true;
        return sink.Write(ChatDeltaEvent(session.head, index, {}, nullptr, {}, choices[index].finish_reason()));
      },
      [&] { return sink.Write(kKeepAliveEvent); });
  if (outcome == GenerationRun::Outcome::kFailed) sink.Write(ErrorEvent(FromError(session.run->error())));
  if (outcome != GenerationRun::Outcome::kDone) return;
  if (session.request.include_usage) sink.Write(UsageEvent(session.head, true, session.run->usage()));
  sink.Write(kDoneEvent);
}

}  // namespace

Reply AnswerChat(ApiContext& context, std::string_view body, const ClientLink& link) {
  auto session = std::make_shared<Session>();
  if (auto error = ParseChatCompletionRequest(body, session->request)) return ErrorReply(*error);
  if (auto error = FindBackend(context.service, session->request.model, session->backend)) return ErrorReply(*error);
  if (auto error = Prepare(*session->backend, *session)) return ErrorReply(*error);
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
