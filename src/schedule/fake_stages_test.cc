// The hashing stages of fake_stages.h. Knows nothing of the scheduler's state.
#include "schedule/fake_stages.h"

#include <algorithm>
#include <sstream>

namespace shoal {
namespace {

constexpr std::uint64_t kStart = 0x9E3779B97F4A7C15;

std::uint64_t Shape(const FakeModel& model, Position start, std::size_t rows) {
  return model.shaped ? Mix(start, rows) : 0;
}

SampledToken Draw(const FakeModel& model, std::uint64_t hidden, std::uint64_t seed) {
  const std::uint64_t draw = Mix(hidden, seed);
  SampledToken token;
  token.token = static_cast<TokenId>(draw % model.vocabulary);
  token.end = model.end_every != 0 && (draw >> 32) % model.end_every == 0;
  return token;
}

}  // namespace

std::uint64_t Mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0xBF58476D1CE4E5B9 + b + 0x94D049BB133111EB;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

ReferenceRun RunAlone(const FakeModel& model, const GenerationRequest& request, std::int64_t context_max) {
  ReferenceRun run;
  std::vector<TokenId> tokens = request.tokens;
  const std::size_t prompt = tokens.size() - request.emitted;
  std::vector<std::uint64_t> history(model.stages, kStart);
  std::size_t next = 0;
  for (std::int32_t left = request.tokens_max; left > 0; --left) {
    std::uint64_t hidden = 0;
    for (; next < tokens.size(); ++next) {
      const std::size_t start = next >= prompt ? next : next / model.chunk * model.chunk;
      const std::size_t rows = next >= prompt ? 1 : std::min<std::size_t>(model.chunk, prompt - start);
      hidden = static_cast<std::uint64_t>(tokens[next]);
      for (int stage = 0; stage < model.stages; ++stage) {
        history[stage] = Mix(history[stage], Mix(hidden, Shape(model, static_cast<Position>(start), rows)));
        hidden = Mix(history[stage], stage);
      }
    }
    const SampledToken token = Draw(model, hidden, request.sampling.seed);
    run.tokens.push_back(token);
    tokens.push_back(token.token);
    if (token.end) return run;
    if (static_cast<std::int64_t>(tokens.size()) >= context_max) break;
  }
  run.finish = FinishReason::kLength;
  return run;
}

FakeStages::FakeStages(const FakeModel& model, const ScheduleOptions& options)
    : model_(model),
      options_(options),
      links_(model.stages),
      caches_(model.stages, std::vector<Sequence>(options.slots_max)),
      failures_(model.stages) {}

void FakeStages::Violate(int stage, const std::string& what) {
  if (violation_.empty()) violation_ = "stage " + std::to_string(stage) + ": " + what;
}

void FakeStages::Step(int stage, bool fail) {
  Frame frame = std::move(links_[stage].front());
  links_[stage].pop_front();
  for (const ControlOp& op : frame.batch.ops) Apply(stage, op);
  const bool last = stage + 1 == model_.stages;
  // Behind the stage where a batch failed only its operations go on.
  if (stage >= frame.lost_first && stage <= frame.lost_last) {
    for (const SequenceId sequence : frame.lost) caches_[stage][sequence].broken = true;
  }
  if (!frame.batch.rows.empty() && stage + 1 >= frame.batch.first_stage) {
    const bool replays = stage < frame.batch.first_stage;
    if (fail || !(replays ? Replay(stage, frame) : Continues(stage, frame.batch))) {
      Lose(stage, frame, fail);
    } else if (!replays) {
      Run(stage, frame);
      CheckRoom(stage);
      if (last) Sample(frame);
      if (!last && stage == frame.batch.last_stage) results_.push_back({frame.batch.id, {}, {}});
      if (stage == frame.batch.last_stage) frame.batch.rows.clear();
    }
  }
  if (!last) links_[stage + 1].push_back(std::move(frame));
}

// What this stage sent for the rows, again. False when it no longer has it.
bool FakeStages::Replay(int stage, Frame& frame) {
  for (std::size_t i = 0; i < frame.batch.rows.size(); ++i) {
    const BatchRow& row = frame.batch.rows[i];
    const Sequence& sequence = caches_[stage][row.sequence];
    const bool has = row.position < static_cast<Position>(sequence.cells.size());
    if (has && sequence.cells[row.position].token != frame.batch.tokens[i] && !sequence.broken) {
      Violate(stage, "a replay of other tokens than it holds");
    }
    if (!has && !sequence.broken) Violate(stage, "a replay of what it never held");
    if (!has || !sequence.cells[row.position].logged) {
      ++refused_replays_;
      return false;
    }
    frame.hidden.push_back(sequence.cells[row.position].sent);
  }
  return true;
}

void FakeStages::Lose(int stage, Frame& frame, bool injected) {
  const bool runs_here = stage >= frame.batch.first_stage;
  for (const BatchRow& row : frame.batch.rows) {
    caches_[stage][row.sequence].broken = caches_[stage][row.sequence].broken || runs_here;
    frame.lost.push_back(row.sequence);
    if (injected) touched_by_failure_.insert(row.generation);
  }
  frame.lost_first = frame.batch.first_stage;
  frame.lost_last = frame.batch.last_stage;
  frame.batch.rows.clear();
  failures_[stage].push_back(
      {frame.batch.id, 0, stage, ErrorCode::kInternal, injected ? "injected" : "behind a failure"});
}

// False for a row behind a failure; anything else that does not continue its sequence is the scheduler's mistake.
bool FakeStages::Continues(int stage, const MicroBatch& batch) {
  std::map<SequenceId, Position> next;
  bool continues = true;
  for (const BatchRow& row : batch.rows) {
    const Sequence& sequence = caches_[stage][row.sequence];
    const auto it = next.try_emplace(row.sequence, static_cast<Position>(sequence.cells.size())).first;
    if (row.position != it->second) {
      continues = false;
      if (!sequence.broken) {
        std::ostringstream what;
        what << "batch " << batch.id << ": row of sequence " << row.sequence << " at position " << row.position
             << ", the cache has " << it->second;
        Violate(stage, what.str());
      }
    }
    ++it->second;
  }
  return continues;
}

void FakeStages::Run(int stage, Frame& frame) {
  const std::vector<BatchRow>& rows = frame.batch.rows;
  std::map<SequenceId, std::pair<Position, std::size_t>> shapes;  // first position, rows
  for (const BatchRow& row : rows) ++shapes.try_emplace(row.sequence, row.position, 0).first->second.second;
  std::vector<std::uint64_t> out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::uint64_t in = stage == 0 ? static_cast<std::uint64_t>(frame.batch.tokens[i]) : frame.hidden[i];
    auto& cells = caches_[stage][rows[i].sequence].cells;
    const auto& [start, count] = shapes[rows[i].sequence];
    const std::uint64_t before = cells.empty() ? kStart : cells.back().history;
    cells.push_back({++cell_ids_, Mix(before, Mix(in, Shape(model_, start, count))), frame.batch.tokens[i]});
    out[i] = cells.back().sent = Mix(cells.back().history, stage);
  }
  rows_run_ += rows.size();
  frame.hidden = std::move(out);
}

