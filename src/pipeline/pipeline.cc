// The head: results come in on a thread, which hands them to the loop; the loop answers with the next micro-batches
// before it tells anyone what came out, so that the stages work while the answers are formatted; if asked to, only when
// the first stage has passed on what it got for them.
#include "pipeline/pipeline.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "runtime/ask_loop.h"

namespace shoal {
namespace {

// Results that wait for the loop; then the link is left to fill.
constexpr std::size_t kInboxMax = 1024;
// For every stage to say what it holds, from Start: as long as a node may take to link its stages.
constexpr DurationUs kInventoriesMaxUs = 30'000'000;

// But for drafts.
std::int32_t InFlightMax(const ScheduleOptions& schedule) {
  return std::max(schedule.in_flight_max, schedule.decode_groups_max);
}

using HeadMessage = std::variant<ResultMessage, FailureMessage, InventoryMessage>;

}  // namespace

std::int32_t DraftsMax(const ScheduleOptions& schedule) {
  return std::min(schedule.in_flight_max, kPipelineInFlightMax - InFlightMax(schedule));
}

struct Pipeline::State : std::enable_shared_from_this<Pipeline::State> {
  State(Loop& control_loop, const PipelineOptions& pipeline_options, std::unique_ptr<FrameSender> first,
        std::vector<std::unique_ptr<FrameReceiver>> result_frames)
      : loop(control_loop),
        options(pipeline_options),
        to_first(std::move(first)),
        results(std::move(result_frames)),
        scheduler(pipeline_options.schedule),
        inventories(static_cast<std::size_t>(pipeline_options.schedule.stages)),
        totals(pipeline_options.schedule.stages) {}

  // Receiver threads.
  void ReadResults(std::size_t stage);
  void Deliver(HeadMessage message);

  // Loop.
  void Drain();
  void Handle(HeadMessage& message);
  void TakeInventory(InventoryMessage inventory);
  void WaitForInventories();
  DurationUs TakeElapsed(BatchId batch);
  void AddTimings(const std::vector<StageTiming>& timings);
  void Pump();
  void Observe();
  bool Send(FrameBytes frame);
  void PumpSoon();
  void Hold();
  void Dispatch();
  void Break(const std::string& why);

  Loop& loop;
  const PipelineOptions options;
  const std::unique_ptr<FrameSender> to_first;                // Send: loop; Close: any thread
  const std::vector<std::unique_ptr<FrameReceiver>> results;  // [stages]. Receive: its receiver; Close: any thread

  std::vector<std::thread> receivers;
  std::mutex mutex;
  std::condition_variable inbox_has_room;
  std::vector<HeadMessage> inbox;         // guarded by mutex
  std::optional<std::size_t> lost_stage;  // guarded by mutex: the first whose link has ended
  bool closed = false;                    // guarded by mutex: Stop was called
  ObservedSpeeds speeds;                  // guarded by mutex

