// Runs layers [first, last) of one model: frames' contents in, hidden states or sampled tokens out.
//
// Owns the engine (weights, KV cache), the tokens that the cache holds, the hidden states it sent for them, and, on the
// last stage, one sampler per open generation. Serves one plan epoch at a time and may go over to the next with all but
// its samplers. Knows no peers, sockets or requests: pipeline/ carries micro-batches between stages. One thread at a
// time (its compute thread).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/vocabulary.h"
#include "wire/copy_messages.h"
#include "wire/messages.h"

namespace shoal {

// What became of one micro-batch here.
struct StageOutput {
  std::vector<float> hidden;       // f32 [T, n_embd]; empty on the last stage
  std::vector<RowResult> results;  // last stage: one per row with `output`, in row order
  // Generations that failed by themselves (a grammar that does not parse or cannot continue).
  std::vector<FailureMessage> failures;
};

// Makes an engine, as Engine::Open does.
using EngineOpener =
    std::function<Result<std::unique_ptr<Engine>>(std::shared_ptr<const ModelFile>, const EngineOptions&)>;

class Stage {
 public:
  using OpenVocabulary = std::function<Result<std::shared_ptr<const Vocabulary>>()>;
  // `vocabulary` is needed on the last stage only (else null); it is called on another thread while the weights load.
  // Errors: its own; as `open` (empty: Engine::Open); as CheckBatchFits, where hidden states come or go.
  static Result<std::unique_ptr<Stage>> Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                             const OpenVocabulary& vocabulary, const EngineOpener& open = {});
  // Over an engine made elsewhere (tests, simulation).
  static std::unique_ptr<Stage> Over(std::unique_ptr<Engine> engine, std::shared_ptr<const Vocabulary> vocabulary);
  ~Stage();

  // Keeps, from here on, the hidden states that it sends as `type`, in at most `bytes_max` bytes of memory and for no
  // more rows than there are KV cells. What was kept before stays where type and limit are the same. 0: keeps none; nor
  // does the last stage ever.
  void KeepSent(WireType type, std::uint64_t bytes_max);
  // The most memory that KeepSent will take beside the engine's: for asking before it is spent.
  static std::uint64_t SentBytesMax(const EngineOptions& options, std::int32_t n_embd, WireType type,
                                    std::uint64_t bytes_max);
  std::uint64_t sent_bytes() const;  // what they take now

  // What the cache holds, as its first word to the head of an epoch. Sequences that do not fit kInventoryTokensMax are
  // emptied.
  InventoryMessage Inventory(StageIndex self);
  // Closes all generations: the epoch is over.
  void CloseAll();
  // The engine failed in a way that leaves its cache in doubt, or is gone: not to be used again.
  bool failed() const;

  // Applies operations in order; `self` is which stage this is. A failure of one generation's Open is reported with its
  // next row.
  // Errors: kInvalidArgument (a sequence outside the engine's range): the peer is broken, nothing was applied.
  Status Apply(const ControlMessage& control, StageIndex self);

  // Runs one micro-batch of T rows.
  // Errors: kInvalidArgument (rows that do not continue their sequence, wrong n_embd, a token outside the vocabulary,
  // more rows than the engine takes: the cache is unchanged), kKvFull, kCancelled, kInternal: the cache is as before,
  // or without the sequences of the batch; kUnavailable: the engine is gone, and this stage with it. Blocks while
  // computing.
  Result<StageOutput> Forward(const BatchMessage& batch);

  // The output of the last Forward, of these rows, as EncodedHidden gives it: kept for Replay.
  void Sent(std::span<const BatchRow> rows, std::span<const std::uint8_t> encoded);
  // Puts into `batch`, which has none, the hidden states that were sent for its rows.
  // Errors: kNotFound (not kept, or the cache holds other tokens there).
  Status Replay(BatchMessage& batch) const;

  // What a copy of this stage elsewhere has been told.
  struct CopyKnows {
    std::vector<std::vector<TokenId>> tokens;  // by sequence
    bool impossible = false;                   // this kind of cache cannot be passed on
  };
  // What to tell it next, which then counts as told; nothing: it knows all.
  std::optional<CopyRows> RowsForCopy(CopyKnows& knows) const;
  // The copy's side. What does not follow what it holds is refused, and changes nothing.
  // Errors: kInvalidArgument, kUnsupported, kCorrupt, kKvFull.
  Status TakeRows(const CopyRows& rows);
  void EmptyAll();  // forgets all sequences

  void Abort();  // any thread
  const Engine& engine() const;

 private:
  struct State;
  explicit Stage(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
