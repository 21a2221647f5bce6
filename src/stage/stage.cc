// Checks a micro-batch against what the cache holds, runs it, and on the last stage samples.
#include "stage/stage.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "base/log.h"
#include "base/thread_name.h"
#include "engine/token_sampler.h"
#include "stage/sent_log.h"

namespace shoal {
namespace {

Error Refused(std::string why) { return {ErrorCode::kInvalidArgument, std::move(why)}; }

// How many rows KeepSent keeps: no more than there are KV cells.
std::int64_t SentRowsMax(const EngineOptions& options, std::int32_t n_embd, WireType type, std::uint64_t bytes_max) {
  const std::int64_t cells = std::int64_t{options.kv_tokens_max} * (options.kv_shared ? 1 : options.sequences_max);
  const std::uint64_t slab_bytes = SentLog::Bytes(1, static_cast<std::uint32_t>(n_embd), type);
  const std::int64_t slab_rows = SentLog::kSlabRows;
  return std::min(cells, static_cast<std::int64_t>(bytes_max / slab_bytes) * slab_rows);
}

// One message to a copy: so long a bulk connection has something to do, and the compute thread little.
constexpr std::uint64_t kCopyBytes = 1U << 20;

std::vector<BatchRow> RowsOf(const CopyRows& rows) {
  std::vector<BatchRow> of(rows.tokens.size());
  for (std::size_t i = 0; i < of.size(); ++i) {
    of[i].sequence = rows.sequence;
    of[i].position = rows.from + static_cast<Position>(i);
  }
  return of;
}

// The generation that has a sequence on the last stage.
struct Slot {
  GenerationId generation = 0;  // 0: none
  std::unique_ptr<TokenSampler> sampler;
  std::optional<Error> failure;  // why it cannot sample
  bool reported = false;         // the failure was sent
  // The row to sample after: that of the last token it knows; -1: the text has ended. Any other row was a wrong guess.
  Position position = 0;
  TokenId token = 0;
};

}  // namespace

struct Stage::State {
  std::unique_ptr<Engine> engine;
  std::shared_ptr<const Vocabulary> vocabulary;
  std::vector<Slot> slots;                  // [sequences_max], used on the last stage
  std::vector<std::vector<TokenId>> known;  // [sequences_max][Length]: what the cache holds
  std::unique_ptr<SentLog> sent;            // null: nothing is kept
  bool failed = false;
  std::vector<Position> expected;  // [sequences_max], scratch of CheckRows: next position, or -1
  std::vector<EngineRow> rows;     // scratch of Forward
  std::vector<float> input, output;

  // Known tokens and sent rows follow the cache, which may be shorter than asked for.
  void Follow(SequenceId sequence) {
    auto& tokens = known[static_cast<std::size_t>(sequence)];
    const Position length = engine->Length(sequence);
    if (static_cast<Position>(tokens.size()) > length) tokens.resize(static_cast<std::size_t>(length));
    if (sent) sent->Rewind(sequence, length);
  }
  bool Holds(const BatchRow& row, TokenId token) const {
    if (!Known(row.sequence) || row.position >= engine->Length(row.sequence)) return false;
    return known[static_cast<std::size_t>(row.sequence)][static_cast<std::size_t>(row.position)] == token;
  }
  // As EncodedHidden; empty when one is gone.
  std::vector<std::uint8_t> ReadSent(std::span<const BatchRow> of) const;
  void Empty(SequenceId sequence);
  void Forget(const BatchMessage& batch);

  bool Known(SequenceId sequence) const { return sequence >= 0 && sequence < engine->options().sequences_max; }

  Status CheckOp(const ControlOp& op) const;
  void Do(const OpenSequence& op);
  void Do(const RewindSequence& op);
  void Do(const CopySequence& op);
  void Do(const CloseSequence& op);

