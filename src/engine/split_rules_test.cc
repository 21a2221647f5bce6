// The rules on models that exist only as metadata: which cuts, which stages, what a shard's metadata says.
// That the rules are right for libllama is the golden tests' business (tests/golden/arch).
#include "engine/split_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/split_rules_table.h"

namespace shoal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelFile Model(const std::string& architecture, std::int32_t n_layer, std::int32_t n_embd = 256) {
  ModelFile file;
  file.info.architecture = architecture;
  file.info.n_layer = n_layer;
  file.info.n_embd = n_embd;
  file.info.n_vocab = 1000;
  file.info.layer_bytes.assign(static_cast<std::size_t>(n_layer), 100);
  file.gguf.Set("general.architecture", GgufValue::String(architecture));
  file.gguf.Set(architecture + ".block_count", GgufValue::U32(static_cast<std::uint32_t>(n_layer)));
  return file;
}

void SetU32(ModelFile& file, const std::string& suffix, std::uint32_t value) {
  file.gguf.Set(file.info.architecture + "." + suffix, GgufValue::U32(value));
}

void SetArray(ModelFile& file, const std::string& suffix, const std::vector<std::uint32_t>& values) {
  file.gguf.Set(file.info.architecture + "." + suffix, GgufValue::ArrayU32(values));
}

// The metadata of a shard of `layers`.
Gguf Rewritten(const ModelFile& file, LayerRange layers) {
  Gguf shard = file.gguf;
  const Status status = RewriteMetadata(file, layers, shard);
  EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
  return shard;
}

std::int64_t Int(const Gguf& shard, const std::string& key) {
  const GgufValue* value = shard.Find(key);
  return value != nullptr ? value->AsInt().value_or(-2) : -1;
}

std::vector<std::int64_t> Ints(const Gguf& shard, const std::string& key) {
  std::vector<std::int64_t> values;
  const GgufValue* value = shard.Find(key);
  const GgufArray* array = value != nullptr ? value->AsArray() : nullptr;
  for (std::uint64_t i = 0; array != nullptr && i < array->count; ++i) values.push_back(*ArrayInt(*array, i));
  return values;
}

