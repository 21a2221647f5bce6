// One request, step by step. docs/request-trace.md follows it through the other files.
#include "node/generate.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>

#include "runtime/ask_loop.h"
#include "runtime/bounded_queue.h"

namespace shoal {
namespace {

// What the loop's side and the reader's side of one generation share.
struct Channel {
  explicit Channel(std::size_t events_max) : events(events_max) {}
  BoundedQueue<GenerationEvent> events;
  std::atomic<std::int32_t> reused_tokens{0};
};

GenerationEnd EndOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return GenerationEnd::kStop;
    case FinishReason::kLength: return GenerationEnd::kLength;
    case FinishReason::kCancelled: return GenerationEnd::kCancelled;
    case FinishReason::kError: break;
  }
  return GenerationEnd::kError;
}

class Handle final : public GenerationHandle {
 public:
  Handle(std::shared_ptr<const GenerateTarget> target, GenerationId id, std::shared_ptr<Channel> channel)
      : target_(std::move(target)), id_(id), channel_(std::move(channel)) {}

  ~Handle() override {
    if (ended_) return;
    target_->loop.Post([&pipeline = target_->pipeline, id = id_] { pipeline.Cancel(id); });
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  std::optional<GenerationEvent> Next(std::chrono::milliseconds timeout) override {
    std::optional<GenerationEvent> event = channel_->events.PopFor(timeout);
    if (event && event->end) ended_ = true;
    return event;
  }

  std::int32_t reused_tokens() const override { return channel_->reused_tokens.load(); }

 private:
  const std::shared_ptr<const GenerateTarget> target_;
  const GenerationId id_;
  const std::shared_ptr<Channel> channel_;
  bool ended_ = false;
};

// Step 1: are its tokens the model's? Stages refuse whole frames that hold others.
Status CheckTokens(const GenerateOptions& options, std::int32_t n_vocab) {
  const auto check = [&](TokenId token) -> Status {
    if (token >= 0 && token < n_vocab) return {};
    return Error{ErrorCode::kInvalidArgument,
                 "token " + std::to_string(token) + " is not in the model's vocabulary of " + std::to_string(n_vocab)};
  };
  for (const TokenId token : options.prompt) SHOAL_RETURN_IF_ERROR(check(token));
  for (const LogitBias& bias : options.sampling.logit_bias) SHOAL_RETURN_IF_ERROR(check(bias.token));
  return {};
}

// And does it fit the context at all, and how much may it emit?
Result<std::int32_t> TokensToEmit(const GenerateOptions& options, std::int32_t context_tokens) {
  const auto prompt = static_cast<std::int64_t>(options.prompt.size());
  if (prompt == 0) return Error{ErrorCode::kInvalidArgument, "the prompt is empty"};
  if (prompt >= context_tokens) {
    return Error{ErrorCode::kContextFull, "the prompt has " + std::to_string(prompt) + " tokens; the context holds " +
                                              std::to_string(context_tokens) + ", and one must be left for the answer"};
  }
  const auto room = static_cast<std::int32_t>(context_tokens - prompt);
  return options.tokens_max > 0 ? std::min(options.tokens_max, room) : room;
}

// Step 3, on the loop, for every token and for the end: hand it to the reader. Never blocks: the queue has room for
// every event that the request can cause.
void Deliver(const Pipeline& pipeline, Channel& channel, const ScheduleEvent& event) {
  if (event.token) channel.reused_tokens.store(pipeline.ReusedTokens(event.generation));
  GenerationEvent out;
  out.token = event.token;
  if (event.finish) out.end = EndOf(*event.finish);
  out.error = event.error;
  const bool delivered = channel.events.TryPush(out);
  SHOAL_CHECK(delivered);
}

}  // namespace

Result<std::unique_ptr<GenerationHandle>> StartGeneration(std::shared_ptr<const GenerateTarget> target, GenerationId id,
                                                          GenerateOptions options) {
  SHOAL_RETURN_IF_ERROR(Validate(options.sampling));
  SHOAL_RETURN_IF_ERROR(CheckTokens(options, target->n_vocab));
  SHOAL_ASSIGN_OR_RETURN(const std::int32_t tokens_max, TokensToEmit(options, target->context_tokens));
  const auto channel = std::make_shared<Channel>(static_cast<std::size_t>(tokens_max) + 1);

  // Step 2: the scheduler takes it, on the loop. From there: pipeline/ sends its rows with others' in micro-batches,
  // every stage computes its layers, the last one samples, and the token comes back as an event.
  GenerationRequest request{id, std::move(options.prompt), options.emitted, tokens_max, std::move(options.sampling)};
  const std::optional<Status> accepted =
      AskLoop(target->loop, [&pipeline = target->pipeline, channel, request = std::move(request)]() mutable {
        return pipeline.Submit(std::move(request), [&pipeline, channel](const ScheduleEvent& event) {
          Deliver(pipeline, *channel, event);
        });
      });
  if (!accepted) return Error{ErrorCode::kUnavailable, "this node is stopping"};
  SHOAL_RETURN_IF_ERROR(*accepted);
  return std::unique_ptr<GenerationHandle>(std::make_unique<Handle>(std::move(target), id, channel));
}

}  // namespace shoal
