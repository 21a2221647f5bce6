// Draws against their distribution, log-probabilities against a plain computation in double, and their edge cases.
#include "sample/draw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr std::size_t kVocabMax = 262144;

std::vector<float> RandomLogits(std::size_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = static_cast<float>(rng.Uniform() * 40 - 20);
  return logits;
}

TEST(DrawIndex, FollowsItsDefinition) {
  const std::vector<float> probabilities = {0.125F, 0.0F, 0.5F, 0.25F, 0.125F};
  const std::vector<double> cumulative = {0.125, 0.125, 0.625, 0.875, 1.0};
  for (Position position = 0; position < 2000; ++position) {
    const double u = CounterUniform(77, static_cast<std::uint64_t>(position));
    const auto expected = std::upper_bound(cumulative.begin(), cumulative.end(), u) - cumulative.begin();
    ASSERT_EQ(DrawIndex(probabilities, 77, position), static_cast<std::size_t>(expected));
  }
}

TEST(DrawIndex, ScaleDoesNotMatter) {
  const std::vector<float> small = {0.25F, 0.5F, 0.25F}, large = {64.0F, 128.0F, 64.0F};
  for (Position position = 0; position < 500; ++position) {
    ASSERT_EQ(DrawIndex(small, 5, position), DrawIndex(large, 5, position));
  }
}

TEST(DrawIndex, FrequenciesMatchProbabilities) {
  const std::vector<float> probabilities = {0.1F, 0.2F, 0.3F, 0.4F};
  constexpr int kDraws = 40'000;
  std::vector<double> counts(4);
  for (Position position = 0; position < kDraws; ++position) ++counts[DrawIndex(probabilities, 123, position)];
  double chi2 = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const double expected = kDraws * static_cast<double>(probabilities[i]);
    chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi2, 21.1);  // 3 degrees of freedom, 99.99 %
}

TEST(DrawIndex, NeverPicksTheImpossible) {
  std::vector<float> probabilities(100, 0.0F);
  probabilities[42] = 1e-30F;
  for (Position position = 0; position < 200; ++position) ASSERT_EQ(DrawIndex(probabilities, 1, position), 42U);
}

TEST(DrawIndex, DependsOnSeedAndPositionAlone) {
  const std::vector<float> even(1000, 1.0F);
  EXPECT_EQ(DrawIndex(even, 9, 4), DrawIndex(even, 9, 4));
  int same_seed = 0, same_position = 0;
  for (Position i = 0; i < 100; ++i) {
    same_seed += DrawIndex(even, 9, i) == DrawIndex(even, 9, i + 1);
    same_position += DrawIndex(even, static_cast<std::uint64_t>(i), 3) == DrawIndex(even, 1000, 3);
  }
  EXPECT_LT(same_seed, 10);
  EXPECT_LT(same_position, 10);
}