  Scheduler scheduler;
  ObservedSpeed observed;
  std::vector<std::optional<InventoryMessage>> inventories;  // [stages], until all are there
  bool adopted = false;                                      // they were: now micro-batches go out
  std::unordered_map<GenerationId, std::shared_ptr<const EventHandler>> handlers;
  std::vector<StageTotals> totals;
  std::unordered_map<BatchId, TimeUs> sent_at;  // of what is in flight
  bool broken = false;
  std::string broken_why;
  bool pump_posted = false;
  std::vector<ScheduleEvent> events;  // not handed out yet
  TimerId hold_ends = 0;              // of those that wait for the first stage; 0: none do
  std::atomic<BatchId> held_for{0};   // what they wait for; 0: nothing, or it was passed on. Any thread
};

void Pipeline::State::ReadResults(std::size_t stage) {
  std::uint64_t refused = 0;
  while (std::optional<FrameBytes> bytes = results[stage]->Receive()) {
    Result<DecodedFrame> decoded = DecodeFrame(*bytes);
    std::optional<HeadMessage> message;
    if (decoded.ok() && decoded->header.epoch == options.epoch) {
      if (auto* result = std::get_if<ResultMessage>(&decoded->message)) message = std::move(*result);
      if (auto* failure = std::get_if<FailureMessage>(&decoded->message)) message = std::move(*failure);
      if (auto* inventory = std::get_if<InventoryMessage>(&decoded->message)) message = std::move(*inventory);
    }
    if (message) {
      Deliver(std::move(*message));
      continue;
    }
    // The 1st, 2nd, 4th, 8th, ... only: nobody may fill the log.
    if (++refused; (refused & (refused - 1)) == 0) {
      Log(LogLevel::kWarning, "pipeline",
          "result frame refused (" + std::to_string(refused) +
              " so far): " + (decoded.ok() ? "stale epoch or wrong type" : decoded.error().message));
    }
  }
  const std::lock_guard lock(mutex);
  if (!lost_stage) lost_stage = stage;
  if (!closed) loop.Post([self = shared_from_this()] { self->Drain(); });
}

void Pipeline::State::Deliver(HeadMessage message) {
  std::unique_lock lock(mutex);
  inbox_has_room.wait(lock, [&] { return closed || inbox.size() < kInboxMax; });
  if (closed) return;
  inbox.push_back(std::move(message));
  const bool is_first = inbox.size() == 1;
  lock.unlock();  // the loop needs it at once
  if (is_first) loop.Post([self = shared_from_this()] { self->Drain(); });
}

void Pipeline::State::Drain() {
  std::vector<HeadMessage> messages;
  std::optional<std::size_t> lost;
  {
    const std::lock_guard lock(mutex);
    messages.swap(inbox);
    lost = lost_stage;
  }
  inbox_has_room.notify_all();
  if (broken) return;
  for (HeadMessage& message : messages) Handle(message);
  held_for = 0;
  if (!broken) Pump();
  Observe();
  if (held_for != 0) {
    Hold();
  } else {
    Dispatch();
  }
  if (lost) Break("stage " + std::to_string(*lost) + ": the link from it to the head was lost");
}

void Pipeline::State::Handle(HeadMessage& message) {
  if (auto* inventory = std::get_if<InventoryMessage>(&message)) return TakeInventory(std::move(*inventory));
  if (const auto* result = std::get_if<ResultMessage>(&message)) {
    AddTimings(result->timings);
    scheduler.OnResult(*result, events, TakeElapsed(result->batch));
    return;
  }
  const auto& failure = std::get<FailureMessage>(message);
  if (failure.code == ErrorCode::kUnavailable && failure.generation == 0) {
    // What is on its way to that stage will never be answered.
    Break("stage " + std::to_string(failure.stage) + ": " + failure.message);
    return;
  }
  if (failure.generation == 0) (void)TakeElapsed(failure.batch);
  scheduler.OnFailure(failure, events);
}

// Since a micro-batch was sent; 0: it was not.
DurationUs Pipeline::State::TakeElapsed(BatchId batch) {
  const auto sent = sent_at.extract(batch);
  return sent.empty() ? 0 : loop.clock().Now() - sent.mapped();
}

void Pipeline::State::TakeInventory(InventoryMessage inventory) {
  const auto stage = static_cast<std::size_t>(inventory.stage);
  if (adopted || stage >= inventories.size() || inventories[stage]) return;  // nobody asked
  inventories[stage] = std::move(inventory);
  std::vector<InventoryMessage> all;
  for (const auto& one : inventories) {
    if (!one) return;
    all.push_back(*one);
  }
  inventories.clear();
  adopted = true;
  const Status taken = scheduler.Adopt(std::move(all));
  if (!taken.ok()) Break(taken.error().message);
}

void Pipeline::State::WaitForInventories() {
  loop.After(kInventoriesMaxUs, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr || self->adopted) return;
    self->Break("not every stage said what it holds");
  });
}

void Pipeline::State::AddTimings(const std::vector<StageTiming>& timings) {
  for (std::size_t i = 0; i < timings.size() && i < totals.size(); ++i) {
    ++totals[i].batches;
    totals[i].compute_us += timings[i].compute_us;
    totals[i].wait_us += timings[i].wait_us;
    totals[i].wire_us += timings[i].wire_us;
  }
}

void Pipeline::State::Pump() {
  while (adopted && !broken) {
    std::optional<MicroBatch> next = scheduler.Next();
    if (!next) return;
    for (FrameBytes& frame : EncodeControls(std::move(next->ops), options.epoch)) {
      if (!Send(std::move(frame))) return;
    }
    if (next->rows.empty()) continue;
    BatchMessage batch;
    batch.batch = next->id;
    batch.first_stage = next->first_stage;
    batch.last_stage = next->last_stage;
    batch.rows = std::move(next->rows);
    batch.tokens = std::move(next->tokens);
    sent_at[batch.batch] = loop.clock().Now();
    if (options.hold_events_max_us > 0 && !events.empty()) held_for = batch.batch;
    if (!Send(EncodeBatch(batch, {}, options.epoch))) return;
  }
}

// After all that changes what runs.
void Pipeline::State::Observe() {
  const ScheduleStats stats = scheduler.stats();
  observed.Note(static_cast<double>(loop.clock().Now()) / 1e6,
                {stats.decoding, stats.running - stats.decoding, stats.tokens_decoded, stats.tokens_prefilled});
  const std::lock_guard lock(mutex);
  speeds = observed.speeds();
}

bool Pipeline::State::Send(FrameBytes frame) {
  if (to_first->Send(std::move(frame)).ok()) return true;
  // Not now: who called is in the middle of something.
  loop.Post([self = shared_from_this()] { self->Break("the link to the first stage is closed"); });
  return false;
}

