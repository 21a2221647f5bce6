// One attempt after the other, each with all that was emitted so far as the end of its prompt.
#include "node/resuming.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "base/log.h"
#include "node/cluster_backend.h"
#include "runtime/clock.h"
#include "schedule/resumption.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kAttemptEvery{100};  // where the placement is the same as before
// How long nothing has to come before it is asked whether the model is placed elsewhere by now: the old head may be
// frozen, and say nothing.
constexpr milliseconds kSilentMin{100};

class ResumingGeneration final : public GenerationHandle {
 public:
  ResumingGeneration(std::shared_ptr<const ResumeTarget> target, GenerateOptions options)
      : target_(std::move(target)),
        sampling_(std::move(options.sampling)),
        generation_({std::move(options.prompt), options.emitted, options.tokens_max, target_->card.context_tokens_max,
                     DurationUs{1000} * target_->lost_max.count()},
                    RealClock().Now()) {}

  // Until a head has it, at most lost_max.
  Status Start() {
    for (;;) {
      const Status tried = Try();
      if (tried.ok() || !MayAskAgain(tried.error())) return tried;
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
      if (event->token) generation_.OnToken(*event->token);
      if (event->end != GenerationEnd::kError || !Resumption::MayPass(event->error)) return event;
      Lose(event->error);
      if (!event->token) continue;
      event->end.reset();
      return event;
    }
  }

  // Of the first head: what a client saved by asking again, not what a loss cost.
  std::int32_t reused_tokens() const override {
    return handle_ && !generation_.was_lost() ? handle_->reused_tokens() : reused_tokens_;
  }

 private:
  void Lose(const Error& why) {
    reused_tokens_ = reused_tokens();
    handle_.reset();
    generation_.OnLost(RealClock().Now());
    Log(LogLevel::kInfo, "generation", "lost after " + EmittedText() + ": " + why.message);
  }

  // One attempt. The event that ends the generation, when there is nothing to wait for.
  std::optional<GenerationEvent> Recover() {
    GenerationEvent event;
    if (const std::optional<Resumption::End> ended = generation_.ended()) {  // only the news of it was lost
      event.end = ended == Resumption::End::kStop ? GenerationEnd::kStop : GenerationEnd::kLength;
      return event;
    }
    const Status tried = Try();
    if (tried.ok()) {
      target_->resumed.Add();
      const DurationUs lost_ms = generation_.lost_us(RealClock().Now()) / 1000;
      Log(LogLevel::kInfo, "generation", "goes on after " + EmittedText() + " and " + std::to_string(lost_ms) + " ms");
      return std::nullopt;
    }
    if (MayAskAgain(tried.error())) return std::nullopt;
    event.end = GenerationEnd::kError;
    event.error = tried.error();
    return event;
  }

  bool MayAskAgain(const Error& refusal) const {
    return generation_.MayAskAgain(refusal, possible_, RealClock().Now());
  }

  Status Try() {
    changes_ = target_->placements.WaitForChange(0, milliseconds(0));
    const std::optional<PlacementView> placement = target_->placements.Find(target_->card.id);
    possible_ = placement && !(placement->broken && placement->hopeless);
    if (!placement) return Error{ErrorCode::kUnavailable, "'" + target_->card.id + "' is not placed any more"};
    if (placement->broken) {
      return Error{ErrorCode::kUnavailable, "'" + target_->card.id + "' cannot run now: " + placement->reason};
    }
    GenerateOptions options;
    options.prompt = generation_.history();
    options.sampling = sampling_;
    options.tokens_max = generation_.tokens_max();
    options.emitted = generation_.emitted();
    Result<std::unique_ptr<GenerationHandle>> handle = target_->start(placement->record, std::move(options));
    if (handle.ok()) {
      handle_ = *std::move(handle);
      epoch_ = placement->record.epoch;
      return {};
    }
    Error error = std::move(handle).error();
    if (error.code == ErrorCode::kStale) error.code = ErrorCode::kUnavailable;
    return error;
  }

  std::string EmittedText() const { return std::to_string(generation_.emitted()) + " tokens"; }

  const std::shared_ptr<const ResumeTarget> target_;
  const SamplingParams sampling_;
  Resumption generation_;
  std::unique_ptr<GenerationHandle> handle_;  // null while it is lost
  Epoch epoch_ = 0;                           // of the placement that has it, or had it last
  std::uint64_t changes_ = 0;                 // of the table of placements, when it was asked last
  std::int32_t reused_tokens_ = 0;
  bool possible_ = true;  // as of the last attempt: another one may go better
};

}  // namespace

Result<std::unique_ptr<GenerationHandle>> StartResuming(std::shared_ptr<const ResumeTarget> target,
                                                        GenerateOptions options) {
  auto generation = std::make_unique<ResumingGeneration>(std::move(target), std::move(options));
  SHOAL_RETURN_IF_ERROR(generation->Start());
  return std::unique_ptr<GenerationHandle>(std::move(generation));
}

}  // namespace shoal
