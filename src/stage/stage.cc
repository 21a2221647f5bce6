// Checks a micro-batch against what the cache holds, runs it, and on the last stage samples.
#include "stage/stage.h"

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "base/log.h"
#include "engine/token_sampler.h"

namespace shoal {
namespace {

Error Refused(std::string why) { return {ErrorCode::kInvalidArgument, std::move(why)}; }

// The generation that has a sequence on the last stage.
struct Slot {
  GenerationId generation = 0;  // 0: none
  std::unique_ptr<TokenSampler> sampler;
  std::optional<Error> failure;  // why it cannot sample
  bool reported = false;         // the failure was sent
};

}  // namespace

struct Stage::State {
  std::unique_ptr<Engine> engine;
  std::shared_ptr<const Vocabulary> vocabulary;
  std::vector<Slot> slots;         // [sequences_max], used on the last stage
  std::vector<Position> expected;  // [sequences_max], scratch of CheckRows: next position, or -1
  std::vector<EngineRow> rows;     // scratch of Forward
  std::vector<float> input, output;

  bool Known(SequenceId sequence) const { return sequence >= 0 && sequence < engine->options().sequences_max; }

  Status CheckOp(const ControlOp& op) const;
  void Do(const OpenSequence& op);
  void Do(const RewindSequence& op);
  void Do(const CopySequence& op);
  void Do(const CloseSequence& op);

  Status CheckInput(const BatchMessage& batch) const;
  Status CheckRows(const BatchMessage& batch);
  void Sample(const BatchMessage& batch, StageOutput& out);
  void SampleRow(BatchId batch, const BatchRow& row, std::span<const float> logits, StageOutput& out);
};

// A sequence that the cache could not change as asked is left empty; the rows that were to continue it are then refused
// with their positions.
static void LogFailure(const Status& status) {
  if (!status.ok()) Log(LogLevel::kWarning, "stage", status.error().message);
}

Status Stage::State::CheckOp(const ControlOp& op) const {
  return std::visit(
      [this](const auto& o) -> Status {
        using Op = std::decay_t<decltype(o)>;
        if constexpr (std::is_same_v<Op, CopySequence>) {
          if (!Known(o.from) || !Known(o.to) || o.from == o.to || o.position < 0) {
            return Refused("copy of sequence " + std::to_string(o.from) + " to " + std::to_string(o.to) + " up to " +
                           std::to_string(o.position));
          }
        } else {
          if (!Known(o.sequence)) {
            return Refused("sequence " + std::to_string(o.sequence) + " of " +
                           std::to_string(engine->options().sequences_max));
          }
        }
        if constexpr (std::is_same_v<Op, RewindSequence>) {
          if (o.position < 0) return Refused("rewind to position " + std::to_string(o.position));
        }
        return {};
      },
      op);
}

void Stage::State::Do(const OpenSequence& op) {
  if (!engine->is_last()) return;
  Slot slot;
  slot.generation = op.generation;
  if (vocabulary == nullptr) {
    slot.failure = Error{ErrorCode::kUnsupported, "this stage has no vocabulary to sample with"};
  } else {
    auto sampler = TokenSampler::Make(vocabulary, op.sampling, op.history, op.emitted);
    if (sampler.ok()) {
      slot.sampler = std::move(sampler).value();
    } else {
      slot.failure = std::move(sampler).error();
    }
  }
  slots[static_cast<std::size_t>(op.sequence)] = std::move(slot);
}

void Stage::State::Do(const RewindSequence& op) { LogFailure(engine->Rewind(op.sequence, op.position)); }
void Stage::State::Do(const CopySequence& op) { LogFailure(engine->Copy(op.from, op.to, op.position)); }

void Stage::State::Do(const CloseSequence& op) {
  Slot& slot = slots[static_cast<std::size_t>(op.sequence)];
  if (slot.generation == op.generation) slot = Slot{};
}

Status Stage::State::CheckInput(const BatchMessage& batch) const {
  const std::size_t n = batch.rows.size();
  const EngineOptions& options = engine->options();
  if (n == 0 || n > static_cast<std::size_t>(options.batch_rows_max)) {
    return Refused("a micro-batch of " + std::to_string(n) + " rows; 1 to " + std::to_string(options.batch_rows_max) +
                   " are possible");
  }
  if (engine->is_first()) {
    if (batch.tokens.size() == n && batch.hidden.empty()) return {};
    return Refused("the first stage takes one token a row and no hidden states");
  }
  const auto n_embd = static_cast<std::size_t>(engine->n_embd());
  if (batch.tokens.empty() && batch.n_embd == n_embd && batch.hidden.size() == n * n_embd) return {};
  return Refused("this stage takes hidden states of " + std::to_string(n_embd) + " values a row, not " +
                 std::to_string(batch.hidden.size()) + " values for " + std::to_string(n) + " rows");
}

Status Stage::State::CheckRows(const BatchMessage& batch) {
  const EngineOptions& options = engine->options();
  expected.assign(static_cast<std::size_t>(options.sequences_max), -1);
  std::int32_t outputs = 0;
  for (const BatchRow& row : batch.rows) {
    if (!Known(row.sequence)) {
      return Refused("sequence " + std::to_string(row.sequence) + " of " + std::to_string(options.sequences_max));
    }
    if (!options.kv_shared && row.sequence != batch.rows.front().sequence) {
      return Refused("rows of several sequences, but each has a KV cache of its own");
    }
    Position& next = expected[static_cast<std::size_t>(row.sequence)];
    if (next < 0) next = engine->Length(row.sequence);
    if (row.position != next) {
      return Refused("sequence " + std::to_string(row.sequence) + " goes on at position " + std::to_string(next) +
                     ", not " + std::to_string(row.position));
    }
    ++next;
    outputs += row.output ? 1 : 0;
  }
  if (engine->is_last() && outputs > options.output_rows_max) {
    return Refused(std::to_string(outputs) + " rows with output; at most " + std::to_string(options.output_rows_max));
  }
  return {};
}

void Stage::State::SampleRow(BatchId batch, const BatchRow& row, std::span<const float> logits, StageOutput& out) {
  Slot& slot = slots[static_cast<std::size_t>(row.sequence)];
  const auto fail = [&](const Error& error) {
    out.failures.push_back({batch, row.generation, 0, error.code, error.message});
  };
  if (slot.generation != row.generation || slot.generation == 0) {
    return fail({ErrorCode::kNotFound, "sequence " + std::to_string(row.sequence) + " was not opened for generation " +
                                           std::to_string(row.generation)});
  }
  if (slot.sampler == nullptr) return;  // its failure is reported once, by Sample
  auto sampled = slot.sampler->Sample(logits, row.position + 1);
  if (!sampled.ok()) {
    slot.sampler.reset();
    slot.failure = sampled.error();
    slot.reported = true;
    return fail(sampled.error());
  }
  out.results.push_back({row.sequence, row.generation, row.position + 1, std::move(sampled).value()});
}

void Stage::State::Sample(const BatchMessage& batch, StageOutput& out) {
  const auto n_vocab = static_cast<std::size_t>(engine->n_vocab());
  std::size_t done = 0;
  for (const BatchRow& row : batch.rows) {
    Slot& slot = slots[static_cast<std::size_t>(row.sequence)];
    if (slot.failure && !slot.reported && slot.generation == row.generation) {
      slot.reported = true;
      out.failures.push_back({batch.batch, row.generation, 0, slot.failure->code, slot.failure->message});
    }
    if (!row.output) continue;
    SampleRow(batch.batch, row, {output.data() + done * n_vocab, n_vocab}, out);
    ++done;
  }
}

Stage::Stage(std::unique_ptr<State> state) : state_(std::move(state)) {}
Stage::~Stage() = default;

Result<std::unique_ptr<Stage>> Stage::Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                           std::shared_ptr<const Vocabulary> vocabulary) {
  const bool whole = options.layers.first == 0 && options.layers.last == model->info.n_layer;
  if (!whole) SHOAL_RETURN_IF_ERROR(CheckBatchFits(options.batch_rows_max, model->info.n_embd, WireType::kF32));
  SHOAL_ASSIGN_OR_RETURN(auto engine, Engine::Open(std::move(model), options));
  return Over(std::move(engine), std::move(vocabulary));
}