TEST(SplitRules, LlamaCutsEverywhere) {
  const SplitRules rules = RulesFor(Model("llama", 5));
  EXPECT_TRUE(rules.splittable);
  EXPECT_THAT(rules.cuts, ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(rules.rewindable);
  EXPECT_FALSE(rules.one_sequence_per_batch);
}

TEST(SplitRules, UnknownAndKnownBadArchitecturesRunWholeAndSayWhy) {
  for (const char* architecture : {"no-such-thing", "bloom", "gemma3n", "minicpm3"}) {
    const ModelFile file = Model(architecture, 8);
    const SplitRules rules = RulesFor(file);
    EXPECT_FALSE(rules.splittable);
    EXPECT_THAT(rules.reason, HasSubstr(architecture));
    EXPECT_TRUE(CheckStages(file, {{0, 8}}).ok());
    const Status cut = CheckStages(file, {{0, 4}, {4, 8}});
    ASSERT_FALSE(cut.ok());
    EXPECT_EQ(cut.error().code, ErrorCode::kUnsupported);
    EXPECT_FALSE(BalancedStages(file, 2).ok());
    EXPECT_TRUE(BalancedStages(file, 1).ok());
  }
}

TEST(SplitRules, TableIsSortedUniqueAndDisjoint) {
  const auto table = ArchitectureTable();
  const auto name = [](const ArchitectureEntry& entry) { return entry.architecture; };
  EXPECT_TRUE(std::ranges::is_sorted(table, {}, name));
  EXPECT_EQ(std::ranges::adjacent_find(table, {}, name), table.end());
  for (const WholeEntry& whole : WholeTable()) EXPECT_EQ(FindArchitecture(whole.architecture), nullptr);
  EXPECT_EQ(SplittableArchitectures().size(), table.size());
}

TEST(SplitRules, EveryGemma3StageNeedsASlidingWindowLayer) {
  ModelFile file = Model("gemma3", 18);
  SetU32(file, "attention.sliding_window", 512);
  EXPECT_EQ(RulesFor(file).cuts.back(), 16);  // layers 5, 11 and 17 are full
  EXPECT_FALSE(CheckStage(file, {17, 18}).ok());
  EXPECT_FALSE(CheckStages(file, {{0, 5}, {5, 6}, {6, 18}}).ok());
  EXPECT_TRUE(CheckStages(file, {{0, 5}, {5, 7}, {7, 18}}).ok());
  // Without a window there is no such need.
  SetU32(file, "attention.sliding_window", 0);
  EXPECT_EQ(RulesFor(file).cuts.size(), 17U);
}

TEST(SplitRules, WindowPatternIsWrittenOut) {
  ModelFile file = Model("gemma3", 18);
  SetU32(file, "attention.sliding_window", 512);
  const Gguf shard = Rewritten(file, {4, 8});
  EXPECT_THAT(Ints(shard, "gemma3.attention.sliding_window_pattern"), ElementsAre(1, 0, 1, 1));
  EXPECT_EQ(Int(shard, "gemma3.block_count"), 4);
  // A pattern in the file goes before the usual one.
  SetU32(file, "attention.sliding_window_pattern", 2);
  EXPECT_THAT(Ints(Rewritten(file, {1, 4}), "gemma3.attention.sliding_window_pattern"), ElementsAre(0, 1, 0));
  SetArray(file, "attention.sliding_window_pattern", std::vector<std::uint32_t>(18, 1));
  EXPECT_THAT(Ints(Rewritten(file, {1, 4}), "gemma3.attention.sliding_window_pattern"), ElementsAre(1, 1, 1));
}

TEST(SplitRules, FullLayerFirstPattern) {
  ModelFile file = Model("cohere2moe", 8);
  EXPECT_THAT(Ints(Rewritten(file, {3, 6}), "cohere2moe.attention.sliding_window_pattern"), ElementsAre(1, 0, 1));
}

TEST(SplitRules, SizesThatLibllamaKnowsByLayerCount) {
  EXPECT_FALSE(RulesFor(Model("baichuan", 32)).splittable);
  // A stage must not look like one of them either.
  const ModelFile baichuan = Model("baichuan", 64);
  EXPECT_FALSE(CheckStages(baichuan, {{0, 32}, {32, 64}}).ok());
  EXPECT_TRUE(CheckStages(baichuan, {{0, 31}, {31, 64}}).ok());
  // Gemma 3 27B: only if its attention scale is not that of its head width.
  ModelFile gemma = Model("gemma3", 62, 5376);
  SetU32(gemma, "attention.head_count", 32);
  SetU32(gemma, "attention.key_length", 128);
  EXPECT_FALSE(RulesFor(gemma).splittable);
  SetU32(gemma, "attention.key_length", 168);
  EXPECT_TRUE(RulesFor(gemma).splittable);
  EXPECT_FALSE(RulesFor(Model("exaone4", 64)).splittable);
}

TEST(SplitRules, PatternsByIndexCutAtMultiples) {
  EXPECT_THAT(RulesFor(Model("smollm3", 12)).cuts, ElementsAre(4, 8));
  ModelFile ernie = Model("ernie4_5-moe", 6);
  SetU32(ernie, "interleave_moe_layer_step", 2);
  EXPECT_THAT(RulesFor(ernie).cuts, ElementsAre(2, 4));
  SetU32(ernie, "interleave_moe_layer_step", 0);  // nonsense in a file is no crash
  EXPECT_EQ(RulesFor(ernie).cuts.size(), 5U);
}

TEST(SplitRules, HybridStagesNeedBothKinds) {
  ModelFile file = Model("jamba", 6);
  SetArray(file, "attention.head_count_kv", {0, 0, 2, 0, 0, 2});
  SetArray(file, "attention.head_count", {0, 0, 4, 0, 0, 4});
  const SplitRules rules = RulesFor(file);
  EXPECT_THAT(rules.cuts, ElementsAre(3, 4));
  EXPECT_TRUE(rules.one_sequence_per_batch);
  EXPECT_FALSE(rules.rewindable);
  const Gguf shard = Rewritten(file, {3, 6});
  EXPECT_THAT(Ints(shard, "jamba.attention.head_count_kv"), ElementsAre(0, 0, 2));
  EXPECT_THAT(Ints(shard, "jamba.attention.head_count"), ElementsAre(4, 4, 4));
}

TEST(SplitRules, RecurrentIntervalIsWrittenOut) {
  ModelFile file = Model("qwen35", 8);
  EXPECT_THAT(Ints(Rewritten(file, {2, 5}), "qwen35.attention.recurrent_layers"), ElementsAre(1, 0, 1));
  SetU32(file, "full_attention_interval", 2);
  EXPECT_THAT(Ints(Rewritten(file, {2, 5}), "qwen35.attention.recurrent_layers"), ElementsAre(1, 0, 1));
  EXPECT_EQ(InputRuleFor(file).position_rows, 4);
}

TEST(SplitRules, PerLayerArraysAreSlicedOthersNot) {
  ModelFile file = Model("llama", 4);
  SetArray(file, "feed_forward_length", {10, 11, 12, 13});
  SetArray(file, "rope.dimension_sections", {1, 2, 3, 4});
  file.gguf.Set("tokenizer.test", GgufValue::ArrayU32(std::vector<std::uint32_t>{1, 2, 3, 4}));
  SetU32(file, "leading_dense_block_count", 3);
  const Gguf shard = Rewritten(file, {2, 4});
  EXPECT_THAT(Ints(shard, "llama.feed_forward_length"), ElementsAre(12, 13));
  EXPECT_THAT(Ints(shard, "llama.rope.dimension_sections"), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Ints(shard, "tokenizer.test"), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(Int(shard, "llama.leading_dense_block_count"), 1);
}

TEST(SplitRules, EmbeddingScaleStaysOnTheFirstStageOnly) {
  ModelFile file = Model("granite", 4);
  file.gguf.Set("granite.embedding_scale", GgufValue::F32(12.0F));
  const Gguf first = Rewritten(file, {0, 2}), later = Rewritten(file, {2, 4});
  EXPECT_EQ(first.Find("granite.embedding_scale")->AsDouble(), 12.0);
  EXPECT_EQ(later.Find("granite.embedding_scale")->AsDouble(), 0.0);
}

TEST(SplitRules, PredictionHeadsStayWithTheLastStage) {
  ModelFile file = Model("glm4moe", 6);
  SetU32(file, "nextn_predict_layers", 2);
  EXPECT_THAT(RulesFor(file).cuts, ElementsAre(1, 2, 3));
  EXPECT_EQ(Int(Rewritten(file, {0, 2}), "glm4moe.nextn_predict_layers"), 0);
  EXPECT_EQ(Int(Rewritten(file, {2, 6}), "glm4moe.nextn_predict_layers"), 2);
}

TEST(SplitRules, InputScales) {
  EXPECT_FLOAT_EQ(InputRuleFor(Model("gemma3", 18, 640)).token_scale, std::sqrt(640.0F));
  EXPECT_FLOAT_EQ(InputRuleFor(Model("gemma3", 18, 640)).hidden_scale, 1.0F);
  EXPECT_FLOAT_EQ(InputRuleFor(Model("gemma", 18, 256)).hidden_scale, 1.0F / 16.0F);
  EXPECT_FLOAT_EQ(InputRuleFor(Model("llama", 18)).token_scale, 1.0F);
}

TEST(SplitRules, BadStagesAreNamed) {
  const ModelFile file = Model("smollm3", 12);
  const auto message = [&](const std::vector<LayerRange>& stages) {
    const Status status = CheckStages(file, stages);
    return status.ok() ? std::string() : status.error().message;
  };
  EXPECT_NE(message({}), "");
  EXPECT_THAT(message({{0, 4}, {5, 12}}), HasSubstr("start at layer 4"));
  EXPECT_THAT(message({{0, 4}, {3, 12}}), HasSubstr("start at layer 4"));
  EXPECT_THAT(message({{0, 4}, {4, 4}, {4, 12}}), HasSubstr("at least one layer"));
  EXPECT_THAT(message({{0, 4}, {4, 8}}), HasSubstr("12 layers"));
  EXPECT_THAT(message({{0, 5}, {5, 12}}), testing::AllOf(HasSubstr("no cut at layer 5"), HasSubstr("4, 8")));
  EXPECT_EQ(message({{0, 4}, {4, 8}, {8, 12}}), "");
}

TEST(BalancedStages, EqualLayersGiveEqualStages) {
  const auto stages = BalancedStages(Model("llama", 30), 3);
  ASSERT_TRUE(stages.ok());
  EXPECT_THAT(*stages, ElementsAre(LayerRange{0, 10}, LayerRange{10, 20}, LayerRange{20, 30}));
}

TEST(BalancedStages, TheHeadMakesTheLastStageShorterOnlyIfDecodeGainsMore) {
  ModelFile file = Model("llama", 20);
  file.info.output_bytes = 200;  // two layers' worth
  auto stages = BalancedStages(file, 2);
  ASSERT_TRUE(stages.ok());
  // At 10: prefill 10/20, decode 12/22. At 11: prefill 11/20, decode 11/22, which is worse by a hair.
  EXPECT_EQ((*stages)[1].first, 10);
  for (std::size_t i = 10; i < 20; ++i) file.info.layer_bytes[i] = 300;
  stages = BalancedStages(file, 2);
  ASSERT_TRUE(stages.ok());
  EXPECT_GE((*stages)[1].first, 13);
}

TEST(BalancedStages, KeepsToTheRulesAndRefusesWhatTheyDoNotAllow) {
  const ModelFile file = Model("smollm3", 12);
  const auto three = BalancedStages(file, 3);
  ASSERT_TRUE(three.ok());
  EXPECT_TRUE(CheckStages(file, *three).ok());
  EXPECT_EQ(BalancedStages(file, 4).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(BalancedStages(file, 13).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(BalancedStages(file, 0).error().code, ErrorCode::kInvalidArgument);
  ModelFile gemma = Model("gemma3", 18);
  SetU32(gemma, "attention.sliding_window", 512);
  for (std::int32_t n = 2; n <= 15; ++n) {
    const auto stages = BalancedStages(gemma, n);
    ASSERT_TRUE(stages.ok()) << n;
    EXPECT_EQ(stages->size(), static_cast<std::size_t>(n));
    EXPECT_TRUE(CheckStages(gemma, *stages).ok()) << n;
  }
  EXPECT_FALSE(BalancedStages(gemma, 16).ok());  // 15 sliding-window layers
}

}  // namespace
}  // namespace shoal
