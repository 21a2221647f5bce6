// Layers [first, last) of one model on libllama: hidden states in, hidden states or logits out. With vocabulary,
// sampler chain and quantizer, the only folder that includes llama.h and ggml.h.
//
// Knows no peers, requests or schedules: stage/ maps micro-batches to calls of this. Rows are in the caller's order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/device_choice.h"
#include "engine/split_rules.h"
#include "model/model_info.h"

namespace shoal {

struct EngineOptions {
  LayerRange layers;
  std::int32_t kv_tokens_max = 4096;  // KV cells shared by all sequences (per sequence when kv_shared is false)
  std::int32_t sequences_max = 8;
  std::int32_t batch_rows_max = 64;  // rows of one Forward
  std::int32_t output_rows_max = 8;  // logits rows of one Forward (last stage)
  KvType kv_type = KvType::kF16;
  bool flash_attention = true;
  bool kv_shared = true;  // one pool of cells; false: each sequence has its own, and a sequence's
                          // results never depend on the others'
  std::int32_t threads = 1;
  std::vector<int> cpus;               // affinity of the compute threads; empty: the OS decides. As many CPUs as
                                       // threads: one each. The thread that calls Forward is one of the compute
                                       // threads and is pinned by its first call
  bool yields = false;                 // fewer threads compute while other programs want the same cores. With another
                                       // number, results differ by rounding once the cache holds more than 256 tokens
  std::uint64_t memory_bytes_max = 0;  // weights + KV + compute; 0: what the machine has available
  std::uint64_t other_bytes = 0;       // what the caller will spend beside the engine: counted with it before loading
  DeviceChoice device;                 // only in a process made for it (offload/): opening it may end the process
  // Called during load with [0, 1]; returning false cancels it (kCancelled).
  std::function<bool(float)> on_progress;
};

// What a stage will use of this machine's memory, computed before it is spent; and what it uses, asked after.
struct EngineMemory {
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_bytes = 0;
  std::uint64_t compute_bytes = 0;  // graph buffers and logits
  std::uint64_t total() const { return weight_bytes + kv_bytes + compute_bytes; }
};

// Hidden states or tokens of one call.
struct EngineRow {
  SequenceId sequence = 0;
  Position position = 0;
  bool output = false;  // last stage: compute logits for this row
};

class Engine {
 public:
  virtual ~Engine() = default;

  // Exact for weights and KV, an upper estimate for compute. Loads nothing. Errors: as Open.
  static Result<EngineMemory> Plan(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options);

  // Loads the weights and reserves KV and compute memory.
  // Errors: kUnsupported (cut not allowed, or libllama refuses the model), kOutOfMemory (over memory_bytes_max, or over
  // what the machine has; says how much is missing), kCancelled, kIo, kCorrupt.
  // Blocks while loading.
  static Result<std::unique_ptr<Engine>> Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options);

  virtual const EngineOptions& options() const = 0;
  virtual EngineMemory memory() const = 0;
  virtual std::int32_t n_embd() const = 0;
  virtual std::int32_t n_vocab() const = 0;
  virtual bool is_first() const = 0;
  virtual bool is_last() const = 0;

  // Token embeddings as stage 0's input: f32 [tokens.size(), n_embd] row-major into `hidden` (resized).
  // Reads rows of token_embd from the model file; blocks on the disk when they are not in the page cache. A whole model
  // that cannot be cut takes tokens itself: then the rows only carry the tokens from here to Forward.
  // Precondition (CHECK): is_first(). Errors: kInvalidArgument (a token outside the vocabulary), kIo.
  virtual Status Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) = 0;

  // Runs T rows; appends T entries to the KV cache.
  //   rows    [T], 1 <= T <= batch_rows_max (CHECK); positions continue each sequence's cache
  //   hidden  f32 [T, n_embd]: from Embed on stage 0, else the previous stage's output
  //   out     f32 [T, n_embd] (resized); on the last stage f32 [outputs, n_vocab] for the rows with `output`, in order
  // Errors: kKvFull (the cache is as before the call), kCancelled (by Abort; rows may be partly in the cache: rewind),
  // kInternal, kUnavailable (the engine itself is gone, and its cache with it). Blocks while computing; one thread at a
  // time.
  virtual Status Forward(std::span<const EngineRow> rows, std::span<const float> hidden, std::vector<float>& out) = 0;

  // Makes a running Forward end early. Any thread.
  virtual void Abort() = 0;

  // Forgets positions >= `position` of `sequence`. Errors: kUnsupported when the model cannot rewind to there (then the
  // sequence is emptied and the caller prefills it again).
  virtual Status Rewind(SequenceId sequence, Position position) = 0;
  // Makes [0, position) of `to` the same as of `from`; `to` is emptied first. Errors: kUnsupported.
  virtual Status Copy(SequenceId from, SequenceId to, Position position) = 0;
  // Number of positions that `sequence` holds.
  virtual Position Length(SequenceId sequence) const = 0;

  // The cache's rows of positions [from, to), for another engine of the same layers and options: what is read there is
  // what was computed here, bit for bit. 1 <= to - from <= batch_rows_max.
  // Errors: kUnsupported (this kind of cache), kInvalidArgument (positions that are not there).
  virtual Result<std::vector<std::uint8_t>> ReadRows(SequenceId sequence, Position from, Position to);
  // Puts such rows behind what `sequence` holds, which must end at `from`. The bytes may be anybody's.
  // Errors: kUnsupported, kInvalidArgument, kCorrupt, kKvFull: the cache is as before, or without the sequence.
  virtual Status WriteRows(SequenceId sequence, Position from, Position to, std::span<const std::uint8_t> rows);
};

}  // namespace shoal
