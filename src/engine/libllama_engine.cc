// One Forward: check the rows, fill the batch, decode, take what leaves this stage, protect what came in.
#include "engine/libllama_engine.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "engine/cache_rows.h"
#include "engine/cpu_kernels.h"
#include "engine/llama_guard.h"
#include "engine/llama_log.h"

namespace shoal {
namespace {

Error Refused(const std::string& why) { return {ErrorCode::kInvalidArgument, why}; }

}  // namespace

LibllamaEngine::LibllamaEngine(const Shard& shard, const EngineOptions& options)
    : options_(options),
      file_(shard.model),
      is_first_(options.layers.first == 0),
      is_last_(shard.is_last),
      n_embd_(file_->info.n_embd),
      n_vocab_(file_->info.n_vocab),
      rules_(RulesFor(*file_)),
      input_(InputRuleFor(*file_)),
      takes_tokens_(is_first_ && is_last_ && !rules_.splittable),
      output_name_(std::string(HiddenTensorName(*file_)) + "-" + std::to_string(options.layers.count() - 1)),
      threads_({options.threads, options.cpus}, options.yields) {}

LibllamaEngine::~LibllamaEngine() = default;

Result<std::unique_ptr<Engine>> LibllamaEngine::Make(const Shard& shard, const EngineOptions& options,
                                                     WeightBuffers weights, LlamaModelPtr model,
                                                     std::uint64_t weight_bytes) {
  std::unique_ptr<LibllamaEngine> engine(new LibllamaEngine(shard, options));
  engine->weights_ = std::move(weights);
  engine->model_ = std::move(model);
  llama_context_params params = LlamaContextParams(options, shard.is_last);
  params.abort_callback = OnAbortPoll;
  params.abort_callback_data = engine.get();
  if (!engine->is_last_) {
    params.cb_eval = OnTensor;
    params.cb_eval_user_data = engine.get();
  }
  SHOAL_ASSIGN_OR_RETURN(engine->context_, MakeLlamaContext(engine->model_.get(), params));
  SHOAL_RETURN_IF_ERROR(engine->threads_.Attach(engine->context_.get()));
  if (engine->is_first_ && !engine->takes_tokens_) {
    SHOAL_ASSIGN_OR_RETURN(engine->embeddings_, EmbeddingTable::Open(engine->file_, engine->input_.token_scale));
  }
  engine->memory_ = MeasureMemory(shard, engine->context_.get(), options);
  engine->memory_.weight_bytes = weight_bytes;
  Log(LogLevel::kInfo, "engine", "weights: " + WeightLayoutsText(engine->model_.get()));
  engine->twins_ = options.kv_shared && llama_model_n_swa(engine->model_.get()) > 0 &&
                   !llama_model_is_recurrent(engine->model_.get()) && !llama_model_is_hybrid(engine->model_.get());
  engine->ReserveBatch();
  return std::unique_ptr<Engine>(std::move(engine));
}

void LibllamaEngine::ReserveBatch() {
  const auto rows = static_cast<std::size_t>(options_.batch_rows_max);
  tokens_.resize(rows);
  positions_.resize(rows * static_cast<std::size_t>(std::max(input_.position_rows, 1)));
  sequence_counts_.assign(rows, 1);
  sequences_.resize(rows);
  sequence_pointers_.resize(rows);
  outputs_.resize(rows);
  for (std::size_t i = 0; i < rows; ++i) sequence_pointers_[i] = &sequences_[i];
}

bool LibllamaEngine::OnAbortPoll(void* user) {
  return static_cast<LibllamaEngine*>(user)->aborted_.load(std::memory_order_relaxed);
}

bool LibllamaEngine::OnTensor(ggml_tensor* tensor, bool ask, void* user) {
  auto* self = static_cast<LibllamaEngine*>(user);
  if (ask) return self->output_name_ == tensor->name;
  if (self->captured_ == nullptr) return false;
  const auto expected = static_cast<std::int64_t>(self->captured_->size());
  if (tensor->type != GGML_TYPE_F32 || ggml_nelements(tensor) != expected || !ggml_is_contiguous(tensor)) {
    self->capture_error_ = "the stage's output has " + std::to_string(ggml_nelements(tensor)) + " values of type " +
                           ggml_type_name(tensor->type) + ", expected " + std::to_string(expected) + " of type f32";
    return false;
  }
  ggml_backend_tensor_get(tensor, self->captured_->data(), 0, ggml_nbytes(tensor));
  self->has_captured_ = true;
  return false;  // nothing after it is needed here
}

Status LibllamaEngine::Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) {
  SHOAL_CHECK(is_first_);
  if (!takes_tokens_) return embeddings_->Look(tokens, hidden);
  const auto width = static_cast<std::size_t>(n_embd_);
  for (const TokenId token : tokens) {
    if (token < 0 || token >= n_vocab_) {
      return Refused("token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(n_vocab_));
    }
  }
  hidden.assign(tokens.size() * width, 0.0F);
  for (std::size_t i = 0; i < tokens.size(); ++i) std::memcpy(&hidden[i * width], &tokens[i], sizeof(TokenId));
  return {};
}

Status LibllamaEngine::CheckRows(std::span<const EngineRow> rows) const {
  const bool one_sequence = !options_.kv_shared || rules_.one_sequence_per_batch;
  std::int32_t outputs = 0;
  for (const EngineRow& row : rows) {
    if (row.sequence < 0 || row.sequence >= options_.sequences_max) {
      return Refused("sequence " + std::to_string(row.sequence) + " of " + std::to_string(options_.sequences_max));
    }
    if (row.position < 0) return Refused("position " + std::to_string(row.position));
    if (one_sequence && row.sequence != rows.front().sequence) {
      return Refused("rows of several sequences in one batch of an engine that takes one at a time");
    }
    outputs += row.output ? 1 : 0;
  }
  if (is_last_ && outputs > options_.output_rows_max) {
    return Refused(std::to_string(outputs) + " rows with output; at most " + std::to_string(options_.output_rows_max));
  }
  return {};
}

llama_batch LibllamaEngine::FillBatch(std::span<const EngineRow> rows, std::span<const float> hidden) {
  const std::size_t n = rows.size();
  for (std::size_t i = 0; i < n; ++i) {
    sequences_[i] = rows[i].sequence;
    outputs_[i] = !is_last_ || rows[i].output ? 1 : 0;
    // Section by section; of M-RoPE's four, text uses three, the last is 0.
    for (std::size_t section = 0; section < std::max<std::size_t>(input_.position_rows, 1); ++section) {
      positions_[section * n + i] = section == 3 ? 0 : rows[i].position;
    }
  }
  llama_batch batch{};
  batch.n_tokens = static_cast<std::int32_t>(n);
  batch.pos = positions_.data();
  batch.n_seq_id = sequence_counts_.data();
  batch.seq_id = sequence_pointers_.data();
  batch.logits = outputs_.data();
  if (takes_tokens_) {
    for (std::size_t i = 0; i < n; ++i) {
      std::memcpy(&tokens_[i], &hidden[i * static_cast<std::size_t>(n_embd_)], sizeof(llama_token));
    }
    batch.token = tokens_.data();
    return batch;
  }
  batch.embd = const_cast<float*>(hidden.data());  // libllama only reads it
  if (!is_first_ && input_.hidden_scale != 1.0F) {
    scaled_.resize(hidden.size());
    std::transform(hidden.begin(), hidden.end(), scaled_.begin(), [this](float v) { return v * input_.hidden_scale; });
    batch.embd = scaled_.data();
  }
  return batch;
}

Status LibllamaEngine::Decode(const llama_batch& batch) {
  LlamaErrors errors;
  int code = 0;
  try {
    LlamaGuard guard;
    code = llama_decode(context_.get(), batch);
  } catch (const std::exception& e) {
    // Something inside was left half done.
    broken_ = std::string("libllama failed: ") + e.what();
    return Error{ErrorCode::kInternal, broken_};
  }
  switch (code) {
    case 0: return {};
    case 1:
      return Error{ErrorCode::kKvFull, "no room for " + std::to_string(batch.n_tokens) +
                                           " more tokens in the KV "
                                           "cache of " +
                                           std::to_string(llama_n_ctx(context_.get()))};
    case 2: return Error{ErrorCode::kCancelled, "the computation was aborted"};
    default: return Error{ErrorCode::kInternal, errors.TextOr("libllama failed with code " + std::to_string(code))};
  }
}

Status LibllamaEngine::Forward(std::span<const EngineRow> rows, std::span<const float> hidden,
                               std::vector<float>& out) {
  const auto width = static_cast<std::size_t>(n_embd_);
  SHOAL_CHECK(!rows.empty() && rows.size() <= static_cast<std::size_t>(options_.batch_rows_max));
  SHOAL_CHECK(hidden.size() == rows.size() * width);
  if (!broken_.empty()) return Error{ErrorCode::kUnavailable, broken_};
  SHOAL_RETURN_IF_ERROR(CheckRows(rows));
  threads_.Prepare();
  aborted_.store(false, std::memory_order_relaxed);

  const llama_batch batch = FillBatch(rows, hidden);
  if (!is_last_) {
    out.resize(rows.size() * width);
    captured_ = &out;
    has_captured_ = false;
    capture_error_.clear();
  }
  Status decoded = Decode(batch);
  captured_ = nullptr;
  threads_.Passed(rows.size(), decoded.ok());
  if (!decoded.ok()) {
    if (decoded.error().code != ErrorCode::kKvFull) ForgetBatch(rows);
    return decoded;
  }
  if (twins_) Protect(rows);
  if (is_last_) return TakeLogits(rows, out);
  if (has_captured_) return {};
  return Error{ErrorCode::kInternal,
               capture_error_.empty() ? "the graph has no tensor " + output_name_ : capture_error_};
}

Status LibllamaEngine::TakeLogits(std::span<const EngineRow> rows, std::vector<float>& out) {
  const auto width = static_cast<std::size_t>(n_vocab_);
  const auto outputs = static_cast<std::size_t>(
      std::count_if(rows.begin(), rows.end(), [](const EngineRow& row) { return row.output; }));
  out.resize(outputs * width);
  std::size_t done = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].output) continue;
    const float* logits = llama_get_logits_ith(context_.get(), static_cast<std::int32_t>(i));
    if (logits == nullptr) return Error{ErrorCode::kInternal, "libllama has no logits for row " + std::to_string(i)};
    std::memcpy(out.data() + done * width, logits, width * sizeof(float));
    ++done;
  }
  return {};
}