void FakeStages::Sample(const Frame& frame) {
  ResultMessage result;
  result.batch = frame.batch.id;
  for (std::size_t i = 0; i < frame.hidden.size(); ++i) {
    const BatchRow& row = frame.batch.rows[i];
    const auto sampler = samplers_.find(row.generation);
    if (sampler == samplers_.end() || sampler->second.sequence != row.sequence) {
      Violate(model_.stages - 1, "a row of generation " + std::to_string(row.generation) + " without an open sampler");
      return;
    }
    if (!row.output) continue;
    if (failing_generations.erase(row.generation) != 0) {
      touched_by_failure_.insert(row.generation);
      failures_.back().push_back(
          {frame.batch.id, row.generation, model_.stages - 1, ErrorCode::kInvalidArgument, "grammar"});
      continue;
    }
    Sampler& continues = sampler->second;
    if (row.position != continues.position || frame.batch.tokens[i] != continues.token) continue;
    const SampledToken token = Draw(model_, frame.hidden[i], continues.seed);
    continues.position = row.position + 1;
    continues.token = token.token;
    result.rows.push_back({row.sequence, row.generation, row.position + 1, token});
  }
  results_.push_back(std::move(result));
}

void FakeStages::Apply(int stage, const ControlOp& op) {
  if (const auto* rewind = std::get_if<RewindSequence>(&op)) return Rewind(stage, *rewind);
  if (const auto* copy = std::get_if<CopySequence>(&op)) return Copy(stage, *copy);
  if (stage + 1 != model_.stages) return;
  if (const auto* open = std::get_if<OpenSequence>(&op)) {
    const auto last = static_cast<Position>(open->history.size()) - 1;
    if (!samplers_
             .try_emplace(open->generation, Sampler{open->sequence, open->sampling.seed, last, open->history.back()})
             .second) {
      Violate(stage, "generation " + std::to_string(open->generation) + " opened twice");
    }
  } else if (const auto* close = std::get_if<CloseSequence>(&op)) {
    if (samplers_.erase(close->generation) == 0) {
      Violate(stage, "generation " + std::to_string(close->generation) + " closed without being open");
    }
  }
}

