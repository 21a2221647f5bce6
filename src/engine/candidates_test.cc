// The filters against libllama's own, and the order they promise.
#include "engine/candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "llama.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(std::uint64_t seed, std::size_t n) {
  Rng rng(seed);
  std::vector<float> logits(n);
  for (float& x : logits) x = static_cast<float>((rng.Uniform() + rng.Uniform() + rng.Uniform() - 1.5) * 12);
  return logits;
}

// What libllama's chain of the same filters keeps, with its probabilities.
std::map<TokenId, double> Reference(const std::vector<float>& logits, const SamplingParams& p) {
  llama_sampler* chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
  llama_sampler_chain_add(chain, llama_sampler_init_top_k(p.top_k));
  llama_sampler_chain_add(chain, llama_sampler_init_typical(p.typical_p, 1));
  llama_sampler_chain_add(chain, llama_sampler_init_top_p(p.top_p, 1));
  llama_sampler_chain_add(chain, llama_sampler_init_min_p(p.min_p, 1));
  llama_sampler_chain_add(chain, llama_sampler_init_temp(p.temperature));
  std::vector<llama_token_data> data;
  for (std::size_t i = 0; i < logits.size(); ++i) data.push_back({static_cast<TokenId>(i), logits[i], 0.0F});
  llama_token_data_array array{data.data(), data.size(), -1, false};
  llama_sampler_apply(chain, &array);
  double largest = kForbidden, sum = 0;
  for (std::size_t i = 0; i < array.size; ++i) largest = std::max<double>(largest, array.data[i].logit);
  for (std::size_t i = 0; i < array.size; ++i) sum += std::exp(array.data[i].logit - largest);
  std::map<TokenId, double> kept;
  for (std::size_t i = 0; i < array.size; ++i) kept[array.data[i].id] = std::exp(array.data[i].logit - largest) / sum;
  llama_sampler_free(chain);
  return kept;
}

SamplingParams Params(float temperature, std::int32_t k, float typical, float p, float min_p) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = k;
  params.typical_p = typical;
  params.top_p = p;
  params.min_p = min_p;
  return params;
}

TEST(Candidates, KeepWhatLibllamaKeeps) {
  const SamplingParams all[] = {
      Params(0.8F, 40, 1, 0.95F, 0.05F), Params(1, 0, 1, 1, 0),          Params(1.5F, 0, 1, 0.9F, 0),
      Params(0.7F, 0, 1, 0.999F, 0),     Params(1, 200, 0.8F, 1, 0),     Params(1, 0, 0.5F, 1, 0),
      Params(1, 0, 1, 1, 0.1F),          Params(0.3F, 1, 1, 1, 0),       Params(2, 500, 0.9F, 0.7F, 0.01F),
      Params(1, 0, 1, 0.0F, 0),          Params(1, 1000000, 1, 0.5F, 0),
  };
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto logits = RandomLogits(seed, 3000);
    for (const SamplingParams& params : all) {
      Candidates got;
      FilterCandidates(logits, params, got);
      const auto want = Reference(logits, params);
      // libllama adds probabilities in single precision: the cut may fall one token earlier or later.
      std::size_t only_here = 0;
      double sum = 0;
      for (const float p : got.probabilities) sum += p;
      for (std::size_t i = 0; i < got.tokens.size(); ++i) {
        const auto it = want.find(got.tokens[i]);
        if (it == want.end()) {
          ++only_here;
        } else {
          EXPECT_NEAR(got.probabilities[i] / sum, it->second, 1e-4);
        }
      }
      const std::size_t only_there = want.size() + only_here - got.tokens.size();
      EXPECT_LE(only_here + only_there, 1U)
          << "seed " << seed << " k " << params.top_k << " typical " << params.typical_p << " p " << params.top_p;
    }
  }
}

TEST(Candidates, EqualLogitsFavourLowerTokens) {
  const std::vector<float> logits(1000, 1.0F);
  Candidates got;
  FilterCandidates(logits, Params(1, 3, 1, 1, 0), got);
  EXPECT_EQ(got.tokens, (std::vector<TokenId>{0, 1, 2}));
  FilterCandidates(logits, Params(1, 0, 1, 0.0100001F, 0), got);
  EXPECT_EQ(got.tokens.size(), 11U);
  EXPECT_EQ(got.tokens[10], 10);
  FilterCandidates(logits, Params(1, 0, 0.0045F, 1, 0), got);
  EXPECT_EQ(got.tokens, (std::vector<TokenId>{0, 1, 2, 3, 4}));
}

TEST(Candidates, APrefixThatMustGrowIsStillInOrder) {
  const auto logits = RandomLogits(7, 20000);
  Candidates got;
  FilterCandidates(logits, Params(1, 0, 1, 0.9999F, 0), got);
  ASSERT_GT(got.tokens.size(), 2048U);
  EXPECT_TRUE(std::is_sorted(got.logits.begin(), got.logits.end(), std::greater<>()));
}

TEST(Candidates, ForbiddenTokensNeverSurvive) {
  std::vector<float> logits(100, kForbidden);
  Candidates got;
  for (const SamplingParams& params :
       {Params(1, 0, 1, 1, 0), Params(1, 5, 0.5F, 0.5F, 0.5F), Params(1, 0, 0.5F, 1, 0)}) {
    FilterCandidates(logits, params, got);
    EXPECT_TRUE(got.tokens.empty());
  }
  logits[42] = -100;
  for (const SamplingParams& params : {Params(1, 0, 1, 1, 0), Params(1, 5, 0.5F, 0.5F, 1), Params(1, 0, 0.5F, 0, 0)}) {
    FilterCandidates(logits, params, got);
    EXPECT_EQ(got.tokens, (std::vector<TokenId>{42}));
    EXPECT_EQ(got.probabilities, (std::vector<float>{1.0F}));
  }
}

}  // namespace
}  // namespace shoal
