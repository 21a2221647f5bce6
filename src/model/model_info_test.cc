// What DescribeModel says of hand-made headers and of the two real test models, and what it refuses.
#include "model/model_info.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <numeric>

#include "base/test_models.h"

namespace shoal {
namespace {

template <typename T>
void ExpectError(const Result<T>& result, ErrorCode code, std::string_view part) {
  ASSERT_FALSE(result.ok()) << "expected: " << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message << "\nlacks: " << part;
}

constexpr std::uint32_t kF32 = 0;
constexpr std::uint32_t kQ4_1 = 3;

// Four layers of width 64, 4 heads of 16, 2 KV heads, vocabulary 100, untied.
Gguf Llama(const std::string& architecture = "llama") {
  Gguf gguf;
  gguf.Set("general.architecture", GgufValue::String(architecture));
  gguf.Set(architecture + ".block_count", GgufValue::U32(4));
  gguf.Set(architecture + ".embedding_length", GgufValue::U32(64));
  gguf.Set(architecture + ".context_length", GgufValue::U32(2048));
  gguf.Set(architecture + ".attention.head_count", GgufValue::U32(4));
  gguf.Set(architecture + ".attention.head_count_kv", GgufValue::U32(2));
  gguf.tensors = {
      {"token_embd.weight", {64, 100}, kF32}, {"output_norm.weight", {64}, kF32}, {"output.weight", {64, 100}, kQ4_1}};
  for (int i = 0; i < 4; ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    gguf.tensors.push_back({prefix + "attn_norm.weight", {64}, kF32});
    gguf.tensors.push_back({prefix + "attn_q.weight", {64, 64U * static_cast<unsigned>(i + 1)}, kQ4_1});
  }
  LayOutTensors(gguf);
  return gguf;
}

ModelInfo Describe(const Gguf& gguf) {
  auto info = DescribeModel(gguf, "/models/tiny.gguf");
  EXPECT_TRUE(info.ok()) << (info.ok() ? "" : info.error().message);
  return info.ok() ? std::move(info).value() : ModelInfo{};
}

Result<ModelInfo> DescribeWith(const std::function<void(Gguf&)>& change) {
  Gguf gguf = Llama();
  change(gguf);
  return DescribeModel(gguf, "tiny.gguf");
}

GgufValue Numbers(std::vector<std::uint32_t> values) { return GgufValue::ArrayU32(values); }
using Elements = std::vector<std::uint32_t>;

TEST(ModelInfo, SizesOfAPlainModel) {
  const ModelInfo info = Describe(Llama());
  EXPECT_EQ(info.name, "tiny");
  EXPECT_EQ(info.architecture, "llama");
  EXPECT_EQ(info.n_layer, 4);
  EXPECT_EQ(info.n_embd, 64);
  EXPECT_EQ(info.n_head, 4);
  EXPECT_EQ(info.n_vocab, 100);
  EXPECT_EQ(info.n_ctx_train, 2048);
  EXPECT_EQ(info.n_expert, 0);
  EXPECT_FALSE(info.tied_output);
  EXPECT_FALSE(info.recurrent);
  EXPECT_EQ(info.parameters, 64U * 100 * 2 + 64 + 4 * 64 + 64 * 64 * (1 + 2 + 3 + 4));
  const std::uint64_t norm = 64 * 4;
  const std::uint64_t q = 64 * 64 / 32 * 20;
  EXPECT_EQ(info.layer_bytes, (std::vector<std::uint64_t>{norm + q, norm + 2 * q, norm + 3 * q, norm + 4 * q}));
  EXPECT_EQ(info.embedding_bytes, 64U * 100 * 4);
  EXPECT_EQ(info.output_bytes, 64U * 4 + 64 * 100 / 32 * 20);
  EXPECT_EQ(info.quantization, "Q4_1");
  EXPECT_EQ(info.kv_elements, (Elements{64, 64, 64, 64}));  // (16 + 16) * 2
  EXPECT_EQ(info.StageWeightBytes({0, 2}), info.layer_bytes[0] + info.layer_bytes[1]);
  EXPECT_EQ(info.StageWeightBytes({2, 4}), info.layer_bytes[2] + info.layer_bytes[3] + info.output_bytes);
  EXPECT_EQ(info.KvBytesPerToken({1, 3}, KvType::kF16), 2U * 64 * 2);
  EXPECT_EQ(info.KvBytesPerToken({0, 4}, KvType::kQ8_0), 4U * 2 * 34);
}

TEST(ModelInfo, TiedOutputCountsTheEmbeddingsAgain) {
  Gguf gguf = Llama();
  std::erase_if(gguf.tensors, [](const GgufTensor& t) { return t.name == "output.weight"; });
  LayOutTensors(gguf);
  const ModelInfo info = Describe(gguf);
  EXPECT_TRUE(info.tied_output);
  EXPECT_EQ(info.output_bytes, 64U * 4 + 64 * 100 * 4);
  EXPECT_EQ(info.quantization, "F32");  // the embeddings outweigh the layers now
}

TEST(ModelInfo, GeneralNameWins) {
  Gguf gguf = Llama();
  gguf.Set("general.name", GgufValue::String("Tiny \x1b[1m Model"));
  EXPECT_EQ(Describe(gguf).name, "Tiny ?[1m Model");
}

TEST(ModelInfo, KvFollowsTheHeadKeys) {
  Gguf gguf = Llama();
  gguf.Remove("llama.attention.head_count_kv");
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{128, 128, 128, 128}));  // as many as heads
  gguf.Set("llama.attention.head_count_kv", Numbers({1, 0, 2, 4}));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{32, 0, 64, 128}));
  gguf.Set("llama.attention.key_length", GgufValue::U32(32));
  gguf.Set("llama.attention.value_length", GgufValue::U32(8));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{40, 0, 80, 160}));
  gguf.Set("llama.attention.head_count", Numbers({4, 0, 8, 8}));
  EXPECT_EQ(Describe(gguf).n_head, 8);
}

