// Checks what comes in, runs the engine, samples on the last stage.
//
// Everything a peer sends is checked before the engine sees it: the engine's preconditions are CHECKs.
#include "stage/stage.h"

#include <string>
#include <unordered_map>
#include <utility>

#include "engine/token_sampler.h"

namespace shoal {
namespace {

// The generation that holds a slot, on the last stage.
struct OpenGeneration {
  GenerationId id = 0;
  std::unique_ptr<TokenSampler> sampler;  // null when it could not be made
  Error error;                            // then why
};

Error Invalid(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message)}; }

}  // namespace

struct Stage::State {
  std::unique_ptr<Engine> engine;
  std::shared_ptr<const Vocabulary> vocabulary;  // last stage only
  std::unordered_map<SequenceId, OpenGeneration> open;
  std::vector<EngineRow> rows;
  std::vector<float> embedded, logits;

  bool Holds(SequenceId sequence) const { return sequence >= 0 && sequence < engine->options().sequences_max; }

  Status Check(const ControlOp& op) const;
  void Do(const OpenSequence& op);
  void Do(const RewindSequence& op);
  void Do(const CopySequence& op);
  void Do(const CloseSequence& op);

  Status CheckShape(const BatchMessage& batch) const;
  Status CheckRows(const BatchMessage& batch);
  void Undo(const BatchMessage& batch);
  void Sample(const BatchMessage& batch, StageOutput& output);
};

Status Stage::State::Check(const ControlOp& op) const {
  const auto known = [&](SequenceId sequence) -> Status {
    if (Holds(sequence)) return {};
    return Invalid("there is no sequence " + std::to_string(sequence) + " here; the last is " +
                   std::to_string(engine->options().sequences_max - 1));
  };
  if (const auto* copy = std::get_if<CopySequence>(&op)) {
    SHOAL_RETURN_IF_ERROR(known(copy->from));
    SHOAL_RETURN_IF_ERROR(known(copy->to));
    if (copy->from == copy->to) return Invalid("a sequence cannot be copied onto itself");
    if (copy->position < 0) return Invalid("a copy of fewer than no positions");
    return {};
  }
  if (const auto* rewind = std::get_if<RewindSequence>(&op)) {
    if (rewind->position < 0) return Invalid("a rewind to before the first position");
    return known(rewind->sequence);
  }
  if (const auto* open_op = std::get_if<OpenSequence>(&op)) return known(open_op->sequence);
  return known(std::get<CloseSequence>(op).sequence);
}

void Stage::State::Do(const OpenSequence& op) {
  if (!engine->is_last()) return;
  OpenGeneration generation;
  generation.id = op.generation;
  Result<std::unique_ptr<TokenSampler>> sampler = TokenSampler::Make(vocabulary, op.sampling, op.history, op.emitted);
  if (sampler.ok()) {
    generation.sampler = *std::move(sampler);
  } else {
    generation.error = std::move(sampler).error();
  }
  open[op.sequence] = std::move(generation);
}

// A model that cannot go back to there has emptied the sequence; its next row then does not continue it, and fails.
void Stage::State::Do(const RewindSequence& op) { (void)engine->Rewind(op.sequence, op.position); }

void Stage::State::Do(const CopySequence& op) {
  const bool possible = op.position <= engine->Length(op.from);
  if (!possible || !engine->Copy(op.from, op.to, op.position).ok()) (void)engine->Rewind(op.to, 0);
}

void Stage::State::Do(const CloseSequence& op) {
  const auto it = open.find(op.sequence);
  if (it != open.end() && it->second.id == op.generation) open.erase(it);
}

Status Stage::State::CheckShape(const BatchMessage& batch) const {
  const EngineOptions& options = engine->options();
  if (batch.rows.empty() || batch.rows.size() > static_cast<std::size_t>(options.batch_rows_max)) {
    return Invalid("a micro-batch of " + std::to_string(batch.rows.size()) + " rows; this stage takes 1 to " +
                   std::to_string(options.batch_rows_max));
  }
  if (engine->is_first()) {
    if (batch.tokens.size() == batch.rows.size()) return {};
    return Invalid("the first stage needs one token a row");
  }
  const auto n_embd = static_cast<std::size_t>(engine->n_embd());
  if (batch.n_embd == n_embd && batch.hidden.size() == batch.rows.size() * n_embd) return {};
  return Invalid("hidden states of width " + std::to_string(batch.n_embd) + "; this model's are " + std::to_string(n_embd));
}

