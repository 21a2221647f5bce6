// Which rows go into the next micro-batch: decode rows in front, then prefill; or rows that fill some stages.
//
// Decoding generations are cut into groups, as many as there are stages, so that each stage has one to work on, or as
// many as have proved fastest (decode_groups.h); a group smaller than that waits for more while every stage has work,
// or two groups that once fell apart would stay apart and each cost a whole pass over the weights. Prefills take turns
// in being first; where decode rows would leave them nothing, they get a place after each round of decode rows.
// Rows that run on some stages only, to fill them up to the others, have micro-batches of their own, every second one
// where there are other rows.
#include <algorithm>

#include "base/check.h"
#include "schedule/scheduler_state.h"

namespace shoal {

std::optional<MicroBatch> Scheduler::State::Next() {
  if (!HasWindow(false)) return std::nullopt;
  // After a failure, its cause and what will fail because of it have to come back first: rows that share a micro-batch
  // with those sent anew would carry the damage on and on.
  const auto damaged = [](const InFlight& batch) { return batch.collateral || batch.failure; };
  if (std::any_of(in_flight.begin(), in_flight.end(), damaged)) return std::nullopt;
  Admit();
  if (!HasWindow(std::any_of(running.begin(), running.end(), [](const auto* g) { return !g->decoding; }))) {
    return std::nullopt;
  }
  MicroBatch batch;
  InFlight record;
  if (!filled_last) AddFills(batch, record);
  if (batch.rows.empty()) {
    for (Generation* generation : SelectDecodes()) {
      AddRows(*generation, 1, batch, record);
      record.decodes = true;
      ++decodes_since_prefill;
    }
    AddPrefills(batch, record);
  }
  if (batch.rows.empty()) AddFills(batch, record);
  if (batch.rows.empty()) AddDraft(batch, record);
  // While something is in flight the operations can wait for the next rows: so what is on its way stays bounded.
  if (batch.rows.empty() && (pending_ops.empty() || !in_flight.empty())) return std::nullopt;
  batch.ops = std::move(pending_ops);
  pending_ops.clear();
  open_bytes = 0;
  if (batch.rows.empty()) return batch;
  filled_last = record.fills;
  batch.id = record.id = ++batches;
  for (InFlight& other : in_flight) {
    record.shared = other.shared = true;
    const bool crowds = record.prefills || record.fills || other.prefills || other.fills;
    record.crowded = record.crowded || crowds;
    other.crowded = other.crowded || crowds;
  }
  in_flight.push_back(std::move(record));
  return batch;
}

// Whether one more micro-batch may be sent. Small groups of decode rows may be more than the stages, but not in front
// of a prompt. Drafts have a limit of their own: nobody waits for what was guessed to come back.
bool Scheduler::State::HasWindow(bool prefills) const {
  const std::int32_t groups_max = decode_groups && !prefills ? options.decode_groups_max : 0;
  return static_cast<std::int32_t>(in_flight.size()) - DraftsInFlight() < std::max(options.in_flight_max, groups_max);
}

// Right ones, wrong ones, and those that are not known yet.
std::int32_t Scheduler::State::DraftsInFlight() const {
  return static_cast<std::int32_t>(
      std::count_if(in_flight.begin(), in_flight.end(), [](const InFlight& batch) { return batch.drafts; }));
}

// How many decode rows the next micro-batch may have.
std::int32_t Scheduler::State::DecodeRowsMax(std::int32_t decoders, bool prefills) {
  if (decoders == 0) return 0;
  std::int32_t rows = options.batch_rows_max;
  std::int32_t sequences = options.reproducible ? 1 : options.batch_sequences_max;
  std::int32_t outputs = options.output_rows_max;
  if (prefills && decodes_since_prefill >= decoders) {
    --rows;
    --sequences;
  }
  // They alternate: short prompts that come one after another would else take every output.
  if (prefills && prefill_wants_output && decodes_since_prefill > 0) --outputs;
  if (decode_groups && !prefills) return decode_groups->Rows(decoders, std::min({rows, sequences, outputs}));
  const std::int32_t groups = std::min(options.stages, options.in_flight_max);
  const std::int32_t group = (decoders + groups - 1) / groups;
  return std::min({group, rows, sequences, outputs});
}

std::vector<Generation*> Scheduler::State::SelectDecodes() {
  std::vector<Generation*> ready;
  std::int32_t decoders = 0;
  bool prefills = false;
  for (Generation* generation : running) {
    if (generation->decoding) ++decoders;
    if (generation->decoding && !generation->awaiting) ready.push_back(generation);
    prefills = prefills || Prefills(*generation);
  }
  const std::int32_t rows_max = DecodeRowsMax(decoders, prefills);
  if (ready.empty() || rows_max <= 0) return {};
  const auto busy_stages =
      std::count_if(in_flight.begin(), in_flight.end(), [](const InFlight& b) { return b.decodes; });
  const bool small = static_cast<std::int32_t>(ready.size()) < rows_max;
  // Once every stage has work; or every group is on its way but this one, when they are fewer.
  const std::int32_t enough =
      decode_groups ? std::min(options.stages, (decoders + rows_max - 1) / rows_max) : options.stages;
  if (small && !prefills && busy_stages >= enough) return {};
  std::sort(ready.begin(), ready.end(), [](const auto* a, const auto* b) { return a->ready_at < b->ready_at; });
  if (!small) ready.resize(rows_max);
  MakeRoomFor(ready);
  return ready;
}

// One cell each, from idle slots or from the youngest; those that had to give theirs up are removed.
void Scheduler::State::MakeRoomFor(std::vector<Generation*>& decodes) {
  while (!HasRoom(static_cast<std::int64_t>(decodes.size()))) {
    if (EvictOne()) continue;
    const auto younger = [](const Generation* a, const Generation* b) { return a->arrival < b->arrival; };
    Generation* youngest = *std::max_element(running.begin(), running.end(), younger);
    std::erase(decodes, youngest);
    Preempt(*youngest);
  }
}

void Scheduler::State::AddPrefills(MicroBatch& batch, InFlight& record) {
  std::vector<Generation*> order;
  for (Generation* generation : running) {
    if (Prefills(*generation)) order.push_back(generation);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->turn < b->turn; });
  const std::size_t sequences_max = options.reproducible ? 1 : options.batch_sequences_max;
  auto outputs = static_cast<std::int32_t>(batch.rows.size());  // so far only decode rows
  prefill_wants_output = false;
  bool first = true;
  for (Generation* generation : order) {
    const std::int32_t room = options.batch_rows_max - static_cast<std::int32_t>(batch.rows.size());
    if (room == 0 || record.parts.size() >= sequences_max) break;
    const std::int32_t rows = PrefillRows(*generation, room, outputs);
    if (rows == 0) continue;
    AddRows(*generation, rows, batch, record);
    record.prefills = true;
    cells_reserved -= rows;
    tokens_prefilled += rows;
    if (!Prefills(*generation)) ++outputs;
    if (first) generation->turn = ++turns;
    first = false;
    decodes_since_prefill = 0;
  }
}

