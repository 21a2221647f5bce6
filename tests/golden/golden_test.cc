// Stages against the unsplit model: logits equal to the bit, for every cut the rules allow and several ways to run.
#include <gtest/gtest.h>

#include "engine/split_rules.h"
#include "golden.h"

namespace shoal::golden {
namespace {

constexpr std::size_t kPrompt = 200;  // three micro-batches of 64 and one of 8
constexpr std::size_t kDecode = 16;

// One reference, many ways to cut. Runs are compared with the unsplit run of the same settings.
class Golden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto model = GetTestModel(GetParam());
    ASSERT_TRUE(model.ok()) << model.error().message;
    model_ = *model;
    n_layer_ = model_->file->info.n_layer;
    ASSERT_GE(model_->text.size(), kPrompt);
  }

  void SetReference(const RunSettings& settings, std::size_t decode = kDecode) {
    settings_ = settings;
    auto run = RunUnsplit(*model_, settings, kPrompt, decode);
    ASSERT_TRUE(run.ok()) << run.error().message;
    reference_ = std::move(run).value();
  }

  void ExpectExact(const std::vector<LayerRange>& stages) {
    std::string name;
    for (const LayerRange& s : stages) {
      name.append(" ").append(std::to_string(s.first)).append("-").append(std::to_string(s.last - 1));
    }
    auto run = RunStages(*model_, settings_, stages, reference_.tokens, kPrompt);
    ASSERT_TRUE(run.ok()) << "stages" << name << ": " << run.error().message;
    EXPECT_EQ(Difference(reference_, *run), "") << "stages" << name;
  }

  void ExpectExactInStages(std::int32_t n) {
    auto stages = BalancedStages(*model_->file, n);
    ASSERT_TRUE(stages.ok()) << stages.error().message;
    ASSERT_EQ(static_cast<std::int32_t>(stages->size()), n);
    ExpectExact(*stages);
  }

  std::int32_t Middle() const {
    const std::vector<std::int32_t> cuts = RulesFor(*model_->file).cuts;
    return cuts[cuts.size() / 2];
  }

  const TestModel* model_ = nullptr;
  std::int32_t n_layer_ = 0;
  RunSettings settings_;
  Outcome reference_;
};

TEST_P(Golden, EveryCut) {
  SetReference({});
  const std::vector<std::int32_t> cuts = RulesFor(*model_->file).cuts;
  ASSERT_EQ(cuts.size(), std::string(GetParam()) == "smollm2" ? 29U : 16U);
  for (const std::int32_t cut : cuts) ExpectExact({{0, cut}, {cut, n_layer_}});
}

TEST_P(Golden, OneStage) {
  SetReference({});
  ExpectExact({{0, n_layer_}});
}

TEST_P(Golden, ThreeStagesThroughTheWireCodec) {
  RunSettings settings;
  settings.wire = WireType::kF32;
  SetReference(settings);
  ExpectExactInStages(3);
}

TEST_P(Golden, ManyStages) {
  SetReference({});
  // SmolLM2: every layer a stage. Gemma 3: each of its three groups of six layers in two.
  ExpectExactInStages(GetParam() == "smollm2" ? n_layer_ : 6);
}

TEST_P(Golden, WithoutFlashAttention) {
  RunSettings settings;
  settings.flash_attention = false;
  SetReference(settings);
  ExpectExact({{0, Middle()}, {Middle(), n_layer_}});
}

TEST_P(Golden, SeparateKvCaches) {
  RunSettings settings;
  settings.kv_shared = false;
  settings.sequences = 3;
  SetReference(settings);
  ExpectExact({{0, Middle()}, {Middle(), n_layer_}});
}

TEST_P(Golden, QuantizedKvCache) {
  RunSettings settings;
  settings.kv_type = KvType::kQ8_0;
  SetReference(settings);
  ExpectExact({{0, Middle()}, {Middle(), n_layer_}});
}

TEST_P(Golden, EveryRowHasOutput) {
  RunSettings settings;
  settings.all_rows = true;
  SetReference(settings, 0);
  ExpectExact({{0, Middle()}, {Middle(), n_layer_}});
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::Values("smollm2", "gemma3"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace shoal::golden