// Once for all that is submitted or cancelled in one task: what arrives together is prefilled together.
void Pipeline::State::PumpSoon() {
  if (pump_posted) return;
  pump_posted = true;
  loop.Post([self = shared_from_this()] {
    self->pump_posted = false;
    self->Pump();
    self->Observe();
  });
}

void Pipeline::State::Hold() {
  if (hold_ends != 0) return;
  hold_ends = loop.After(options.hold_events_max_us, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->hold_ends = 0;
    self->Dispatch();
  });
}

void Pipeline::State::Dispatch() {
  held_for = 0;
  if (hold_ends != 0) loop.CancelTimer(std::exchange(hold_ends, 0));
  for (const ScheduleEvent& event : std::exchange(events, {})) {
    const auto it = handlers.find(event.generation);
    if (it == handlers.end()) continue;  // cancelled by a handler before it
    const std::shared_ptr<const EventHandler> handler = it->second;
    if (event.finish) handlers.erase(it);
    (*handler)(event);
  }
}

void Pipeline::State::Break(const std::string& why) {
  if (broken) return;
  Dispatch();  // what came before it
  broken = true;
  broken_why = why;
  to_first->Close();
  auto ended = std::move(handlers);
  handlers.clear();
  for (const auto& [id, handler] : ended) scheduler.Cancel(id);
  for (const auto& [id, handler] : ended) {
    ScheduleEvent event;
    event.generation = id;
    event.finish = FinishReason::kError;
    event.error = Error{ErrorCode::kUnavailable, why};
    (*handler)(event);
  }
  bool stopped = false;
  {
    const std::lock_guard lock(mutex);
    stopped = closed;
  }
  if (!stopped && options.on_broken) options.on_broken(why);
}

Pipeline::Pipeline(Loop& loop, const PipelineOptions& options, std::unique_ptr<FrameSender> to_first,
                   std::vector<std::unique_ptr<FrameReceiver>> results)
    : state_(std::make_shared<State>(loop, options, std::move(to_first), std::move(results))) {
  SHOAL_CHECK(InFlightMax(options.schedule) + options.schedule.drafts_max <= kPipelineInFlightMax);
}

Pipeline::~Pipeline() { Stop(); }

void Pipeline::Start() {
  SHOAL_CHECK(state_->receivers.empty());
  state_->WaitForInventories();
  for (std::size_t stage = 0; stage < state_->results.size(); ++stage) {
    state_->receivers.emplace_back([state = state_.get(), stage] {
      NameThisThread("shoal-results");
      state->ReadResults(stage);
    });
  }
}

void Pipeline::Stop() {
  State& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    if (s.closed) return;
    s.closed = true;
  }
  s.inbox_has_room.notify_all();
  s.to_first->Close();
  for (const auto& link : s.results) link->Close();
  for (std::thread& receiver : s.receivers) receiver.join();
  if (s.loop.InLoop()) return s.Break("the pipeline was stopped");
  // A loop that has stopped drops the task, and with it the promise: then nobody is left to tell.
  AskLoop(s.loop, [state = state_] {
    state->Break("the pipeline was stopped");
    return true;
  });
}

Status Pipeline::Submit(GenerationRequest request, EventHandler handler) {
  State& s = *state_;
  SHOAL_CHECK(s.loop.InLoop());
  if (s.broken) return Error{ErrorCode::kUnavailable, s.broken_why};
  const GenerationId id = request.id;
  SHOAL_RETURN_IF_ERROR(s.scheduler.Submit(std::move(request)));
  s.handlers[id] = std::make_shared<const EventHandler>(std::move(handler));
  s.PumpSoon();
  return {};
}

void Pipeline::Cancel(GenerationId id) {
  State& s = *state_;
  SHOAL_CHECK(s.loop.InLoop());
  if (s.handlers.erase(id) == 0) return;
  s.scheduler.Cancel(id);
  if (!s.broken) s.PumpSoon();
}

void Pipeline::FirstPassedOn(BatchId batch) {
  if (batch == 0 || !state_->held_for.compare_exchange_strong(batch, 0)) return;
  state_->loop.Post([self = state_] { self->Dispatch(); });
}

void Pipeline::SetDraftChanceMin(double chance) {
  SHOAL_CHECK(state_->loop.InLoop());
  state_->scheduler.SetDraftChanceMin(chance);
}

ScheduleStats Pipeline::stats() const {
  SHOAL_CHECK(state_->loop.InLoop());
  return state_->scheduler.stats();
}

std::int32_t Pipeline::ReusedTokens(GenerationId id) const {
  SHOAL_CHECK(state_->loop.InLoop());
  return state_->scheduler.ReusedTokens(id);
}

ObservedSpeeds Pipeline::speeds() const {
  const std::lock_guard lock(state_->mutex);
  return state_->speeds;
}

std::vector<StageTotals> Pipeline::stage_totals() const {
  SHOAL_CHECK(state_->loop.InLoop());
  return state_->totals;
}

}  // namespace shoal
