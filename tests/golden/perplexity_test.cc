// Half-precision hidden states between stages: perplexity of a fixed text stays within 0.1 % of single precision.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/split_rules.h"
#include "golden.h"

namespace shoal::golden {
namespace {

constexpr std::size_t kTokensMin = 1000;

class PerplexityTest : public testing::TestWithParam<std::string> {};

TEST_P(PerplexityTest, HalfPrecisionOnTheWire) {
  auto model = GetTestModel(GetParam());
  ASSERT_TRUE(model.ok()) << model.error().message;
  const std::vector<TokenId>& text = (*model)->text;
  ASSERT_GE(text.size(), kTokensMin);
  auto stages = BalancedStages(*(*model)->file, 3);
  ASSERT_TRUE(stages.ok()) << stages.error().message;

  RunSettings settings;
  settings.kv_tokens = 2048;
  settings.all_rows = true;
  settings.wire = WireType::kF32;
  const auto measure = [&](WireType wire) {
    settings.wire = wire;
    auto run = RunStages(**model, settings, *stages, text, text.size());
    EXPECT_TRUE(run.ok()) << run.error().message;
    return run.ok() ? Perplexity(*run) : 0.0;
  };
  const double single = measure(WireType::kF32);
  const double half = measure(WireType::kF16);
  RecordProperty("f32", std::to_string(single));
  RecordProperty("f16", std::to_string(half));
  std::printf("%s: perplexity %.5f with f32, %.5f with f16 (%+.4f %%)\n", GetParam().c_str(), single, half,
              (half / single - 1) * 100);
  // A model that knows the language is far from the vocabulary's size, and from a memorized text's 1.
  EXPECT_GT(single, 1.5);
  EXPECT_LT(single, 100.0);
  EXPECT_LE(std::fabs(half / single - 1), 0.001);
}

INSTANTIATE_TEST_SUITE_P(Models, PerplexityTest, testing::Values("smollm2", "gemma3"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace shoal::golden
