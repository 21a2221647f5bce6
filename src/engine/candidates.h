// The filters between logits and the draw: top-k, typical, top-p, min-p, temperature. Pure functions of their input.
//
// They keep what libllama's filters of the same names keep (a test compares them), but in one total order: by logit,
// the lower token first among equals. So the result depends neither on the standard library's sort nor on its ties,
// and a generation resumed on another node draws from the same list.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "sample/params.h"

namespace shoal {

struct Candidates {
  std::vector<TokenId> tokens;
  std::vector<float> logits;         // same length
  std::vector<float> probabilities;  // same length; the largest is 1, they need not sum to 1

 private:
  friend void FilterCandidates(std::span<const float> logits, const SamplingParams& params, Candidates& out);
  struct Entry {
    TokenId token;
    float logit;
    float p;
  };
  std::vector<Entry> entries_;  // reused between calls

  static bool Better(const Entry& a, const Entry& b);
  void SelectTopK(std::span<const float> all, std::size_t k);
  void Softmax();
  void KeepTypical(float typical_p);
  void KeepTopP(float top_p, bool sorted);
};

// The tokens that survive top_k, typical_p, top_p and min_p in that order, and their weights at params.temperature.
//   logits  f32 [n_vocab], finite or -infinity (a forbidden token: never survives)
// `out` is overwritten; empty when every token is forbidden. Precondition: params.temperature > 0.
void FilterCandidates(std::span<const float> logits, const SamplingParams& params, Candidates& out);

}  // namespace shoal
