// Half-precision hidden states between stages: perplexity of a fixed text stays within 0.1 % of single
// precision, in the mean over cuts.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/split_rules.h"
#include "golden.h"

namespace shoal::golden {
namespace {

constexpr std::size_t kTokensMin = 1000;

// On a thousand tokens a relative error of 1e-6 in f32 already moves the perplexity of one cut by 0.1 to 0.8 %, and so
// the f32 that it is compared with: each cut has a text of its own, the same but for its beginning. The bar is for the
// mean over cuts, less twice its standard error, and a single cut has one of its own (clamped rows of Gemma 3 once cost
// 3 % at its last cuts).
constexpr double kMeanMax = 0.001;
constexpr double kOneCutMax = 0.015;
constexpr std::int32_t kCuts = 8;
constexpr std::int32_t kBeginsLater = 10;  // tokens, for each cut

class PerplexityTest : public testing::TestWithParam<std::string> {};

TEST_P(PerplexityTest, HalfPrecisionOnTheWire) {
  auto model = GetTestModel(GetParam());
  ASSERT_TRUE(model.ok()) << model.error().message;
  const std::vector<TokenId>& text = (*model)->text;
  ASSERT_GE(text.size(), kTokensMin + kBeginsLater * (kCuts - 1));
  const std::int32_t n_layer = (*model)->file->info.n_layer;
  const std::vector<std::int32_t> cuts = RulesFor(*(*model)->file).cuts;
  ASSERT_GE(cuts.size(), static_cast<std::size_t>(kCuts));

  RunSettings settings;
  settings.kv_tokens = 2048;
  settings.all_rows = true;
  const auto measure = [&](WireType wire, std::int32_t cut, const std::vector<TokenId>& tokens) {
    settings.wire = wire;
    auto run = RunStages(**model, settings, {{0, cut}, {cut, n_layer}}, tokens, tokens.size());
    EXPECT_TRUE(run.ok()) << run.error().message;
    return run.ok() ? Perplexity(*run) : 0.0;
  };
  double sum = 0, squares = 0;
  for (std::int32_t i = 0; i < kCuts; ++i) {
    const std::int32_t cut = cuts[cuts.size() * static_cast<std::size_t>(i) / kCuts];
    std::vector<TokenId> tokens(text.begin() + i * kBeginsLater, text.end());
    tokens.front() = text.front();  // what every text begins with
    const double single = measure(WireType::kF32, cut, tokens);
    // A model that knows the language is far from the vocabulary's size, and from a memorized text's 1.
    EXPECT_GT(single, 1.5);
    EXPECT_LT(single, 100.0);
    const double change = measure(WireType::kF16, cut, tokens) / single - 1;
    std::printf("%s cut at %d: f16 %+.4f %% of f32's %.4f\n", GetParam().c_str(), cut, change * 100, single);
    EXPECT_LE(std::fabs(change), kOneCutMax) << "cut at " << cut;
    sum += change;
    squares += change * change;
  }
  const double mean = sum / kCuts;
  const double error = std::sqrt((squares / kCuts - mean * mean) / (kCuts - 1));
  std::printf("%s: mean %+.4f %%, standard error %.4f %%\n", GetParam().c_str(), mean * 100, error * 100);
  EXPECT_LE(std::fabs(mean) - 2 * error, kMeanMax);
}

INSTANTIATE_TEST_SUITE_P(Models, PerplexityTest, testing::Values("smollm2", "gemma3"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace shoal::golden
