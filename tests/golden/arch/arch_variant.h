// Compares one model file, cut everywhere its split rules allow, with the unsplit model on plain libllama.
#pragma once

#include <string>

#include "base/result.h"

namespace shoal::golden {

struct VariantReport {
  bool splittable = false;  // by the rules
  bool exact = false;       // every run below gave the unsplit model's logits to the bit
  std::string cuts;         // allowed cuts: "1-11", "4, 8"; empty: none
  std::string note;         // why it is not splittable, or what was not exact
};

// What the rules say of a model; runs nothing. Errors: as OpenModelFile.
Result<VariantReport> ReadVariant(const std::string& path);

// Runs 48 tokens of prefill and 8 of decode: as one stage, in two stages at every allowed cut, and in three. f32 hidden
// states, f16 KV, no flash attention, one thread. Blocks; libllama may abort the process.
// Errors: kUnsupported (libllama does not run the unsplit model, or its logits say nothing), and those of the engine.
Result<VariantReport> CompareVariant(const std::string& path);

}  // namespace shoal::golden
