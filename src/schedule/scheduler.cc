// Requests in, results back: the life of a generation. Slots and cells are in admission.cc, rows in batching.cc, what
// an earlier epoch left in adoption.cc.
#include "schedule/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "schedule/scheduler_state.h"

namespace shoal {

Scheduler::State::State(const ScheduleOptions& schedule_options)
    : options(schedule_options),
      context_max(std::min<std::int64_t>(schedule_options.kv_tokens_max, kHistoryMax)),
      slots(schedule_options),
      draft_chance_min(schedule_options.draft_chance_min) {
  SHOAL_CHECK(options.stages >= 1 && options.slots_max >= 1 && options.slots_max <= kSlotsMax);
  SHOAL_CHECK(options.batch_rows_max >= 1 && options.batch_rows_max <= static_cast<std::int32_t>(kRowsMax));
  SHOAL_CHECK(options.batch_sequences_max >= 1 && options.output_rows_max >= 1);
  if (options.decode_groups_max > 0 && !options.reproducible) {
    decode_groups.emplace(options.stages, options.decode_groups_max);
  }
  SHOAL_CHECK(options.kv_tokens_max >= 1 && options.in_flight_max >= 1 && options.queue_max >= 0);
}

Generation* Scheduler::State::Find(GenerationId id) {
  const auto it = generations.find(id);
  return it == generations.end() ? nullptr : &it->second;
}

Generation* Scheduler::State::FindPart(const InFlight::Part& part) {
  Generation* generation = Find(part.generation);
  return generation != nullptr && generation->admission == part.admission ? generation : nullptr;
}

std::optional<InFlight> Scheduler::State::TakeBatch(BatchId id) {
  const auto it =
      std::find_if(in_flight.begin(), in_flight.end(), [&](const InFlight& batch) { return batch.id == id; });
  if (it == in_flight.end()) return std::nullopt;
  std::optional<InFlight> batch(std::move(*it));
  in_flight.erase(it);
  return batch;
}

void Scheduler::State::End(Generation& generation) {
  if (generation.admission == 0) {
    waiting.remove(&generation);
  } else {
    LeaveSlot(generation);
  }
  admission_blocked = false;
  finished_reused[generation.id] = std::max(generation.reused, 0);
  finished.push_back(generation.id);
  if (finished.size() > kFinishedMax) {
    finished_reused.erase(finished.front());
    finished.pop_front();
  }
  generations.erase(generation.id);
}

void Scheduler::State::EmitToken(Generation& generation, const RowResult& row, std::vector<ScheduleEvent>& events) {
  std::optional<FinishReason> finish;
  if (row.sampled.end) {
    finish = FinishReason::kStop;
  } else if (generation.tokens_left == 1 || static_cast<std::int64_t>(generation.tokens.size()) + 1 >= context_max) {
    finish = FinishReason::kLength;
  }
  JudgeGuess(generation, row.sampled.token);
  // No row of the last token is left behind, as none would be without drafts: caches stay the same to the last cell.
  if (finish) DropDrafts(generation);
  generation.awaiting = !generation.drafts.empty();
  if (generation.awaiting) {
    generation.drafts.erase(generation.drafts.begin());  // its row is in flight already
    ++drafts.right;
  }
  generation.decoding = true;
  generation.ready_at = ++ready_count;
  generation.tokens.push_back(row.sampled.token);
  ++generation.emitted;
  --generation.tokens_left;
  ++tokens_decoded;
  ScheduleEvent event;
  event.generation = generation.id;
  event.token = row.sampled;
  event.position = row.position;
  event.finish = finish;
  events.push_back(std::move(event));
  if (finish) End(generation);
}

// `token` is the next one: was it, or would it have been, guessed? If not, what was sent of guesses is dropped.
void Scheduler::State::JudgeGuess(Generation& generation, TokenId token) {
  if (options.drafts_max == 0 || !generation.decoding) return;
  const std::optional<DraftGuess> guess =
      generation.drafts.empty() ? GuessNext(generation.tokens) : generation.drafts.front();
  if (!guess) return;
  draft_judge.Learn(*guess, guess->token == token);
  if (guess->token == token) return;
  drafts.wrong += generation.drafts.size();
  DropDrafts(generation);
}

// Their rows are forgotten on the stages, and what comes back of them is of no interest.
void Scheduler::State::DropDrafts(Generation& generation) {
  if (generation.drafts.empty()) return;
  const auto length = static_cast<Position>(generation.tokens.size());
  generation.drafts.clear();
  for (InFlight& batch : in_flight) {
    std::erase_if(batch.parts, [&](const InFlight::Part& part) {
      return part.generation == generation.id && part.admission == generation.admission && part.first >= length;
    });
  }
  RewindSlot(generation.slot, length);
  admission_blocked = false;
}

void Scheduler::State::Fail(Generation& generation, Error error, std::vector<ScheduleEvent>& events) {
  ScheduleEvent event;
  event.generation = generation.id;
  event.finish = FinishReason::kError;
  event.error = std::move(error);
  events.push_back(std::move(event));
  End(generation);
}

// Failures count in the order of sending. Stages report each on a link of its own: that of a batch which only came
// behind a failed one may overtake the failure which is its cause.
void Scheduler::State::SettleFailures(std::vector<ScheduleEvent>& events) {
  while (!in_flight.empty() && in_flight.front().failure) {
    const InFlight batch = std::move(in_flight.front());
    in_flight.pop_front();
    FailBatch(batch, *batch.failure, events);
  }
}

// The batch's rows exist on some stages only, and so does what was written behind them: those batches will fail as
// well. Its own generations end, unless they only shared it with one that had failed before, or it was to fill stages
// from what others have (and that may be gone); those, and whoever took over content of it, start again from nothing.
void Scheduler::State::FailBatch(const InFlight& batch, const Error& error, std::vector<ScheduleEvent>& events) {
  for (InFlight& later : in_flight) {
    if (std::find(later.behind.begin(), later.behind.end(), batch.id) != later.behind.end()) later.collateral = true;
  }
  for (const InFlight::Part& part : batch.parts) {
    Generation* generation = FindPart(part);
    if (generation == nullptr) continue;
    if (batch.collateral || batch.fills) {
      Preempt(*generation);
    } else {
      Fail(*generation, error, events);
    }
  }
  for (const InFlight::Write& write : batch.writes) {
    const auto owns = [&](const Generation* g) { return g->slot == write.sequence; };
    const auto owner = std::find_if(running.begin(), running.end(), owns);
    if (owner != running.end()) {
      Preempt(**owner);
    } else {
      RewindSlot(write.sequence, 0);
    }
  }
}

Scheduler::Scheduler(const ScheduleOptions& options) : state_(std::make_unique<State>(options)) {}
Scheduler::~Scheduler() = default;

Status Scheduler::Submit(GenerationRequest request) {
  State& s = *state_;
  if (request.id == 0) return Error{ErrorCode::kInvalidArgument, "generation id 0 is reserved"};
  if (request.tokens.empty()) return Error{ErrorCode::kInvalidArgument, "the prompt is empty"};
  if (request.tokens_max < 1) return Error{ErrorCode::kInvalidArgument, "tokens_max must be at least 1"};
  if (request.emitted > request.tokens.size()) {
    return Error{ErrorCode::kInvalidArgument, "more tokens emitted than there are tokens"};
  }
  SHOAL_RETURN_IF_ERROR(Validate(request.sampling));  // no frame would carry it
  if (s.generations.contains(request.id)) {
    return Error{ErrorCode::kInvalidArgument, "generation " + std::to_string(request.id) + " exists"};
  }
  if (static_cast<std::int64_t>(request.tokens.size()) >= s.context_max) {
    return Error{ErrorCode::kContextFull, "the prompt has " + std::to_string(request.tokens.size()) +
                                              " tokens and needs room for at least one more; the context is " +
                                              std::to_string(s.context_max) + " tokens"};
  }
  const auto queue_max = static_cast<std::size_t>(s.options.queue_max + s.slots.free_count());
  if (s.waiting.size() >= queue_max) {
    return Error{ErrorCode::kOverloaded, std::to_string(s.waiting.size()) + " requests wait already; try again later"};
  }
  Generation& generation = s.generations[request.id];
  generation.id = request.id;
  generation.tokens = std::move(request.tokens);
  generation.emitted = request.emitted;
  generation.resumed = request.emitted > 0;
  generation.tokens_left = request.tokens_max;
  generation.sampling = std::move(request.sampling);
  generation.arrival = ++s.arrivals;
  s.waiting.push_back(&generation);
  return {};
}

void Scheduler::Cancel(GenerationId id) {
  if (Generation* generation = state_->Find(id)) state_->End(*generation);
}

void Scheduler::SetDraftChanceMin(double chance) { state_->draft_chance_min = chance; }

Status Scheduler::Adopt(std::vector<InventoryMessage> stages) { return state_->Adopt(std::move(stages)); }

std::optional<MicroBatch> Scheduler::Next() { return state_->Next(); }

void Scheduler::OnResult(const ResultMessage& result, std::vector<ScheduleEvent>& events, std::int64_t elapsed_us) {
  State& s = *state_;
  const std::optional<InFlight> batch = s.TakeBatch(result.batch);
  if (!batch) return;
  if (s.decode_groups && batch->decodes && !batch->prefills) {
    s.decode_groups->Learn(static_cast<std::int32_t>(batch->parts.size()), result.timings);
  }
  if (batch->parts.size() == 1 && (batch->decodes || batch->drafts) && !batch->prefills && !batch->crowded) {
    s.draft_judge.LearnTime(result.timings, elapsed_us, batch->shared);
  }
  for (const InFlight::Part& part : batch->parts) {
    if (!part.output) continue;
    Generation* generation = s.FindPart(part);
    if (generation == nullptr || !generation->awaiting) continue;
    const auto next = static_cast<Position>(generation->tokens.size());
    const auto row = std::find_if(result.rows.begin(), result.rows.end(), [&](const RowResult& r) {
      return r.generation == part.generation && r.position == next;
    });
    if (row != result.rows.end()) {
      s.EmitToken(*generation, *row, events);
    } else {
      s.Fail(*generation, Error{ErrorCode::kInternal, "the last stage gave no token for a row that asked for one"},
             events);
    }
  }
  s.SettleFailures(events);
}

void Scheduler::OnFailure(const FailureMessage& failure, std::vector<ScheduleEvent>& events) {
  State& s = *state_;
  const Error error{failure.code, "stage " + std::to_string(failure.stage) + ": " + failure.message};
  if (failure.generation == 0) {
    for (InFlight& batch : s.in_flight) {
      if (batch.id == failure.batch) batch.failure = error;
    }
    return s.SettleFailures(events);
  }
  for (const InFlight& batch : s.in_flight) {
    if (batch.id != failure.batch) continue;
    for (const InFlight::Part& part : batch.parts) {
      if (part.generation != failure.generation) continue;
      if (Generation* generation = s.FindPart(part)) s.Fail(*generation, error, events);
      return;
    }
  }
}

std::int32_t Scheduler::ReusedTokens(GenerationId id) const {
  if (const Generation* generation = state_->Find(id)) return std::max(generation->reused, 0);
  const auto it = state_->finished_reused.find(id);
  return it == state_->finished_reused.end() ? 0 : it->second;
}

ScheduleStats Scheduler::stats() const {
  const State& s = *state_;
  ScheduleStats stats;
  stats.waiting = static_cast<std::int32_t>(s.waiting.size());
  stats.running = static_cast<std::int32_t>(s.running.size());
  stats.decoding = static_cast<std::int32_t>(
      std::count_if(s.running.begin(), s.running.end(), [](const Generation* g) { return g->decoding; }));
  stats.slots_free = s.slots.free_count();
  stats.in_flight = static_cast<std::int32_t>(
      std::count_if(s.in_flight.begin(), s.in_flight.end(), [](const InFlight& batch) { return !batch.failure; }));
  stats.kv_tokens_used = s.slots.cells().used();
  stats.tokens_prefilled = s.tokens_prefilled;
  stats.tokens_reused = s.tokens_reused;
  stats.tokens_decoded = s.tokens_decoded;
  stats.preemptions = s.preemptions;
  stats.drafts = s.drafts;
  stats.row_layers_whole = s.row_layers_whole;
  stats.row_layers_filled = s.row_layers_filled;
  stats.recovery = s.recovery;
  return stats;
}

}  // namespace shoal