// libllama reuses a cell that only one sequence owns once its position has left that sequence's sliding window, even
// though the window's cache was made full size so that sequences can be rewound. A twin that owns the same cells keeps
// them: the twin is in no batch, so no mask ever sees it.
void LibllamaEngine::Protect(std::span<const EngineRow> rows) {
  llama_memory_t memory = llama_get_memory(context_.get());
  for (std::size_t i = 0; i < rows.size();) {
    std::size_t end = i + 1;
    while (end < rows.size() && rows[end].sequence == rows[i].sequence) ++end;
    llama_memory_seq_cp(memory, rows[i].sequence, rows[i].sequence + kSequencesMax, rows[i].position,
                        rows[end - 1].position + 1);
    i = end;
  }
}

// After a failed batch libllama has removed its positions, but a recurrent state cannot go back: such sequences start
// anew.
void LibllamaEngine::ForgetBatch(std::span<const EngineRow> rows) {
  if (rules_.rewindable || !broken_.empty()) return;
  for (const EngineRow& row : rows) Remove(row.sequence, 0);
}

bool LibllamaEngine::Remove(SequenceId sequence, Position position) {
  llama_memory_t memory = llama_get_memory(context_.get());
  if (twins_) llama_memory_seq_rm(memory, sequence + kSequencesMax, position, -1);
  return llama_memory_seq_rm(memory, sequence, position, -1);
}

