// Results in, micro-batches out, events to whoever asked.
#include "sim/head.h"

#include <optional>
#include <utility>

namespace shoal::sim {

SimHead::SimHead(const ScheduleOptions& options, Epoch epoch, Hooks hooks)
    : epoch_(epoch),
      hooks_(std::move(hooks)),
      scheduler_(options),
      inventories_(static_cast<std::size_t>(options.stages)) {}

Result<GenerationId> SimHead::Submit(GenerationRequest request, Sink sink) {
  if (broken_) return Error{ErrorCode::kUnavailable, why_};
  const GenerationId id = request.id = ++last_id_;
  SHOAL_RETURN_IF_ERROR(scheduler_.Submit(std::move(request)));
  sinks_[id] = std::move(sink);
  PumpSoon();
  return id;
}

void SimHead::Cancel(GenerationId id) {
  if (sinks_.erase(id) == 0) return;
  scheduler_.Cancel(id);
  if (!broken_) PumpSoon();
}

void SimHead::PumpSoon() {
  if (std::exchange(pump_posted_, true)) return;
  hooks_.soon([this] {
    pump_posted_ = false;
    Pump();
  });
}

void SimHead::TakeInventory(InventoryMessage inventory) {
  const auto stage = static_cast<std::size_t>(inventory.stage);
  if (adopted_ || stage >= inventories_.size() || inventories_[stage]) return;
  inventories_[stage] = std::move(inventory);
  std::vector<InventoryMessage> all;
  for (const auto& one : inventories_) {
    if (!one) return;
    all.push_back(*one);
  }
  adopted_ = true;
  const Status taken = scheduler_.Adopt(std::move(all));
  if (!taken.ok()) Break(taken.error().message);
}

void SimHead::Pump() {
  while (adopted_ && !broken_) {
    std::optional<MicroBatch> next = scheduler_.Next();
    if (!next) return;
    for (FrameBytes& frame : EncodeControls(std::move(next->ops), epoch_)) hooks_.to_first(std::move(frame));
    if (next->rows.empty()) continue;
    BatchMessage batch;
    batch.batch = next->id;
    batch.first_stage = next->first_stage;
    batch.last_stage = next->last_stage;
    batch.rows = std::move(next->rows);
    batch.tokens = std::move(next->tokens);
    hooks_.to_first(EncodeBatch(batch, {}, epoch_));
  }
}

void SimHead::OnResultFrame(const FrameBytes& frame) {
  if (broken_) return;
  Result<DecodedFrame> decoded = DecodeFrame(frame);
  if (!decoded.ok() || decoded->header.epoch != epoch_) return;
  if (auto* inventory = std::get_if<InventoryMessage>(&decoded->message)) TakeInventory(std::move(*inventory));
  std::vector<ScheduleEvent> events;
  if (const auto* result = std::get_if<ResultMessage>(&decoded->message)) scheduler_.OnResult(*result, events);
  if (const auto* failure = std::get_if<FailureMessage>(&decoded->message)) {
    if (failure->code == ErrorCode::kUnavailable && failure->generation == 0) {
      return Break("stage " + std::to_string(failure->stage) + ": " + failure->message);
    }
    scheduler_.OnFailure(*failure, events);
  }
  Pump();
  Dispatch(events);
}

void SimHead::Dispatch(const std::vector<ScheduleEvent>& events) {
  for (const ScheduleEvent& event : events) {
    const auto found = sinks_.find(event.generation);
    if (found == sinks_.end()) continue;
    const Sink sink = found->second;
    if (event.finish) sinks_.erase(found);
    sink(event);
  }
}

void SimHead::Break(const std::string& why) {
  if (std::exchange(broken_, true)) return;
  why_ = why;
  const std::map<GenerationId, Sink> ended = std::exchange(sinks_, {});
  for (const auto& [id, sink] : ended) scheduler_.Cancel(id);
  for (const auto& [id, sink] : ended) {
    ScheduleEvent event;
    event.generation = id;
    event.finish = FinishReason::kError;
    event.error = Error{ErrorCode::kUnavailable, why};
    sink(event);
  }
  if (!stopped_) hooks_.on_broken(why);
}

void SimHead::Stop() {
  stopped_ = true;
  Break("the pipeline was stopped");
}

std::string SimHead::Describe() const {
  const ScheduleStats stats = scheduler_.stats();
  return " head: " + std::to_string(sinks_.size()) + " generations, " + std::to_string(stats.running) + " run, " +
         std::to_string(stats.waiting) + " wait, " + std::to_string(stats.in_flight) + " in flight" +
         (broken_ ? ", broken" : "");
}

}  // namespace shoal::sim