void FakeStages::Rewind(int stage, const RewindSequence& op) {
  if (op.stage != kAllStages && op.stage != stage) return;
  Sequence& sequence = caches_[stage][op.sequence];
  const auto length = static_cast<Position>(sequence.cells.size());
  if (!options_.rewindable && op.position != 0) Violate(stage, "a partial rewind of a model that cannot");
  if (op.position <= length) {
    sequence.cells.resize(op.position);
    sequence.broken = false;
  } else if (!sequence.broken && op.stage == stage) {
    Violate(stage, "a rewind beyond the end");
  }
}

void FakeStages::Copy(int stage, const CopySequence& op) {
  const Sequence& from = caches_[stage][op.from];
  Sequence& to = caches_[stage][op.to];
  if (!options_.kv_shared || !options_.rewindable || options_.reproducible)
    Violate(stage, "a copy where none is allowed");
  if (!to.cells.empty() || to.broken) Violate(stage, "a copy onto a sequence that is not empty");
  const auto length = static_cast<Position>(from.cells.size());
  if (op.position > length) {
    if (!from.broken) Violate(stage, "a copy of more than there is");
    to.broken = true;
    return;
  }
  to.cells.assign(from.cells.begin(), from.cells.begin() + op.position);
}

void FakeStages::CheckRoom(int stage) {
  std::set<std::uint64_t> cells;
  for (const Sequence& sequence : caches_[stage]) {
    for (const FakeCell& cell : sequence.cells) cells.insert(cell.id);
    if (static_cast<std::int32_t>(sequence.cells.size()) > options_.kv_tokens_max)
      Violate(stage, "a sequence is too long");
  }
  if (options_.kv_shared && static_cast<std::int32_t>(cells.size()) > options_.kv_tokens_max) {
    Violate(stage, std::to_string(cells.size()) + " cells in use");
  }
}

void FakeStages::NextEpoch(const std::set<int>& lost) {
  for (auto& link : links_) link.clear();
  for (auto& failures : failures_) failures.clear();
  results_.clear();
  samplers_.clear();
  failing_generations.clear();
  for (int stage = 0; stage < model_.stages; ++stage) {
    for (Sequence& sequence : caches_[stage]) {
      sequence.broken = false;
      if (lost.contains(stage)) sequence.cells.clear();
    }
  }
}

void FakeStages::ForgetSent(int stage, std::size_t count) {
  for (Sequence& sequence : caches_[stage]) {
    for (std::size_t i = 0; i < std::min(count, sequence.cells.size()); ++i) sequence.cells[i].logged = false;
  }
}

std::vector<InventoryMessage> FakeStages::Inventories() const {
  std::vector<InventoryMessage> inventories(model_.stages);
  for (int stage = 0; stage < model_.stages; ++stage) {
    inventories[stage].stage = stage;
    for (SequenceId i = 0; i < options_.slots_max; ++i) {
      const std::vector<FakeCell>& cells = caches_[stage][i].cells;
      if (cells.empty()) continue;
      HeldSequence held{i, static_cast<Position>(cells.size()), {}};
      while (held.log_from > 0 && cells[held.log_from - 1].logged) --held.log_from;
      for (const FakeCell& cell : cells) held.tokens.push_back(cell.token);
      inventories[stage].sequences.push_back(std::move(held));
    }
  }
  return inventories;
}

ResultMessage FakeStages::TakeResult() {
  ResultMessage result = std::move(results_.front());
  results_.pop_front();
  return result;
}

FailureMessage FakeStages::TakeFailure(int stage) {
  FailureMessage failure = std::move(failures_[stage].front());
  failures_[stage].pop_front();
  return failure;
}

}  // namespace shoal