Status LibllamaEngine::Rewind(SequenceId sequence, Position position) {
  if (sequence < 0 || sequence >= options_.sequences_max || position < 0) {
    return Refused("rewind of sequence " + std::to_string(sequence) + " to " + std::to_string(position));
  }
  if (position >= Length(sequence)) return {};
  const bool possible = position == 0 || rules_.rewindable;
  if (possible && Remove(sequence, position)) return {};
  Remove(sequence, 0);
  return Error{ErrorCode::kUnsupported, "this model cannot forget part of a sequence"};
}

Status LibllamaEngine::Copy(SequenceId from, SequenceId to, Position position) {
  const auto known = [this](SequenceId sequence) { return sequence >= 0 && sequence < options_.sequences_max; };
  if (!known(from) || !known(to) || position < 0 || from == to) {
    return Refused("copy of sequence " + std::to_string(from) + " to " + std::to_string(to) + " up to " +
                   std::to_string(position));
  }
  Remove(to, 0);
  const Position length = Length(from);
  if (position > length) {
    return Refused("copy of " + std::to_string(position) + " positions of a sequence that holds " +
                   std::to_string(length));
  }
  if (position == 0) return {};
  if (!rules_.rewindable && position != length) {
    return Error{ErrorCode::kUnsupported, "this model cannot copy part of a sequence"};
  }
  llama_memory_t memory = llama_get_memory(context_.get());
  if (options_.kv_shared && rules_.rewindable) {
    llama_memory_seq_cp(memory, from, to, 0, position);
    if (twins_) llama_memory_seq_cp(memory, from, to + kSequencesMax, 0, position);
    return {};
  }
  // Separate caches (and recurrent states) are copied whole; what is too much is forgotten again.
  llama_memory_seq_cp(memory, from, to, -1, -1);
  if (position < length) Remove(to, position);
  return {};
}

