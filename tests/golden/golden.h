// What the golden tests share: the test models, the unsplit run on libllama alone, and the same run through stages.
//
// The unsplit run knows nothing of shoal's engine: it takes tokens, the engine's stages take embeddings.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/vocabulary.h"
#include "model/model_info.h"
#include "wire/tensor.h"

namespace shoal::golden {

// A test model and the tokens of tests/golden/text.txt in it.
struct TestModel {
  std::shared_ptr<const ModelFile> file;
  std::vector<TokenId> text;
};
// "smollm2" or "gemma3"; opened once a process. Errors: kNotFound, saying how to get it.
Result<const TestModel*> GetTestModel(const std::string& name);

// How a run is set up. Both sides use the same numbers.
struct RunSettings {
  std::int32_t kv_tokens = 512;
  std::int32_t chunk = 64;  // rows of one prefill micro-batch
  std::int32_t sequences = 1;
  bool flash_attention = true;
  bool kv_shared = true;
  KvType kv_type = KvType::kF16;
  bool all_rows = false;         // logits of every row, not only of each micro-batch's last
  std::optional<WireType> wire;  // hidden states between stages pass through this encoding
};

// What one run computes: `prompt` in micro-batches, then `decode` single tokens, each the most likely one of the
// reference, so that all runs see the same tokens.
struct Outcome {
  std::vector<TokenId> tokens;             // prompt and decoded
  std::vector<std::vector<float>> logits;  // one row per output, in order
};

// The whole model on libllama, without shoal's engine.
Result<Outcome> RunUnsplit(const TestModel& model, const RunSettings& settings, std::size_t prompt, std::size_t decode);
// The same tokens through the stages.
Result<Outcome> RunStages(const TestModel& model, const RunSettings& settings, const std::vector<LayerRange>& stages,
                          const std::vector<TokenId>& tokens, std::size_t prompt);

// Options of one stage for these settings.
EngineOptions StageOptions(const RunSettings& settings, LayerRange layers);

// "" if both have the same rows to the bit; else where they differ first and by how much at most.
std::string Difference(const Outcome& expected, const Outcome& actual);

// Perplexity of tokens[1..] under rows that follow tokens[0..] (all_rows).
double Perplexity(const Outcome& run);

}  // namespace shoal::golden
