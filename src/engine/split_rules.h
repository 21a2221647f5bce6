// Where a model may be cut into layer shards, and what renumbering its layers must mend. One entry an architecture.
//
// Knows GGUF metadata only; engine/shard.h applies it. An architecture is in the table only once the golden test has
// shown its shards equal to the whole model; one that is not there runs whole, on one stage.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/model_info.h"

namespace shoal {

// How a stage's input hidden state must be prepared for libllama's graph.
struct InputRule {
  float token_scale = 1.0F;  // multiplies looked-up token embeddings on stage 0 (Gemma 3: sqrt(n_embd))
  float hidden_scale =
      1.0F;  // multiplies the hidden state on later stages (undoes a scale the graph applies to any input)
  std::int32_t position_rows = 1;  // positions per token for embedded inputs (M-RoPE: 4)
};

struct SplitRules {
  bool splittable = false;
  std::string reason;                   // why not, for a person; empty when splittable
  std::vector<std::int32_t> cuts;       // allowed first layers of a stage other than 0, ascending
  bool one_sequence_per_batch = false;  // recurrent and hybrid models
  bool rewindable = true;               // false: only a full restart forgets positions
};

// The rules of one model.
SplitRules RulesFor(const ModelFile& model);
InputRule InputRuleFor(const ModelFile& model);

// Errors: kInvalidArgument or kUnsupported, naming the first cut that is not allowed and the allowed ones.
Status CheckStages(const ModelFile& model, const std::vector<LayerRange>& stages);

// `n` stages with allowed cuts and about equal work. The score of a partition is the mean of two slowest stages, each
// as a share of the whole model's work: in prefill (layer bytes; the head runs for one row of a prompt, so it counts
// nothing) and in decode (layer bytes, on the last stage plus the output head). Exact, not a heuristic.
// Errors: kInvalidArgument (more stages than the cuts allow), kUnsupported.
Result<std::vector<LayerRange>> BalancedStages(const ModelFile& model, std::int32_t n);

// Mends what depends on the layer numbers, for a shard of `layers` whose layers are counted from 0: block_count, arrays
// with one element a layer, sliding-window patterns, leading dense layers, scales of the input embedding.
//   shard  its metadata is a copy of the model's (the tokenizer's arrays may be missing); tensors are not looked at
// Precondition (CHECK): `layers` lies inside the model and is not empty. Errors: kUnsupported, kCorrupt.
Status RewriteMetadata(const ModelFile& model, LayerRange layers, Gguf& shard);

// May layers [first, last) be one stage? Errors: kInvalidArgument (not a range of the model), kUnsupported (why).
// The whole model is always allowed.
Status CheckStage(const ModelFile& model, LayerRange layers);

// The graph tensor that holds a layer's output: "<name>-<layer>" in libllama's graph.
std::string_view HiddenTensorName(const ModelFile& model);

// Every architecture of the table: name and a note ("every cut", "multiples of 4", …). For docs and `shoal model`.
struct ArchitectureRule {
  std::string_view architecture;
  std::string_view note;
};
std::vector<ArchitectureRule> SplittableArchitectures();

}  // namespace shoal
