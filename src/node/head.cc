// Stage 0 by links in memory, the other stages by theirs.
#include "node/head.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "runtime/ask_loop.h"
#include "transport/memory.h"
#include "wire/messages.h"

namespace shoal {
namespace {

// How much later a token may be told. A pass that takes longer loses little to who formats an answer.
constexpr DurationUs kHoldEventsMaxUs = 10'000;

}  // namespace

std::shared_ptr<Head> Head::Start(HeadOptions options, std::unique_ptr<Stage> stage, std::unique_ptr<FrameSender> next,
                                  std::vector<std::unique_ptr<FrameReceiver>> results) {
  SHOAL_CHECK(stage != nullptr && (next != nullptr) == !results.empty());
  std::shared_ptr<Head> head(new Head(std::move(options)));
  const HeadOptions& o = head->options_;
  MemoryLink input = MakeMemoryLink(kPipelineLinkFramesMax);
  MemoryLink out = MakeMemoryLink(kPipelineLinkFramesMax);
  results.insert(results.begin(), std::move(out.receiver));
  StageWorkerOptions worker{0, o.epoch, o.wire_type, o.sent_bytes_max};
  if (o.holds_events)
    worker.on_passed_on = [head = head.get()](BatchId batch) { head->pipeline_->FirstPassedOn(batch); };
  head->worker_ = std::make_unique<StageWorker>(std::move(stage), worker, std::move(input.receiver), std::move(next),
                                                std::move(out.sender));
  const PipelineOptions pipeline{o.schedule, o.epoch, o.on_broken, o.holds_events ? kHoldEventsMaxUs : 0};
  head->pipeline_ = std::make_unique<Pipeline>(head->loop_, pipeline, std::move(input.sender), std::move(results));
  head->target_ =
      std::make_unique<GenerateTarget>(GenerateTarget{head->loop_, *head->pipeline_, o.context_tokens, o.n_vocab});
  head->worker_->Start();
  head->pipeline_->Start();
  return head;
}

Head::~Head() { Stop(); }

void Head::Stop() {
  std::call_once(stopped_, [this] {
    (void)stats();
    pipeline_->Stop();
    worker_->Stop();
    loop_.Stop();
  });
}

void Head::SetDraftChance(double chance_min) {
  const double chance = std::max(chance_min, options_.schedule.draft_chance_min);
  loop_.Post([this, chance] { pipeline_->SetDraftChanceMin(chance); });
}

ScheduleStats Head::stats() {
  const std::optional<ScheduleStats> now = AskLoop(loop_, [this] { return pipeline_->stats(); });
  const std::lock_guard lock(mutex_);
  if (now) last_stats_ = *now;
  return last_stats_;
}

std::unique_ptr<Stage> Head::TakeStage() { return worker_->TakeStage(); }

Result<std::unique_ptr<GenerationHandle>> Head::Generate(GenerateOptions options) {
  const std::shared_ptr<const GenerateTarget> target(shared_from_this(), target_.get());
  return StartGeneration(target, next_id_.fetch_add(1), std::move(options));
}

std::vector<StageTotals> Head::Totals() {
  return AskLoop(loop_, [this] { return pipeline_->stage_totals(); }).value_or(std::vector<StageTotals>{});
}

}  // namespace shoal