  Status CheckInput(const BatchMessage& batch) const;
  Status CheckRows(const BatchMessage& batch);
  void Sample(const BatchMessage& batch, StageOutput& out);
  void SampleRow(BatchId batch, const BatchRow& row, TokenId token, std::span<const float> logits, StageOutput& out);
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
  slot.position = static_cast<Position>(op.history.size()) - 1;
  slot.token = op.history.empty() ? 0 : op.history.back();
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

void Stage::State::Do(const RewindSequence& op) {
  LogFailure(engine->Rewind(op.sequence, op.position));
  Follow(op.sequence);
}

void Stage::State::Do(const CopySequence& op) {
  LogFailure(engine->Copy(op.from, op.to, op.position));
  known[static_cast<std::size_t>(op.to)] = known[static_cast<std::size_t>(op.from)];
  if (sent) sent->Copy(op.from, op.to, op.position);
  Follow(op.to);
}

std::vector<std::uint8_t> Stage::State::ReadSent(std::span<const BatchRow> of) const {
  const bool exponents = sent->type() == WireType::kF16;
  std::vector<std::uint8_t> encoded(exponents ? of.size() : 0);
  encoded.reserve(of.size() * sent->row_bytes());
  for (std::size_t i = 0; i < of.size(); ++i) {
    const std::optional<SentLog::Row> row = sent->Read(of[i].sequence, of[i].position);
    if (!row) return {};
    if (exponents) encoded[i] = row->exponent;
    encoded.insert(encoded.end(), row->values.begin(), row->values.end());
  }
  return encoded;
}

void Stage::State::Empty(SequenceId sequence) { Do(RewindSequence{sequence, 0}); }

// After a batch that failed: the cache is as before it. Where the engine cannot do that, the sequence goes.
void Stage::State::Forget(const BatchMessage& batch) {
  for (const BatchRow& row : batch.rows) {
    const auto length = static_cast<Position>(known[static_cast<std::size_t>(row.sequence)].size());
    if (engine->Length(row.sequence) > length) LogFailure(engine->Rewind(row.sequence, length));
    Follow(row.sequence);
  }
}

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
  if (batch.tokens.size() != n) return Refused("a micro-batch without one token a row");
  if (engine->is_first()) {
    if (batch.hidden.empty()) return {};
    return Refused("the first stage takes no hidden states");
  }
  const auto n_embd = static_cast<std::size_t>(engine->n_embd());
  if (batch.n_embd == n_embd && batch.hidden.size() == n * n_embd) return {};
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

void Stage::State::SampleRow(BatchId batch, const BatchRow& row, TokenId token, std::span<const float> logits,
                             StageOutput& out) {
  Slot& slot = slots[static_cast<std::size_t>(row.sequence)];
  const auto fail = [&](const Error& error) {
    out.failures.push_back({batch, row.generation, 0, error.code, error.message});
  };
  if (slot.generation != row.generation || slot.generation == 0) {
    return fail({ErrorCode::kNotFound, "sequence " + std::to_string(row.sequence) + " was not opened for generation " +
                                           std::to_string(row.generation)});
  }
  if (slot.sampler == nullptr) return;  // its failure is reported once, by Sample
  if (row.position != slot.position || token != slot.token) return;
  auto sampled = slot.sampler->Sample(logits, row.position + 1);
  if (!sampled.ok()) {
    slot.sampler.reset();
    slot.failure = sampled.error();
    slot.reported = true;
    return fail(sampled.error());
  }
  slot.position = sampled->end ? -1 : row.position + 1;
  slot.token = sampled->token;
  out.results.push_back({row.sequence, row.generation, row.position + 1, std::move(sampled).value()});
}

void Stage::State::Sample(const BatchMessage& batch, StageOutput& out) {
  const auto n_vocab = static_cast<std::size_t>(engine->n_vocab());
  std::size_t done = 0;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const BatchRow& row = batch.rows[i];
    Slot& slot = slots[static_cast<std::size_t>(row.sequence)];
    if (slot.failure && !slot.reported && slot.generation == row.generation) {
      slot.reported = true;
      out.failures.push_back({batch.batch, row.generation, 0, slot.failure->code, slot.failure->message});
    }
    if (!row.output) continue;
    SampleRow(batch.batch, row, batch.tokens[i], {output.data() + done * n_vocab, n_vocab}, out);
    ++done;
  }
}

Stage::Stage(std::unique_ptr<State> state) : state_(std::move(state)) {}
Stage::~Stage() = default;

Result<std::unique_ptr<Stage>> Stage::Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                           const OpenVocabulary& vocabulary, const EngineOpener& open) {
  const auto load = [&](const EngineOptions& how) {
    return open ? open(std::move(model), how) : Engine::Open(std::move(model), how);
  };
  const bool whole = options.layers.first == 0 && options.layers.last == model->info.n_layer;
  if (!whole) SHOAL_RETURN_IF_ERROR(CheckBatchFits(options.batch_rows_max, model->info.n_embd, WireType::kF32));
  if (!vocabulary) {
    SHOAL_ASSIGN_OR_RETURN(auto engine, load(options));
    return Over(std::move(engine), nullptr);
  }
  Result<std::shared_ptr<const Vocabulary>> opened = std::shared_ptr<const Vocabulary>();
  std::atomic<bool> is_none{false};
  std::thread opening;
  EngineOptions until = options;
  until.on_progress = [&](float done) {
    // Not before the weights have their memory: where that is short, the vocabulary must not take the last of it from
    // whoever has to tell.
    if (!opening.joinable()) {
      opening = std::thread([&] {
        NameThisThread("shoal-words");
        opened = vocabulary();
        is_none = !opened.ok();
      });
    }
    return !is_none && (!options.on_progress || options.on_progress(done));  // weights alone are of no use
  };
  Result<std::unique_ptr<Engine>> engine = load(until);
  if (opening.joinable()) {
    opening.join();
  } else if (engine.ok()) {
    opened = vocabulary();  // nothing was told while it was loaded
  }
  if (!opened.ok()) return std::move(opened).error();
  if (!engine.ok()) return std::move(engine).error();
  return Over(*std::move(engine), *std::move(opened));
}

