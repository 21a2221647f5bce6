// The model of the simulator: a layer's output hashes what its cache holds, the cache hashes every (token, position,
// layer) before. One lost, doubled, reordered or stale activation changes every token after it; where the model is cut
// changes none.
//
// SimStage has the rules of stage/Stage (operations, positions, samplers, what it holds and sends again, what copies
// are told) over such layers; knows no streams and no time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "wire/copy_messages.h"
#include "wire/messages.h"

namespace shoal::sim {

inline constexpr std::uint64_t kLayerBytes = 100;

struct FakeModel {
  std::string name;
  std::uint64_t fingerprint = 0;  // another file gives other tokens
  std::int32_t layers = 6;
  std::int32_t vocabulary = 1000;
  std::uint64_t end_every = 60;  // about one token in this many ends the text
  std::int32_t context_tokens = 384;
  std::int32_t slots = 4;
  bool break_drafts = false;  // breaks a rule: the last stage samples after rows of wrong guesses too
};

// Precondition (CHECK): there is one of that name.
const FakeModel& ModelOf(const std::vector<FakeModel>& models, const std::string& name);

// The tokens of one request on one node: what every delivered stream is compared with.
struct OneNodeRun {
  std::vector<TokenId> tokens;
  bool stopped = false;  // by an end token, which is the last; else by tokens_max
};
OneNodeRun RunOnOneNode(const FakeModel& model, const std::vector<TokenId>& prompt, std::uint64_t seed,
                        std::int32_t tokens_max);

class SimStage {
 public:
  SimStage(const FakeModel& model, LayerRange layers);

  // Errors: kInvalidArgument (a sequence out of range): nothing was applied.
  Status Apply(const ControlMessage& control, StageIndex self);
  // Turns `batch` into what goes to the next stage, or fills `result` and `failures` on the last one.
  // Errors: kInvalidArgument (rows that do not continue their sequence): the caches are as before.
  Status Forward(BatchMessage& batch, ResultMessage& result, std::vector<FailureMessage>& failures);

  InventoryMessage Inventory(StageIndex self) const;
  void CloseAll();
  // The hidden states that were sent for the batch's rows. Errors: kNotFound.
  Status Replay(BatchMessage& batch) const;

  // What a copy elsewhere has been told.
  using CopyKnows = std::vector<std::vector<TokenId>>;  // [sequence]
  // What to tell it next, which then counts as told; nothing: it knows all.
  std::optional<CopyRows> RowsForCopy(CopyKnows& knows) const;
  // The copy's side. `forgets_first` false breaks a rule: where it holds rows already, these stay.
  // Errors: kInvalidArgument (they do not follow), kCorrupt: it is as before; kKvFull: it holds what it did before
  // them.
  Status TakeRows(const CopyRows& rows, bool forgets_first);
  void EmptyAll();
  bool holds_rows() const;
  // Row-layers that a copy was told and that a generation found here and had not to be run again; once each.
  std::uint64_t TakeSpared() { return std::exchange(spared_, 0); }

  LayerRange layers() const { return layers_; }
  bool is_last() const { return layers_.last == model_.layers; }

 private:
  struct Sampler {
    GenerationId generation = 0;  // 0: none
    std::uint64_t seed = 0;
    Position position = 0;    // of the row that it samples after
    TokenId token = 0;        // and that row's: another one was a wrong guess
    std::uint64_t heard = 0;  // hash of all tokens up to there, as penalties and grammars know them
  };
  Status CheckRows(const BatchMessage& batch) const;
  void Rewind(SequenceId sequence, Position position);
  void CountSpared(const OpenSequence& open);

  const FakeModel model_;
  const LayerRange layers_;
  std::vector<std::vector<std::vector<std::uint64_t>>> caches_;  // [layer][sequence][position]
  std::vector<std::vector<TokenId>> tokens_;                     // [sequence][position]: what they hold
  std::vector<std::vector<std::uint64_t>> sent_;                 // [sequence][position]: to the next stage for them
  std::vector<Sampler> samplers_;                                // [sequence]
  std::vector<std::size_t> told_;                                // [sequence]: how many of its rows a copy was told
  std::uint64_t spared_ = 0;
};

}  // namespace shoal::sim