std::unique_ptr<Stage> Stage::Over(std::unique_ptr<Engine> engine, std::shared_ptr<const Vocabulary> vocabulary) {
  SHOAL_CHECK(engine != nullptr);
  auto state = std::make_unique<State>();
  state->slots.resize(static_cast<std::size_t>(engine->options().sequences_max));
  state->engine = std::move(engine);
  state->vocabulary = std::move(vocabulary);
  return std::unique_ptr<Stage>(new Stage(std::move(state)));
}

Status Stage::Apply(const ControlMessage& control) {
  for (const ControlOp& op : control.ops) SHOAL_RETURN_IF_ERROR(state_->CheckOp(op));
  for (const ControlOp& op : control.ops) {
    std::visit([this](const auto& o) { state_->Do(o); }, op);
  }
  return {};
}

Result<StageOutput> Stage::Forward(const BatchMessage& batch) {
  State& s = *state_;
  SHOAL_RETURN_IF_ERROR(s.CheckInput(batch));
  SHOAL_RETURN_IF_ERROR(s.CheckRows(batch));
  s.rows.clear();
  for (const BatchRow& row : batch.rows) s.rows.push_back({row.sequence, row.position, row.output});

  std::span<const float> input = batch.hidden;
  if (s.engine->is_first()) {
    SHOAL_RETURN_IF_ERROR(s.engine->Embed(batch.tokens, s.input));
    input = s.input;
  }
  StageOutput out;
  SHOAL_RETURN_IF_ERROR(s.engine->Forward(s.rows, input, s.engine->is_last() ? s.output : out.hidden));
  if (s.engine->is_last()) s.Sample(batch, out);
  return out;
}

void Stage::Abort() { state_->engine->Abort(); }
const Engine& Stage::engine() const { return *state_->engine; }

}  // namespace shoal
