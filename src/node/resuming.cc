// One attempt after the other, each with all that was emitted so far as the end of its prompt.
#include "node/resuming.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "base/log.h"
#include "node/cluster_backend.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kAttemptEvery{100};  // where the placement is the same as before
// How long nothing has to come before it is asked whether the model is placed elsewhere by now: the old head may be
// frozen, and say nothing.
constexpr milliseconds kSilentMin{100};

// Whether another placement, or the same one a little later, may do it.
bool MayPass(const Error& error) { return error.code == ErrorCode::kStale || error.code == ErrorCode::kUnavailable; }

class ResumingGeneration final : public GenerationHandle {
 public:
  ResumingGeneration(std::shared_ptr<const ResumeTarget> target, GenerateOptions options)
      : target_(std::move(target)), options_(std::move(options)) {}

  // Until a head has it, at most lost_max.
  Status Start() {
    lost_since_ = steady_clock::now();
    for (;;) {
      const Status tried = Try();
      if (tried.ok()) return tried;
      if (!MayWait(tried.error())) return tried;
      (void)target_->placements.WaitForChange(changes_, kAttemptEvery);
    }
  }

  std::optional<GenerationEvent> Next(milliseconds timeout) override {
    const auto deadline = steady_clock::now() + timeout;
    for (;;) {
      const auto left = std::max(milliseconds(0), std::chrono::ceil<milliseconds>(deadline - steady_clock::now()));
      if (handle_ == nullptr) {
        if (std::optional<GenerationEvent> end = Recover()) return end;
        if (handle_ == nullptr) {
          (void)target_->placements.WaitForChange(changes_, std::min(left, kAttemptEvery));
          if (left <= kAttemptEvery) return std::nullopt;
          continue;
        }
      }
      std::optional<GenerationEvent> event = handle_->Next(std::min(left, kSilentMin));
      if (!event && target_->placements.IsSuperseded(target_->card.id, epoch_)) {
        Lose({ErrorCode::kUnavailable, "the model was placed anew"});
        continue;
      }
      if (!event && left > kSilentMin) continue;
      if (!event) return std::nullopt;
      if (event->token) Keep(*event->token);
      if (event->end != GenerationEnd::kError || !MayPass(event->error)) return event;
      Lose(event->error);
      if (!event->token) continue;
      event->end.reset();
      return event;
    }
  }

  // Of the first head: what a client saved by asking again, not what a loss cost.
  std::int32_t reused_tokens() const override {
    return handle_ && !resumed_ ? handle_->reused_tokens() : reused_tokens_;
  }

 private:
  void Keep(const SampledToken& token) {
    options_.prompt.push_back(token.token);
    ++options_.emitted;
    ended_ = token.end;
    if (options_.tokens_max > 0) full_ = --options_.tokens_max == 0;
    full_ = full_ || static_cast<std::int64_t>(options_.prompt.size()) >= target_->card.context_tokens_max;
  }

  void Lose(const Error& why) {
    reused_tokens_ = reused_tokens();
    resumed_ = true;
    handle_.reset();
    lost_since_ = steady_clock::now();
    Log(LogLevel::kInfo, "generation", "lost after " + std::to_string(options_.emitted) + " tokens: " + why.message);
  }

  // One attempt. The event that ends the generation, when there is nothing to wait for.
  std::optional<GenerationEvent> Recover() {
    GenerationEvent event;
    if (ended_ || full_) {  // only the news that it has ended was lost
      event.end = ended_ ? GenerationEnd::kStop : GenerationEnd::kLength;
      return event;
    }
    const Status tried = Try();
    if (tried.ok()) {
      const milliseconds lost = std::chrono::floor<milliseconds>(steady_clock::now() - lost_since_);
      target_->resumed.Add();
      Log(LogLevel::kInfo, "generation",
          "goes on after " + std::to_string(options_.emitted) + " tokens and " + std::to_string(lost.count()) + " ms");
      return std::nullopt;
    }
    if (MayWait(tried.error())) return std::nullopt;
    event.end = GenerationEnd::kError;
    event.error = tried.error();
    return event;
  }

  // Whether to ask again after this refusal. Once a head has accepted it, also one whose queue is full.
  bool MayWait(const Error& refusal) const {
    const bool passes = MayPass(refusal) || (resumed_ && refusal.code == ErrorCode::kOverloaded);
    return passes && possible_ && steady_clock::now() - lost_since_ <= target_->lost_max;
  }

  Status Try() {
    changes_ = target_->placements.WaitForChange(0, milliseconds(0));
    const std::optional<PlacementView> placement = target_->placements.Find(target_->card.id);
    possible_ = placement && !(placement->broken && placement->hopeless);
    if (!placement) return Error{ErrorCode::kUnavailable, "'" + target_->card.id + "' is not placed any more"};
    if (placement->broken) {
      return Error{ErrorCode::kUnavailable, "'" + target_->card.id + "' cannot run now: " + placement->reason};
    }
    Result<std::unique_ptr<GenerationHandle>> handle = target_->start(placement->record, options_);
    if (handle.ok()) {
      handle_ = *std::move(handle);
      epoch_ = placement->record.epoch;
      return {};
    }
    Error error = std::move(handle).error();
    if (error.code == ErrorCode::kStale) error.code = ErrorCode::kUnavailable;
    return error;
  }

  const std::shared_ptr<const ResumeTarget> target_;
  GenerateOptions options_;                   // the prompt grows, and tokens_max shrinks, with every token
  std::unique_ptr<GenerationHandle> handle_;  // null while it is lost
  steady_clock::time_point lost_since_;
  Epoch epoch_ = 0;            // of the placement that has it, or had it last
  std::uint64_t changes_ = 0;  // of the table of placements, when it was asked last
  std::int32_t reused_tokens_ = 0;
  bool possible_ = true;  // as of the last attempt: another one may go better
  bool resumed_ = false;
  bool ended_ = false, full_ = false;  // by the last token
};

}  // namespace

Result<std::unique_ptr<GenerationHandle>> StartResuming(std::shared_ptr<const ResumeTarget> target,
                                                        GenerateOptions options) {
  auto generation = std::make_unique<ResumingGeneration>(std::move(target), std::move(options));
  SHOAL_RETURN_IF_ERROR(generation->Start());
  return std::unique_ptr<GenerationHandle>(std::move(generation));
}

}  // namespace shoal
