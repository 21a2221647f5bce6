// Runs layers [first, last) of one model for one plan epoch: frames' contents in, hidden states or sampled tokens out.
//
// Owns the engine (weights, KV cache) and, on the last stage, one sampler per open generation. Knows no peers, sockets
// or requests: pipeline/ carries micro-batches between stages. One thread at a time (its compute thread).
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/vocabulary.h"
#include "wire/messages.h"

namespace shoal {

// What became of one micro-batch here.
struct StageOutput {
  std::vector<float> hidden;       // f32 [T, n_embd]; empty on the last stage
  std::vector<RowResult> results;  // last stage: one per row with `output`, in row order
  // Generations that failed by themselves (a grammar that does not parse or cannot continue).
  std::vector<FailureMessage> failures;
};

class Stage {
 public:
  // `vocabulary` is needed on the last stage only. Errors: as Engine::Open; as CheckBatchFits, where hidden states come
  // or go.
  static Result<std::unique_ptr<Stage>> Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                             std::shared_ptr<const Vocabulary> vocabulary);
  // Over an engine made elsewhere (tests, simulation).
  static std::unique_ptr<Stage> Over(std::unique_ptr<Engine> engine, std::shared_ptr<const Vocabulary> vocabulary);
  ~Stage();

  // Applies operations in order. A failure of one generation's Open is reported with its next row.
  // Errors: kInvalidArgument (a sequence outside the engine's range): the peer is broken, nothing was applied.
  Status Apply(const ControlMessage& control);

  // Runs one micro-batch of T rows.
  // Errors: kInvalidArgument (rows that do not continue their sequence, wrong n_embd, a token outside the vocabulary,
  // more rows than the engine takes: the cache is unchanged), kKvFull, kCancelled, kInternal.
  // Blocks while computing.
  Result<StageOutput> Forward(const BatchMessage& batch);

  void Abort();  // any thread
  const Engine& engine() const;

 private:
  struct State;
  explicit Stage(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
