// The Engine on libllama. Made by Engine::Open (engine.cc), which has checked options and memory.
//
// Hidden states go in as embeddings. On every stage but the last the graph stops at the output of its last layer, taken
// by an evaluation callback; the last stage's logits are libllama's own.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "engine/compute_threads.h"
#include "engine/embedding_table.h"
#include "engine/engine.h"
#include "engine/llama_shard.h"
#include "engine/split_rules.h"
#include "engine/weight_loader.h"

namespace shoal {

// Sequence s keeps a twin, s + kSequencesMax, on models with a sliding window: see Protect().
inline constexpr std::int32_t kSequencesMax = 128;

class LibllamaEngine final : public Engine {
 public:
  // `shard` describes `model`, whose weights are in `weights` and count as `weight_bytes`.
  // Errors: as MakeLlamaContext and EmbeddingTable::Open.
  static Result<std::unique_ptr<Engine>> Make(const Shard& shard, const EngineOptions& options, WeightBuffers weights,
                                              LlamaModelPtr model, std::uint64_t weight_bytes);
  ~LibllamaEngine() override;

  const EngineOptions& options() const override { return options_; }
  EngineMemory memory() const override { return memory_; }
  std::int32_t n_embd() const override { return n_embd_; }
  std::int32_t n_vocab() const override { return n_vocab_; }
  bool is_first() const override { return is_first_; }
  bool is_last() const override { return is_last_; }
  Status Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) override;
  Status Forward(std::span<const EngineRow> rows, std::span<const float> hidden, std::vector<float>& out) override;
  void Abort() override { aborted_.store(true, std::memory_order_relaxed); }
  Status Rewind(SequenceId sequence, Position position) override;
  Status Copy(SequenceId from, SequenceId to, Position position) override;
  Position Length(SequenceId sequence) const override;
  Result<std::vector<std::uint8_t>> ReadRows(SequenceId sequence, Position from, Position to) override;
  Status WriteRows(SequenceId sequence, Position from, Position to, std::span<const std::uint8_t> rows) override;

 private:
  LibllamaEngine(const Shard& shard, const EngineOptions& options);
  void ReserveBatch();
  Status CheckRows(std::span<const EngineRow> rows) const;
  llama_batch FillBatch(std::span<const EngineRow> rows, std::span<const float> hidden);
  Status Decode(const llama_batch& batch);
  Status CheckRowRange(SequenceId sequence, Position from, Position to) const;
  Status TakeLogits(std::span<const EngineRow> rows, std::vector<float>& out);
  void Protect(std::span<const EngineRow> rows);
  void ForgetBatch(std::span<const EngineRow> rows);
  // Removes [position, end) of a sequence and its twin; false if the memory cannot.
  bool Remove(SequenceId sequence, Position position);
  static bool OnTensor(ggml_tensor* tensor, bool ask, void* user);
  static bool OnAbortPoll(void* user);

  const EngineOptions options_;
  const std::shared_ptr<const ModelFile> file_;
  const bool is_first_, is_last_;
  const std::int32_t n_embd_, n_vocab_;
  const SplitRules rules_;
  const InputRule input_;
  const bool takes_tokens_;        // a whole model outside the split table: tokens go in, in place of embeddings
  const std::string output_name_;  // of the tensor that leaves this stage

  ComputeThreads threads_;  // outlives the context
  WeightBuffers weights_;
  LlamaModelPtr model_;
  LlamaContextPtr context_;
  std::unique_ptr<EmbeddingTable> embeddings_;
  EngineMemory memory_;
  bool twins_ = false;
  std::string broken_;  // why no Forward can run any more; empty: it can

  // The batch, filled anew by each Forward; [batch_rows_max] each.
  std::vector<float> scaled_;
  std::vector<llama_token> tokens_;
  std::vector<llama_pos> positions_;  // [position_rows, T]
  std::vector<std::int32_t> sequence_counts_;
  std::vector<llama_seq_id> sequences_;
  std::vector<llama_seq_id*> sequence_pointers_;
  std::vector<std::int8_t> outputs_;

  // Where OnTensor puts what it takes, during Forward.
  std::vector<float>* captured_ = nullptr;
  bool has_captured_ = false;
  std::string capture_error_;
  std::atomic<bool> aborted_{false};
};

}  // namespace shoal