Status LibllamaEngine::CheckRowRange(SequenceId sequence, Position from, Position to) const {
  if (!broken_.empty()) return Error{ErrorCode::kUnavailable, broken_};
  if (!options_.kv_shared || twins_ || !rules_.rewindable) {
    return Error{ErrorCode::kUnsupported, "this model's cache is not one of rows"};
  }
  if (sequence < 0 || sequence >= options_.sequences_max || from < 0 || to <= from ||
      to - from > options_.batch_rows_max) {
    return Refused("rows " + std::to_string(from) + " to " + std::to_string(to) + " of sequence " +
                   std::to_string(sequence));
  }
  return {};
}

Result<std::vector<std::uint8_t>> LibllamaEngine::ReadRows(SequenceId sequence, Position from, Position to) {
  SHOAL_RETURN_IF_ERROR(CheckRowRange(sequence, from, to));
  if (to > Length(sequence)) return Refused("rows beyond what sequence " + std::to_string(sequence) + " holds");
  return ReadCacheRows(context_.get(), sequence, from, to);
}

Status LibllamaEngine::WriteRows(SequenceId sequence, Position from, Position to, std::span<const std::uint8_t> rows) {
  SHOAL_RETURN_IF_ERROR(CheckRowRange(sequence, from, to));
  if (from != Length(sequence)) {
    return Refused("rows from " + std::to_string(from) + " on, where sequence " + std::to_string(sequence) +
                   " ends at " + std::to_string(Length(sequence)));
  }
  return WriteCacheRows(context_.get(), sequence, from, to, rows);
}

Position LibllamaEngine::Length(SequenceId sequence) const {
  SHOAL_CHECK(sequence >= 0 && sequence < options_.sequences_max);
  return llama_memory_seq_pos_max(llama_get_memory(context_.get()), sequence) + 1;
}

}  // namespace shoal