// The gap of whoever waited longest, and the same stages' gaps of others.
void Scheduler::State::AddFills(MicroBatch& batch, InFlight& record) {
  std::vector<Generation*> order;
  for (Generation* generation : running) {
    if (Recovers(*generation)) order.push_back(generation);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->turn < b->turn; });
  std::int32_t outputs = 0;
  for (Generation* generation : order) {
    const Gap gap = slots.NextGap(generation->slot);
    if (record.fills && (gap.first != batch.first_stage || gap.last != batch.last_stage)) continue;
    const std::int32_t room = options.batch_rows_max - static_cast<std::int32_t>(batch.rows.size());
    if (room == 0 || static_cast<std::int32_t>(record.parts.size()) >= options.batch_sequences_max) break;
    const std::int32_t rows = std::min(room, gap.to - gap.from);
    const bool output = gap.last + 1 == options.stages && rows == Unsent(*generation);
    if (output && ++outputs > options.output_rows_max) continue;
    if (!record.fills) generation->turn = ++turns;
    record.fills = true;
    batch.first_stage = gap.first;
    batch.last_stage = gap.last;
    AddRows(*generation, rows, batch, record);
  }
}

// For an answer that is alone, the row of a guess.
void Scheduler::State::AddDraft(MicroBatch& batch, InFlight& record) {
  if (!options.rewindable || running.size() != 1 || !waiting.empty()) return;
  if (DraftsInFlight() >= options.drafts_max) return;
  Generation& generation = *running.front();
  const auto sent = static_cast<std::int32_t>(generation.drafts.size());
  const std::int64_t length = static_cast<std::int64_t>(generation.tokens.size()) + sent;
  // A guess that would be the last token needs no row.
  const bool needed = sent + 1 < generation.tokens_left && length + 1 < context_max;
  if (!generation.decoding || !generation.awaiting || !needed) return;
  const std::optional<DraftGuess> guess = GuessNext(slots[generation.slot].tokens);
  if (!guess) return;
  double chance = draft_judge.Chance(*guess);
  for (const DraftGuess& draft : generation.drafts) chance *= draft_judge.Chance(draft);
  if (chance < draft_chance_min || !draft_judge.Pays(chance, sent)) return;
  if (!HasRoom(1)) return;  // nothing is thrown out for a guess
  generation.drafts.push_back(*guess);
  AddRows(generation, 1, batch, record);
  record.drafts = true;
  ++drafts.sent;
}

