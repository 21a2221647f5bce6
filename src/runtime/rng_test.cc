// The generators against published answers, and the shape of what they draw.
#include "runtime/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

namespace shoal {
namespace {

// Known answers of the authors' reference library (Random123, kat_vectors: philox4x32 10).
TEST(Philox, KnownAnswers) {
  using Block = std::array<std::uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterRandom, IsTheFirstHalfOfThePhiloxBlock) {
  EXPECT_EQ(CounterRandom(0, 0), 0xe169c58d6627e8d5U);
  const auto block = Philox4x32({0x89abcdef, 0x01234567, 0, 0}, {0x76543210, 0xfedcba98});
  EXPECT_EQ(CounterRandom(0xfedcba9876543210, 0x0123456789abcdef), (std::uint64_t{block[1]} << 32) | block[0]);
}

TEST(CounterRandom, EveryBitOfSeedAndCounterMatters) {
  std::set<std::uint64_t> seen{CounterRandom(1, 1)};
  for (int bit = 0; bit < 64; ++bit) {
    seen.insert(CounterRandom(1 ^ (std::uint64_t{1} << bit), 1));
    seen.insert(CounterRandom(1, 1 ^ (std::uint64_t{1} << bit)));
  }
  EXPECT_EQ(seen.size(), 129U);
}

TEST(CounterUniform, IsUniformInTheUnitInterval) {
  constexpr int kBuckets = 16, kDraws = 160'000;
  std::vector<int> counts(kBuckets);
  for (int i = 0; i < kDraws; ++i) {
    const double u = CounterUniform(42, static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++counts[static_cast<std::size_t>(u * kBuckets)];
  }
  // Chi-squared with 15 degrees of freedom: 99.99 % are below 44.3.
  double chi2 = 0;
  for (const int count : counts) chi2 += (count - 10'000.0) * (count - 10'000.0) / 10'000.0;
  EXPECT_LT(chi2, 44.3);
}

// First outputs of the reference xoshiro256** with the state that splitmix64 makes of seed 0.
TEST(Rng, KnownAnswers) {
  Rng rng(0);
  EXPECT_EQ(rng.Next(), 0x99ec5f36cb75f2b4U);
  EXPECT_EQ(rng.Next(), 0xbf6e1f784956452aU);
  EXPECT_EQ(rng.Next(), 0x1a5f849d4933e6e0U);
  EXPECT_EQ(rng.Next(), 0x6aa594f1262d2d2cU);
  EXPECT_EQ(rng.Next(), 0xbba5ad4a1f842e59U);
}

TEST(Rng, TheSeedDecidesTheStream) {
  Rng a(7), b(7), c(8);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t value = a.Next();
    EXPECT_EQ(value, b.Next());
    differs = differs || value != c.Next();
  }
  EXPECT_TRUE(differs);
}

TEST(Rng, BelowIsUniformAndBelow) {
  Rng rng(3);
  std::vector<int> counts(6);
  for (int i = 0; i < 60'000; ++i) ++counts.at(rng.Below(6));
  double chi2 = 0;
  for (const int count : counts) chi2 += (count - 10'000.0) * (count - 10'000.0) / 10'000.0;
  EXPECT_LT(chi2, 25.7);  // 5 degrees of freedom, 99.99 %
  for (int i = 0; i < 10; ++i) EXPECT_EQ(rng.Below(1), 0U);
  const std::uint64_t odd_bound = (std::uint64_t{1} << 63) + 1;  // nearly half of all draws are refused
  for (int i = 0; i < 1000; ++i) EXPECT_LT(rng.Below(odd_bound), odd_bound);
}

TEST(Rng, UniformStaysInTheUnitInterval) {
  Rng rng(9);
  double sum = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double u = rng.Uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10'000, 0.5, 0.015);  // five standard errors
}

TEST(RngDeathTest, BelowZeroIsABug) {
  Rng rng(1);
  EXPECT_DEATH(rng.Below(0), "bound > 0");
}

TEST(RandomSeed, Differs) { EXPECT_NE(RandomSeed(), RandomSeed()); }

}  // namespace
}  // namespace shoal