TEST(ModelInfo, KvOfLatentAttentionIsItsKeysOnly) {
  Gguf gguf = Llama("deepseek2");
  gguf.Set("deepseek2.attention.head_count_kv", GgufValue::U32(1));
  gguf.Set("deepseek2.attention.key_length", GgufValue::U32(576));
  gguf.Set("deepseek2.attention.value_length", GgufValue::U32(512));
  gguf.Set("deepseek2.attention.key_length_mla", GgufValue::U32(192));
  gguf.Set("deepseek2.attention.value_length_mla", GgufValue::U32(128));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{576, 576, 576, 576}));
  // Layer 2 chooses what to attend to by one more key.
  gguf.Set("deepseek2.attention.indexer.key_length", GgufValue::U32(128));
  gguf.tensors.push_back({"blk.2.indexer.attn_k.weight", {64, 128}, kF32});
  LayOutTensors(gguf);
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{576, 576, 704, 576}));
}

TEST(ModelInfo, KvOfSlidingLayersFollowsThePattern) {
  Gguf gguf = Llama("gemma4");
  gguf.Set("gemma4.attention.key_length_swa", GgufValue::U32(8));
  gguf.Set("gemma4.attention.value_length_swa", GgufValue::U32(8));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{64, 64, 64, 64}));  // unknown pattern: the larger
  gguf.Set("gemma4.attention.sliding_window_pattern", GgufValue::ArrayBool({true, true, false, true}));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{32, 32, 64, 32}));
  gguf.Set("gemma4.attention.shared_kv_layers", GgufValue::U32(1));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{32, 32, 64, 0}));
}

