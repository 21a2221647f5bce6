// Reads a generation's events: tokens to text, text to the sink, until it ends.
#include "apps/cli/answer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "apps/cli/terminal.h"
#include "text/detokenizer.h"

namespace shoal::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPoll{50};  // how soon Ctrl-C is seen

double SecondsBetween(SteadyClock::time_point from, SteadyClock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Takes pieces of text as they come, raw or as a chat message.
class TextReader {
 public:
  TextReader(const AnswerRequest& request, Answer& answer, const TextSink& sink)
      : answer_(answer), sink_(sink), is_chat_(request.chat != nullptr), stream_(request.chat) {}

  Status Add(const std::string& piece, bool last) {
    if (!is_chat_) {
      answer_.text += piece;
      if (!piece.empty()) sink_(TextKind::kContent, piece);
      return {};
    }
    SHOAL_ASSIGN_OR_RETURN(const ChatDelta delta, stream_.Add(piece, last));
    if (!delta.reasoning.empty()) sink_(TextKind::kReasoning, delta.reasoning);
    if (!delta.content.empty()) sink_(TextKind::kContent, delta.content);
    if (last) {
      answer_.message = stream_.message();
      answer_.text = answer_.message.content;
    }
    return {};
  }

 private:
  Answer& answer_;
  const TextSink& sink_;
  const bool is_chat_;
  ChatStream stream_;
};

}  // namespace

Result<Answer> GenerateAnswer(Node& node, AnswerRequest request, const TextSink& sink) {
  std::vector<std::string> stops = request.stops;
  if (request.chat != nullptr) {
    request.chat->ConstrainSampling(request.sampling);
    stops.insert(stops.end(), request.chat->stops.begin(), request.chat->stops.end());
  }
  Answer answer;
  answer.prompt_tokens = static_cast<std::int32_t>(request.prompt.size());
  TextReader reader(request, answer, sink);
  Detokenizer detokenizer(node.shared_vocabulary(), std::move(stops), false, request.sampling.preserved_tokens);

  const auto start = SteadyClock::now();
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<GenerationHandle> handle,
                         node.Generate({std::move(request.prompt), std::move(request.sampling), request.tokens_max}));
  SteadyClock::time_point first = start, latest = start;
  while (answer.finish.empty()) {
    if (Interrupted()) {
      answer.finish = "interrupted";
      break;
    }
    std::optional<GenerationEvent> event = handle->Next(kPoll);
    if (!event) continue;
    if (event->end == GenerationEnd::kError) return event->error;
    if (event->token) {
      latest = SteadyClock::now();
      if (answer.tokens.empty()) first = latest;
      answer.tokens.push_back(event->token->token);
      answer.sampled.push_back(*event->token);
      const StopFinder::Step step = detokenizer.Add(event->token->token);
      SHOAL_RETURN_IF_ERROR(reader.Add(step.text, false));
      if (step.stopped) answer.finish = "stop";
    }
    if (event->end && answer.finish.empty()) {
      answer.finish = event->end == GenerationEnd::kLength ? "length" : "stop";
    }
  }
  SHOAL_RETURN_IF_ERROR(reader.Add(detokenizer.Finish(), true));
  answer.reused_tokens = handle->reused_tokens();
  answer.prompt_s = SecondsBetween(start, first);
  answer.decode_s = SecondsBetween(first, latest);
  return answer;
}

}  // namespace shoal::cli
