// Round robin over the choices; every wait is short, so that a lost client is noticed within 100 ms.
#include "api/generation_run.h"

#include <algorithm>

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPollInterval{100};       // one choice left to wait for
constexpr milliseconds kPollIntervalShared{10};  // several: none may be kept waiting behind another for long

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

}  // namespace

Reply ErrorReply(const ApiError& error) { return {error.status, ErrorBody(error), error.retry_after_s, nullptr}; }

GenerationRun::GenerationRun(ApiContext& context, std::shared_ptr<Backend> backend, Admission::Permit permit)
    : context_(context), backend_(std::move(backend)), permit_(std::move(permit)) {}

GenerationRun::~GenerationRun() {
  context_.metrics.request_seconds.Observe(SecondsSince(start_));
  context_.metrics.cached_tokens.Add(static_cast<std::uint64_t>(usage().cached_tokens));
}

std::variant<std::unique_ptr<GenerationRun>, ApiError> GenerationRun::Start(ApiContext& context,
                                                                            const std::shared_ptr<Backend>& backend,
                                                                            const std::vector<RunPrompt>& prompts,
                                                                            std::int32_t choices) {
  const std::size_t count = prompts.size() * static_cast<std::size_t>(choices);
  if (count > static_cast<std::size_t>(context.admission.generations_max())) {
    return InvalidRequest("The request asks for " + std::to_string(count) + " generations; this server runs at most " +
                              std::to_string(context.admission.generations_max()) + " at once.",
                          "n");
  }
  auto permit = context.admission.TryEnter(static_cast<int>(count));
  if (!permit) return FromError({ErrorCode::kOverloaded, "Too many requests are being answered. Try again shortly."});
  std::unique_ptr<GenerationRun> run(new GenerationRun(context, backend, *std::move(permit)));
  run->choices_per_prompt_ = static_cast<std::size_t>(choices);
  for (const RunPrompt& prompt : prompts) {
    for (std::int32_t i = 0; i < choices; ++i) {
      GenerateOptions options{prompt.tokens, prompt.sampling, prompt.tokens_max};
      options.sampling.seed += static_cast<std::uint64_t>(i);
      auto handle = backend->Generate(std::move(options));
      if (!handle.ok()) return FromError(handle.error());
      run->choices_.emplace_back(*std::move(handle), backend->shared_vocabulary(), prompt.stops,
                                 prompt.sampling.preserved_tokens, prompt.sampling.logprobs >= 0);
    }
    run->usage_.prompt_tokens += static_cast<std::int64_t>(prompt.tokens.size());
  }
  context.metrics.prompt_tokens.Add(static_cast<std::uint64_t>(run->usage_.prompt_tokens));
  return run;
}

bool GenerationRun::AllDone() const {
  return std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.done(); });
}

std::optional<std::pair<std::size_t, ChoiceStep>> GenerationRun::Poll() {
  const auto live = static_cast<std::size_t>(
      std::count_if(choices_.begin(), choices_.end(), [](const Choice& c) { return !c.done(); }));
  // First whoever has something now, then a short wait on the one whose turn it is.
  for (const milliseconds wait : {milliseconds(0), live > 1 ? kPollIntervalShared : kPollInterval}) {
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      const std::size_t index = (turn_ + i) % choices_.size();
      if (choices_[index].done()) continue;
      auto step = choices_[index].Next(wait);
      if (step || wait.count() > 0) turn_ = index + 1;
      if (step) {
        if (!step->token_ids.empty() && !first_token_seen_) {
          first_token_seen_ = true;
          context_.metrics.first_token_seconds.Observe(SecondsSince(start_));
        }
        usage_.completion_tokens += static_cast<std::int64_t>(step->token_ids.size());
        context_.metrics.completion_tokens.Add(step->token_ids.size());
        return std::pair(index, *std::move(step));
      }
      if (wait.count() > 0) return std::nullopt;
    }
  }
  return std::nullopt;
}

bool GenerationRun::AwaitFirst(milliseconds timeout, const ClientLink& link) {
  const auto deadline = steady_clock::now() + timeout;
  while (ready_.empty() && !AllDone() && steady_clock::now() < deadline) {
    if (link.gone()) {
      choices_.clear();
      context_.metrics.disconnects.Add();
      return false;
    }
    if (auto step = Poll()) ready_.push_back(*std::move(step));
  }
  return true;
}

std::optional<Error> GenerationRun::EarlyError() const {
  for (const auto& [index, step] : ready_) {
    if (step.end == GenerationEnd::kError) return step.error;
    if (step.end == GenerationEnd::kCancelled) return Error{ErrorCode::kUnavailable, "The generation was cancelled."};
  }
  return std::nullopt;
}

GenerationRun::Outcome GenerationRun::Run(const ClientLink& link,
                                          const std::function<bool(std::size_t, ChoiceStep&)>& take,
                                          const std::function<bool()>& idle) {
  auto last_progress = steady_clock::now();
  const auto gone = [&] {
    choices_.clear();  // frees the slots
    context_.metrics.disconnects.Add();
    return Outcome::kGone;
  };
  while (!ready_.empty() || !AllDone()) {
    if (link.gone()) return gone();
    if (ready_.empty()) {
      if (auto step = Poll()) ready_.push_back(*std::move(step));
    }
    if (ready_.empty()) {
      if (steady_clock::now() - last_progress < context_.keep_alive_interval) continue;
      last_progress = steady_clock::now();
      if (!idle()) return gone();
      continue;
    }
    last_progress = steady_clock::now();
    auto [index, step] = std::move(ready_.front());
    ready_.pop_front();
    if (step.end == GenerationEnd::kError || step.end == GenerationEnd::kCancelled) {
      error_ = step.end == GenerationEnd::kError ? step.error
                                                 : Error{ErrorCode::kUnavailable, "The generation was cancelled."};
      choices_.clear();
      return Outcome::kFailed;
    }
    if (!take(index, step)) return gone();
  }
  return Outcome::kDone;
}

RunUsage GenerationRun::usage() const {
  RunUsage usage = usage_;
  // The choices of one prompt count its tokens once, so its first choice speaks for them.
  for (std::size_t i = 0; i < choices_.size(); i += choices_per_prompt_)
    usage.cached_tokens += choices_[i].reused_tokens();
  return usage;
}

}  // namespace shoal