TEST(ModelInfo, RecurrentModelsHaveNoKv) {
  Gguf mamba = Llama("mamba");
  mamba.Set("mamba.attention.head_count", GgufValue::U32(0));
  mamba.Remove("mamba.attention.head_count_kv");
  EXPECT_EQ(Describe(mamba).kv_elements, (Elements{0, 0, 0, 0}));
  EXPECT_TRUE(Describe(mamba).recurrent);
  // RWKV models made from Qwen keep the head counts.
  const ModelInfo rwkv = Describe(Llama("rwkv6qwen2"));
  EXPECT_EQ(rwkv.kv_elements, (Elements{0, 0, 0, 0}));
  EXPECT_TRUE(rwkv.recurrent);
}

TEST(ModelInfo, HybridModelsHaveKvInTheirAttentionLayers) {
  Gguf gguf = Llama("qwen3next");
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{0, 0, 0, 64}));
  EXPECT_TRUE(Describe(gguf).recurrent);
  gguf.Set("qwen3next.full_attention_interval", GgufValue::U32(2));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{0, 64, 0, 64}));
  gguf.Set("qwen3next.attention.recurrent_layers", GgufValue::ArrayBool({false, true, true, true}));
  EXPECT_EQ(Describe(gguf).kv_elements, (Elements{64, 0, 0, 0}));
  const ModelInfo both = Describe(Llama("falcon-h1"));  // attention and state in every layer
  EXPECT_EQ(both.kv_elements, (Elements{64, 64, 64, 64}));
  EXPECT_TRUE(both.recurrent);
}

TEST(ModelInfo, UnlistedRecurrentArchitecturesShowByTheirTensors) {
  for (const std::string tensor : {"blk.1.ssm_a", "blk.1.time_mix_w1.weight", "blk.1.shortconv.conv.weight"}) {
    Gguf gguf = Llama("newcomer");
    EXPECT_FALSE(Describe(gguf).recurrent);
    gguf.tensors.push_back({tensor, {64}, kF32});
    LayOutTensors(gguf);
    EXPECT_TRUE(Describe(gguf).recurrent) << tensor;
  }
}

TEST(ModelInfo, PredictionLayersAreNotDecoderLayers) {
  Gguf gguf = Llama();
  gguf.Set("llama.nextn_predict_layers", GgufValue::U32(1));
  const ModelInfo info = Describe(gguf);
  EXPECT_EQ(info.n_layer, 3);
  EXPECT_EQ(info.layer_bytes.size(), 3U);
  gguf.Set("llama.nextn_predict_layers", GgufValue::U32(4));
  ExpectError(DescribeModel(gguf, "x"), ErrorCode::kCorrupt, "nextn_predict_layers");
}