std::unique_ptr<Stage> Stage::Over(std::unique_ptr<Engine> engine, std::shared_ptr<const Vocabulary> vocabulary) {
  SHOAL_CHECK(engine != nullptr);
  auto state = std::make_unique<State>();
  state->slots.resize(static_cast<std::size_t>(engine->options().sequences_max));
  state->known.resize(static_cast<std::size_t>(engine->options().sequences_max));
  state->engine = std::move(engine);
  state->vocabulary = std::move(vocabulary);
  return std::unique_ptr<Stage>(new Stage(std::move(state)));
}

Status Stage::Apply(const ControlMessage& control, StageIndex self) {
  for (const ControlOp& op : control.ops) SHOAL_RETURN_IF_ERROR(state_->CheckOp(op));
  for (const ControlOp& op : control.ops) {
    const auto* rewind = std::get_if<RewindSequence>(&op);
    if (rewind != nullptr && rewind->stage != kAllStages && rewind->stage != self) continue;
    std::visit([this](const auto& o) { state_->Do(o); }, op);
  }
  return {};
}

std::uint64_t Stage::SentBytesMax(const EngineOptions& options, std::int32_t n_embd, WireType type,
                                  std::uint64_t bytes_max) {
  return SentLog::Bytes(SentRowsMax(options, n_embd, type, bytes_max), static_cast<std::uint32_t>(n_embd), type);
}

void Stage::KeepSent(WireType type, std::uint64_t bytes_max) {
  State& s = *state_;
  const EngineOptions& options = s.engine->options();
  const std::int64_t rows = s.engine->is_last() ? 0 : SentRowsMax(options, s.engine->n_embd(), type, bytes_max);
  if (s.sent && s.sent->type() == type && s.sent->rows_max() == rows) return;
  s.sent.reset();
  if (rows == 0) return;
  s.sent = std::make_unique<SentLog>(options.sequences_max, static_cast<std::uint32_t>(s.engine->n_embd()), type, rows);
}