// Fills `rows` and checks that each continues its sequence, counting the rows before it.
Status Stage::State::CheckRows(const BatchMessage& batch) {
  rows.clear();
  std::unordered_map<SequenceId, Position> next;
  std::int32_t outputs = 0;
  for (const BatchRow& row : batch.rows) {
    if (!Holds(row.sequence)) return Invalid("there is no sequence " + std::to_string(row.sequence) + " here");
    const auto it = next.try_emplace(row.sequence, engine->Length(row.sequence)).first;
    if (row.position != it->second) {
      return Invalid("position " + std::to_string(row.position) + " does not continue sequence " +
                     std::to_string(row.sequence) + ", which holds " + std::to_string(it->second));
    }
    ++it->second;
    outputs += row.output ? 1 : 0;
    rows.push_back({row.sequence, row.position, row.output});
  }
  const EngineOptions& options = engine->options();
  if (engine->is_last() && outputs > options.output_rows_max) {
    return Invalid(std::to_string(outputs) + " rows to sample; this stage takes " + std::to_string(options.output_rows_max));
  }
  if (!options.kv_shared && next.size() > 1) return Invalid("rows of several sequences, but their caches are separate");
  return {};
}

// After a failed call the cache may hold part of the micro-batch: back to where it began.
void Stage::State::Undo(const BatchMessage& batch) {
  std::unordered_map<SequenceId, Position> first;
  for (const BatchRow& row : batch.rows) first.try_emplace(row.sequence, row.position);
  for (const auto& [sequence, position] : first) (void)engine->Rewind(sequence, position);
}

void Stage::State::Sample(const BatchMessage& batch, StageOutput& output) {
  const auto width = static_cast<std::size_t>(engine->n_vocab());
  std::size_t next = 0;
  for (const BatchRow& row : batch.rows) {
    if (!row.output) continue;
    const std::span<const float> row_logits(logits.data() + width * next++, width);
    const auto fail = [&](const Error& error) {
      output.failures.push_back({batch.batch, row.generation, 0, error.code, error.message});
    };
    const auto it = open.find(row.sequence);
    if (it == open.end() || it->second.id != row.generation) {
      fail(Invalid("generation " + std::to_string(row.generation) + " is not open on sequence " + std::to_string(row.sequence)));
    } else if (it->second.sampler == nullptr) {
      fail(it->second.error);
    } else if (Result<SampledToken> sampled = it->second.sampler->Sample(row_logits, row.position + 1); sampled.ok()) {
      output.results.push_back({row.sequence, row.generation, row.position + 1, *std::move(sampled)});
    } else {
      fail(sampled.error());
    }
  }
}

Stage::Stage(std::unique_ptr<State> state) : state_(std::move(state)) {}
Stage::~Stage() = default;

Result<std::unique_ptr<Stage>> Stage::Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                           std::shared_ptr<const Vocabulary> vocabulary) {
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Open(std::move(model), options));
  return Over(std::move(engine), std::move(vocabulary));
}

std::unique_ptr<Stage> Stage::Over(std::unique_ptr<Engine> engine, std::shared_ptr<const Vocabulary> vocabulary) {
  SHOAL_CHECK(engine != nullptr && (!engine->is_last() || vocabulary != nullptr));
  auto state = std::make_unique<State>();
  state->engine = std::move(engine);
  state->vocabulary = std::move(vocabulary);
  return std::unique_ptr<Stage>(new Stage(std::move(state)));
}

Status Stage::Apply(const ControlMessage& control) {
  for (const ControlOp& op : control.ops) SHOAL_RETURN_IF_ERROR(state_->Check(op));
  for (const ControlOp& op : control.ops) std::visit([this](const auto& one) { state_->Do(one); }, op);
  return {};
}

Result<StageOutput> Stage::Forward(const BatchMessage& batch) {
  State& s = *state_;
  SHOAL_RETURN_IF_ERROR(s.CheckShape(batch));
  SHOAL_RETURN_IF_ERROR(s.CheckRows(batch));
  if (s.engine->is_first()) SHOAL_RETURN_IF_ERROR(s.engine->Embed(batch.tokens, s.embedded));
  const std::vector<float>& input = s.engine->is_first() ? s.embedded : batch.hidden;
  StageOutput output;
  std::vector<float>& out = s.engine->is_last() ? s.logits : output.hidden;
  if (Status ran = s.engine->Forward(s.rows, input, out); !ran.ok()) {
    s.Undo(batch);
    return std::move(ran).error();
  }
  if (s.engine->is_last()) s.Sample(batch, output);
  return output;
}

void Stage::Abort() { state_->engine->Abort(); }
const Engine& Stage::engine() const { return *state_->engine; }

}  // namespace shoal