TEST(DrawIndex, WhatIsDrawnAgainAfterARefusalIsNotBiased) {
  // As under a grammar that refuses the first: what is left is drawn anew.
  const std::vector<float> all{0.5F, 0.25F, 0.25F}, allowed{0, 0.25F, 0.25F};
  int counts[3] = {};
  for (std::uint64_t seed = 0; seed < 40'000; ++seed) {
    std::size_t index = DrawIndex(all, seed, 7);
    if (index == 0) index = DrawIndex(allowed, seed, 7, 1);
    ++counts[index];
  }
  EXPECT_EQ(counts[0], 0);
  EXPECT_NEAR(counts[1], 20'000, 500);  // five standard deviations
  int first = 0;
  for (Position position = 0; position < 40'000; ++position) first += DrawIndex(allowed, 11, position, 1) == 1 ? 1 : 0;
  EXPECT_NEAR(first, 20'000, 500) << "over the positions of one answer as well";
}

TEST(DrawIndexDeathTest, NothingPossibleIsABug) {
  EXPECT_DEATH(DrawIndex(std::vector<float>{0, 0}, 1, 1), "sum > 0");
  EXPECT_DEATH(DrawIndex(std::vector<float>{}, 1, 1), "sum > 0");
  EXPECT_DEATH(DrawIndex(std::vector<float>{1, kNan}, 1, 1), "p >= 0");
  EXPECT_DEATH(DrawIndex(std::vector<float>{1, -1}, 1, 1), "p >= 0");
}

TEST(ArgMax, LowestIndexAmongEquals) {
  EXPECT_EQ(ArgMax(std::vector<float>{1}), 0U);
  EXPECT_EQ(ArgMax(std::vector<float>{1, 3, 3, 2}), 1U);
  EXPECT_EQ(ArgMax(std::vector<float>{-kInf, -kInf}), 0U);
  EXPECT_EQ(ArgMax(std::vector<float>{kNan, -5, kNan, -4, kNan}), 3U);
  EXPECT_EQ(ArgMax(std::vector<float>{kNan, kNan}), 0U);
  EXPECT_EQ(ArgMax(std::vector<float>{0.0F, -0.0F}), 0U);
  EXPECT_EQ(ArgMax(std::vector<float>{-0.0F, 0.0F}), 0U);
  EXPECT_EQ(ArgMax(std::vector<float>{1, kInf, kInf}), 1U);
}

TEST(ArgMax, FindsTheMaximumAtEveryPlaceOfEverySize) {
  for (std::size_t n = 1; n < 70; ++n) {
    for (std::size_t at = 0; at < n; ++at) {
      std::vector<float> logits(n, -2.0F);
      logits[at] = -1.0F;
      if (at + 1 < n) logits[n - 1] = -1.0F;
      ASSERT_EQ(ArgMax(logits), at);
    }
  }
}

TEST(WithLogprobs, AgreesWithAPlainComputation) {
  for (const std::size_t n : {1U, 7U, 1000U, 49152U}) {
    const std::vector<float> logits = RandomLogits(n, n);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    const TokenId token = static_cast<TokenId>(n / 2);
    const SampledToken sampled = WithLogprobs(logits, token, 20);
    EXPECT_EQ(sampled.token, token);
    EXPECT_NEAR(sampled.logprob, static_cast<double>(logits[n / 2]) - std::log(sum), 2e-6);

    std::vector<TokenId> order(n);
    std::iota(order.begin(), order.end(), 0);
    const auto at = [&](TokenId id) { return logits[static_cast<std::size_t>(id)]; };
    std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return at(a) > at(b); });
    ASSERT_EQ(sampled.alternatives.size(), std::min<std::size_t>(n, 20));
    for (std::size_t i = 0; i < sampled.alternatives.size(); ++i) {
      EXPECT_EQ(sampled.alternatives[i].token, order[i]);
      EXPECT_NEAR(sampled.alternatives[i].logprob, static_cast<double>(at(order[i])) - std::log(sum), 2e-6);
    }
  }
}

TEST(WithLogprobs, HugeLogitsDoNotOverflow) {
  const SampledToken sampled = WithLogprobs(std::vector<float>{1e30F, 1e30F, -1e30F}, 0, 3);
  EXPECT_FLOAT_EQ(sampled.logprob, 0.0F);  // log 2 is far below the spacing of floats at 1e30
  const SampledToken two = WithLogprobs(std::vector<float>{5000, 5000, -5000}, 1, 3);
  EXPECT_NEAR(two.logprob, -std::log(2.0), 1e-6);
  EXPECT_EQ(two.alternatives[0].token, 0);
  EXPECT_EQ(two.alternatives[1].token, 1);
  EXPECT_NEAR(two.alternatives[2].logprob, -10000 - std::log(2.0), 1e-2);
}

TEST(WithLogprobs, TiesGiveTheLowerIdFirst) {
  const std::vector<float> logits(50, 1.0F);
  const SampledToken sampled = WithLogprobs(logits, 30, 5);
  for (TokenId i = 0; i < 5; ++i) EXPECT_EQ(sampled.alternatives[static_cast<std::size_t>(i)].token, i);
  EXPECT_NEAR(sampled.logprob, -std::log(50.0), 1e-6);
}

TEST(WithLogprobs, ForbiddenAndBrokenLogits) {
  const std::vector<float> logits = {kNan, 0, -kInf, 0, kNan};
  const SampledToken sampled = WithLogprobs(logits, 1, 5);
  EXPECT_NEAR(sampled.logprob, -std::log(2.0), 1e-6);
  ASSERT_EQ(sampled.alternatives.size(), 5U);
  EXPECT_EQ(sampled.alternatives[0].token, 1);
  EXPECT_EQ(sampled.alternatives[1].token, 3);
  for (std::size_t i = 2; i < 5; ++i) EXPECT_EQ(sampled.alternatives[i].logprob, -kInf);
  EXPECT_EQ(WithLogprobs(logits, 2, 0).logprob, -kInf);
  EXPECT_EQ(WithLogprobs(std::vector<float>{-kInf, -kInf}, 0, 0).logprob, -kInf);
  EXPECT_EQ(WithLogprobs(std::vector<float>{1, kInf}, 1, 0).logprob, 0);
  EXPECT_EQ(WithLogprobs(std::vector<float>{1, kInf}, 0, 0).logprob, -kInf);
}

TEST(WithLogprobs, CountIsClamped) {
  const std::vector<float> logits = {1, 2, 3};
  EXPECT_TRUE(WithLogprobs(logits, 0, 0).alternatives.empty());
  EXPECT_TRUE(WithLogprobs(logits, 0, -1).alternatives.empty());
  EXPECT_EQ(WithLogprobs(logits, 0, 100).alternatives.size(), 3U);
}

TEST(WithLogprobs, ProbabilitiesSumToOne) {
  const std::vector<float> logits = RandomLogits(1000, 4);
  double sum = 0;
  for (const TokenLogprob& t : WithLogprobs(logits, 0, 1000).alternatives)
    sum += std::exp(static_cast<double>(t.logprob));
  EXPECT_NEAR(sum, 1.0, 1e-5);
}

TEST(WithLogprobsDeathTest, TokenOutsideTheVocabularyIsABug) {
  const std::vector<float> logits = {1, 2};
  EXPECT_DEATH(WithLogprobs(logits, 2, 0), "token");
  EXPECT_DEATH(WithLogprobs(logits, -1, 0), "token");
}

// A generous bound (measured: about 1 ms with optimisation), to catch a full sort or an accidental square.
TEST(WithLogprobs, IsFastOnTheLargestVocabulary) {
  const std::vector<float> logits = RandomLogits(kVocabMax, 11);
  const auto start = std::chrono::steady_clock::now();
  float sink = 0;
  for (int i = 0; i < 10; ++i) sink += WithLogprobs(logits, i, 20).logprob + static_cast<float>(ArgMax(logits));
  const auto each_us =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start) / 10;
  EXPECT_TRUE(std::isfinite(sink));
  RecordProperty("each_us", static_cast<int>(each_us.count()));
  EXPECT_LT(each_us.count(), 100'000);
}

}  // namespace
}  // namespace shoal