std::uint64_t Stage::sent_bytes() const { return state_->sent ? state_->sent->bytes() : 0; }
bool Stage::failed() const { return state_->failed; }

InventoryMessage Stage::Inventory(StageIndex self) {
  State& s = *state_;
  InventoryMessage inventory;
  inventory.stage = self;
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < s.known.size(); ++i) {
    const auto sequence = static_cast<SequenceId>(i);
    if (s.known[i].empty()) continue;
    if (tokens + s.known[i].size() > kInventoryTokensMax || inventory.sequences.size() >= kInventorySequencesMax) {
      s.Empty(sequence);
      continue;
    }
    tokens += s.known[i].size();
    const bool logged = s.sent && s.sent->Length(sequence) == static_cast<Position>(s.known[i].size());
    const Position from = logged ? s.sent->From(sequence) : static_cast<Position>(s.known[i].size());
    inventory.sequences.push_back({sequence, from, s.known[i]});
  }
  return inventory;
}

void Stage::CloseAll() {
  for (Slot& slot : state_->slots) slot = Slot{};
}

Result<StageOutput> Stage::Forward(const BatchMessage& batch) {
  State& s = *state_;
  SHOAL_RETURN_IF_ERROR(s.CheckInput(batch));
  SHOAL_RETURN_IF_ERROR(s.CheckRows(batch));
  s.rows.clear();
  for (const BatchRow& row : batch.rows) s.rows.push_back({row.sequence, row.position, row.output});

  std::span<const float> input = batch.hidden;
  StageOutput out;
  Status ran;
  if (s.engine->is_first()) {
    ran = s.engine->Embed(batch.tokens, s.input);
    input = s.input;
  }
  if (ran.ok()) ran = s.engine->Forward(s.rows, input, s.engine->is_last() ? s.output : out.hidden);
  if (!ran.ok()) {
    const ErrorCode code = ran.error().code;
    s.failed = s.failed || code == ErrorCode::kInternal || code == ErrorCode::kUnavailable;
    s.Forget(batch);
    return ran.error();
  }
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    s.known[static_cast<std::size_t>(batch.rows[i].sequence)].push_back(batch.tokens[i]);
  }
  if (s.engine->is_last()) s.Sample(batch, out);
  return out;
}

void Stage::Sent(std::span<const BatchRow> rows, std::span<const std::uint8_t> encoded) {
  State& s = *state_;
  if (s.sent == nullptr || rows.empty()) return;
  const bool exponents = s.sent->type() == WireType::kF16;
  const std::size_t row_bytes = encoded.size() / rows.size() - (exponents ? 1 : 0);
  const std::span<const std::uint8_t> values = encoded.subspan(exponents ? rows.size() : 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    // A sequence whose beginning was not kept has nothing to be continued.
    if (s.sent->Length(rows[i].sequence) != rows[i].position) continue;
    s.sent->Append(rows[i].sequence, exponents ? encoded[i] : 0, values.subspan(i * row_bytes, row_bytes));
  }
}

Status Stage::Replay(BatchMessage& batch) const {
  const State& s = *state_;
  batch.encoded.clear();
  if (s.sent == nullptr) return Error{ErrorCode::kNotFound, "this stage keeps nothing of what it sent"};
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const BatchRow& row = batch.rows[i];
    if (s.Holds(row, batch.tokens[i]) && s.sent->Read(row.sequence, row.position)) continue;
    return Error{ErrorCode::kNotFound, "what was sent of sequence " + std::to_string(row.sequence) + " at position " +
                                           std::to_string(row.position) + " is gone"};
  }
  batch.encoded = s.ReadSent(batch.rows);
  batch.n_embd = static_cast<std::uint32_t>(s.engine->n_embd());
  batch.wire_type = s.sent->type();
  return {};
}