std::int32_t Scheduler::State::PrefillRows(const Generation& generation, std::int32_t room, std::int32_t outputs) {
  const Position unsent = Unsent(generation);
  std::int32_t rows = std::min(room, unsent);
  if (options.reproducible) {
    // As the first time: the prompt in whole chunks from multiples of batch_rows_max, sampled tokens one by one.
    const Position start = Sent(generation);
    const Position prompt = static_cast<Position>(generation.tokens.size() - generation.emitted);
    rows = start >= prompt
               ? 1
               : std::min(rows, std::min(options.batch_rows_max - start % options.batch_rows_max, prompt - start));
  }
  if (rows == unsent && outputs >= options.output_rows_max) {
    --rows;
    prefill_wants_output = true;
  }
  return rows;
}

void Scheduler::State::AddRows(Generation& generation, std::int32_t count, MicroBatch& batch, InFlight& record) {
  const Gap gap = slots.NextGap(generation.slot);
  const Position first = gap.from;
  const auto end = first + count;
  const auto known = static_cast<Position>(generation.tokens.size());
  const bool output = end >= known && gap.last + 1 == options.stages;
  for (Position position = first; position < end; ++position) {
    batch.rows.push_back({generation.slot, position, output && position + 1 == end, generation.id});
    batch.tokens.push_back(position < known ? generation.tokens[position] : generation.drafts[position - known].token);
  }
  for (const InFlight& earlier : in_flight) {
    const auto before = [&](const InFlight::Write& w) { return w.sequence == generation.slot && w.first <= first; };
    if (std::any_of(earlier.writes.begin(), earlier.writes.end(), before)) record.behind.push_back(earlier.id);
  }
  record.parts.push_back({generation.id, generation.admission, output, first});
  record.writes.push_back({generation.slot, first});
  generation.awaiting = output;
  std::uint64_t layers = 0;
  for (StageIndex stage = gap.first; stage <= gap.last; ++stage) layers += slots.Layers(stage);
  (record.fills ? row_layers_filled : row_layers_whole) += layers * static_cast<std::uint64_t>(count);
  if (record.fills) {
    slots.Fill(generation.slot, gap, count);
  } else {
    slots.Append(generation.slot, std::span(batch.tokens).last(count));
  }
}

}  // namespace shoal