TEST(ModelInfo, RefusesAbsentKeys) {
  for (const std::string key :
       {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.context_length"}) {
    ExpectError(DescribeWith([&](Gguf& g) { g.Remove(key); }), ErrorCode::kCorrupt, key);
  }
  ExpectError(DescribeWith([](Gguf& g) { g.tensors.erase(g.tensors.begin()); }), ErrorCode::kCorrupt,
              "token_embd.weight is absent");
}

TEST(ModelInfo, RefusesAbsurdValues) {
  const auto with = [](const std::string& key, GgufValue value) {
    return DescribeWith([&](Gguf& g) { g.Set(key, std::move(value)); });
  };
  ExpectError(with("llama.block_count", GgufValue::U32(0)), ErrorCode::kCorrupt, "block_count is 0");
  ExpectError(with("llama.block_count", GgufValue::U32(4097)), ErrorCode::kCorrupt, "block_count is 4097");
  ExpectError(with("llama.block_count", GgufValue::String("4")), ErrorCode::kCorrupt, "not a whole number");
  ExpectError(with("llama.block_count", {GgufType::kInt64, std::int64_t{-1}}), ErrorCode::kCorrupt,
              "block_count is -1");
  ExpectError(with("llama.block_count", {GgufType::kUint64, UINT64_MAX}), ErrorCode::kCorrupt, "not a whole number");
  ExpectError(with("llama.block_count", GgufValue::U32(3)), ErrorCode::kCorrupt,
              "blk.3.attn_norm.weight belongs to no layer");
  ExpectError(with("llama.embedding_length", GgufValue::U32(65537)), ErrorCode::kCorrupt, "embedding_length");
  ExpectError(with("llama.embedding_length", GgufValue::U32(32)), ErrorCode::kCorrupt,
              "rows of 64 elements, expected 32");
  ExpectError(with("llama.context_length", GgufValue::U32(0xFFFFFFFF)), ErrorCode::kCorrupt, "context_length");
  ExpectError(with("llama.attention.head_count_kv", Numbers({1, 2, 3})), ErrorCode::kCorrupt,
              "3 elements for 4 layers");
  ExpectError(with("llama.attention.head_count", GgufValue::F32(4)), ErrorCode::kCorrupt, "not a whole number");
  ExpectError(with("llama.attention.key_length", GgufValue::U32(0xFFFFFFFF)), ErrorCode::kCorrupt, "key_length");
  ExpectError(DescribeWith([](Gguf& g) {
                g.Set("llama.attention.head_count_kv", GgufValue::U32(65536));
                g.Set("llama.attention.key_length", GgufValue::U32(65536));
              }),
              ErrorCode::kCorrupt, "absurd width");
}

TEST(ModelInfo, RefusesStrangeLayerNames) {
  for (const std::string name :
       {"blk.4.x", "blk.-1.x", "blk.01.x", "blk.x", "blk.", "blk.1", "blk.99999999999.x", "blk.+1.x"}) {
    ExpectError(DescribeWith([&](Gguf& g) {
                  g.tensors.push_back({name, {1}, kF32, 0, 4});
                }),
                ErrorCode::kCorrupt, name);
  }
}

TEST(ModelInfo, VocabularyFromTheTokenizerIfTheMatrixDoesNotTell) {
  Gguf gguf = Llama();
  gguf.tensors[0].dims = {64};
  ExpectError(DescribeModel(gguf, "x"), ErrorCode::kCorrupt, "vocabulary of 0");
  GgufArray tokens;
  tokens.type = GgufType::kString;
  tokens.count = 2;
  tokens.strings = {"a", "b"};
  gguf.Set("tokenizer.ggml.tokens", {GgufType::kArray, tokens});
  EXPECT_EQ(Describe(gguf).n_vocab, 2);
  gguf.tensors[0].dims = {64, std::uint64_t{1} << 40};
  ExpectError(DescribeModel(gguf, "x"), ErrorCode::kCorrupt, "vocabulary of");
}

TEST(ModelInfo, RefusesGgufsThatAreNoWholeLanguageModel) {
  ExpectError(DescribeWith([](Gguf& g) {
                g.Set("split.count", {GgufType::kUint16, std::uint64_t{3}});
              }),
              ErrorCode::kUnsupported, "one of 3 parts of a split model");
  EXPECT_TRUE(DescribeWith([](Gguf& g) { g.Set("split.count", {GgufType::kUint16, std::uint64_t{1}}); }).ok());
  ExpectError(DescribeWith([](Gguf& g) { g.Set("general.type", GgufValue::String("adapter")); }),
              ErrorCode::kUnsupported, "adapter");
  ExpectError(
      DescribeWith([](Gguf& g) { std::erase_if(g.tensors, [](auto& t) { return t.name.starts_with("blk."); }); }),
      ErrorCode::kUnsupported, "no decoder layers");
  ExpectError(DescribeModel(Llama("nomic-bert"), "x"), ErrorCode::kUnsupported, "encoder");
  Gguf projector;
  projector.Set("general.architecture", GgufValue::String("clip"));
  ExpectError(DescribeModel(projector, "x"), ErrorCode::kUnsupported, "no decoder layers");
}

TEST(ModelInfo, OpenNamesTheFile) {
  ExpectError(OpenModelFile("/nowhere/model.gguf"), ErrorCode::kNotFound, "/nowhere/model.gguf");
  ExpectError(OpenModelFile("/"), ErrorCode::kNotFound, "folder");
}

TEST(KvTypes, ParseAndName) {
  EXPECT_EQ(*ParseKvType("f16"), KvType::kF16);
  EXPECT_EQ(*ParseKvType("q8_0"), KvType::kQ8_0);
  EXPECT_EQ(KvTypeName(KvType::kQ8_0), "q8_0");
  ExpectError(ParseKvType("F16"), ErrorCode::kInvalidArgument, "f16 or q8_0");
  ExpectError(ParseKvType(""), ErrorCode::kInvalidArgument, "f16 or q8_0");
}

// Path of a real model, or empty if this machine has none.
std::string RealModel(const std::string& name) {
  const std::string path = TestModelPath(name);
  return std::filesystem::exists(path) ? path : "";
}

std::uint64_t Sum(const std::vector<std::uint64_t>& v) { return std::accumulate(v.begin(), v.end(), std::uint64_t{0}); }

TEST(RealModels, SmolLm2) {
  const std::string path = RealModel("smollm2");
  if (path.empty()) GTEST_SKIP() << "no smollm2.gguf here: ./dev model smollm2 fetches it";
  const auto file = OpenModelFile(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  const ModelInfo& info = (*file)->info;
  EXPECT_EQ(info.architecture, "llama");
  EXPECT_EQ(info.n_layer, 30);
  EXPECT_EQ(info.n_embd, 576);
  EXPECT_EQ(info.n_vocab, 49152);
  EXPECT_EQ(info.n_head, 9);
  EXPECT_EQ(info.n_ctx_train, 8192);
  EXPECT_EQ(info.quantization, "Q4_1");
  EXPECT_TRUE(info.tied_output);
  EXPECT_FALSE(info.recurrent);
  EXPECT_EQ(info.parameters, 134515008U);
  EXPECT_EQ(info.kv_elements, Elements(30, 2 * 3 * 64));
  EXPECT_EQ(info.KvBytesPerToken({0, 30}, KvType::kF16), 30U * 384 * 2);
  // Everything in the file but header and padding is in a layer, the embeddings or the output norm.
  const std::uint64_t data = info.file_bytes - (*file)->gguf.data_offset;
  EXPECT_EQ(Sum(info.layer_bytes) + info.output_bytes, data);
}

TEST(RealModels, Gemma3) {
  const std::string path = RealModel("gemma3");
  if (path.empty()) GTEST_SKIP() << "no gemma3.gguf here: ./dev model gemma3 fetches it";
  const auto start = std::chrono::steady_clock::now();
  const auto file = OpenModelFile(path);
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  RecordProperty("elapsed_ms", std::to_string(elapsed.count()));
  ASSERT_TRUE(file.ok()) << file.error().message;
  const ModelInfo& info = (*file)->info;
  EXPECT_EQ(info.architecture, "gemma3");
  EXPECT_EQ(info.n_layer, 18);
  EXPECT_EQ(info.n_embd, 640);
  EXPECT_EQ(info.n_vocab, 262144);
  EXPECT_EQ(info.kv_elements, Elements(18, 2 * 256));
  EXPECT_FALSE(info.recurrent);
  EXPECT_EQ((*file)->gguf.Find("tokenizer.ggml.tokens")->AsArray()->strings.size(), 262144U);
}

TEST(RealModels, RoundTripToTheByte) {
  for (const char* name : {"smollm2", "gemma3"}) {
    const std::string path = RealModel(name);
    if (path.empty()) GTEST_SKIP() << "no " << name << ".gguf here";
    auto gguf = ReadGguf(path);
    ASSERT_TRUE(gguf.ok()) << gguf.error().message;
    const Gguf before = *gguf;
    const std::uint64_t data_bytes = LayOutTensors(*gguf);
    EXPECT_EQ(gguf->tensors, before.tensors);
    EXPECT_EQ(SerializeGguf(*gguf).size(), before.data_offset);
    EXPECT_EQ(before.data_offset + data_bytes, before.file_bytes);
  }
}

}  // namespace
}  // namespace shoal