// ---- Copies ---------------------------------------------------------------------------------------------------------

std::optional<CopyRows> Stage::RowsForCopy(CopyKnows& knows) const {
  const State& s = *state_;
  const EngineOptions& options = s.engine->options();
  const std::uint64_t row_bytes = s.engine->memory().kv_bytes / static_cast<std::uint64_t>(options.kv_tokens_max) +
                                  static_cast<std::uint64_t>(s.engine->n_embd()) * sizeof(float);
  const std::uint64_t rows_max = std::clamp<std::uint64_t>(
      kCopyBytes / row_bytes, 1,
      std::min(static_cast<std::uint64_t>(options.batch_rows_max), std::uint64_t{kCopyRowsMax}));
  knows.tokens.resize(s.known.size());
  for (std::size_t i = 0; i < s.known.size() && !knows.impossible; ++i) {
    const std::vector<TokenId>& held = s.known[i];
    std::vector<TokenId>& told = knows.tokens[i];
    const auto [end, told_end] = std::mismatch(held.begin(), held.end(), told.begin(), told.end());
    if (end == held.end() && told_end == told.end()) continue;
    CopyRows rows;
    rows.sequence = static_cast<SequenceId>(i);
    rows.from = static_cast<Position>(end - held.begin());
    rows.tokens.assign(end, end + std::min<std::ptrdiff_t>(held.end() - end, static_cast<std::ptrdiff_t>(rows_max)));
    if (!rows.tokens.empty()) {
      const Position to = rows.from + static_cast<Position>(rows.tokens.size());
      Result<std::vector<std::uint8_t>> cache = s.engine->ReadRows(rows.sequence, rows.from, to);
      knows.impossible = !cache.ok() || cache->size() >= kCopyFrameBytesMax / 4;
      if (knows.impossible) return std::nullopt;
      rows.cache = *std::move(cache);
      if (s.sent) {
        rows.sent_type = s.sent->type();
        rows.sent = s.ReadSent(RowsOf(rows));
      }
    }
    told.resize(static_cast<std::size_t>(rows.from));
    told.insert(told.end(), rows.tokens.begin(), rows.tokens.end());
    return rows;
  }
  return std::nullopt;
}

Status Stage::TakeRows(const CopyRows& rows) {
  State& s = *state_;
  if (!s.Known(rows.sequence) || rows.from < 0 || rows.from > s.engine->Length(rows.sequence)) {
    return Refused("rows of sequence " + std::to_string(rows.sequence) + " from " + std::to_string(rows.from) + " on");
  }
  if (std::any_of(rows.tokens.begin(), rows.tokens.end(), [](TokenId token) { return token < 0; })) {
    return Refused("rows of no token");
  }
  s.Do(RewindSequence{rows.sequence, rows.from});
  if (rows.tokens.empty()) return {};
  const Position to = rows.from + static_cast<Position>(rows.tokens.size());
  SHOAL_RETURN_IF_ERROR(s.engine->WriteRows(rows.sequence, rows.from, to, rows.cache));
  auto& tokens = s.known[static_cast<std::size_t>(rows.sequence)];
  tokens.insert(tokens.end(), rows.tokens.begin(), rows.tokens.end());
  const std::size_t sent_bytes = s.sent ? rows.tokens.size() * s.sent->row_bytes() : 0;
  if (s.sent && rows.sent_type == s.sent->type() && rows.sent.size() == sent_bytes) Sent(RowsOf(rows), rows.sent);
  return {};
}

void Stage::EmptyAll() {
  for (std::size_t i = 0; i < state_->known.size(); ++i) state_->Empty(static_cast<SequenceId>(i));
}

void Stage::Abort() { state_->engine->Abort(); }
const Engine& Stage::engine() const { return *state_->engine; }

}  // namespace shoal
