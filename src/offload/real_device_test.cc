// A device that is really there computes what the CPU does: whole models on a real text, all layers there or half.
//
// SHOAL_TEST_DEVICE names it, as `--device` would; without it there is nothing to show (./dev test --devices).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "base/environment.h"
#include "base/program_path.h"
#include "base/test_folder.h"
#include "base/test_models.h"
#include "engine/backend_files.h"
#include "engine/quantize.h"
#include "engine/vocabulary.h"
#include "offload/device_check.h"
#include "offload/process.h"
#include "offload/remote_engine.h"

namespace shoal {
namespace {

// Mean KL of the next token. With quantized weights the CPU rounds what it multiplies them with to 8 bits, and
// is 4.9e-3 (SmolLM2) and 5.6e-3 (Gemma 3) away from the same products in F32, as OpenBLAS computes them; with F16 it
// is not.
constexpr double kDivergenceMax = 5e-3, kDivergenceOfQuantizedMax = 1e-2;
constexpr std::size_t kPrompt = 32, kSingles = 8;
constexpr std::size_t kLong = 128, kTogether = 64;  // BLAS takes part from 32 on
constexpr const char* kLongText =
    "The harbour had been quiet since the last ferry left. Anna counted the crates twice, wrote the number on the back "
    "of her hand and walked to the office, where the radio was still playing. \"Thirty-one,\" she said. \"There should "
    "be thirty-two.\" Her brother did not look up from the map. He had drawn a line from the lighthouse to the mouth "
    "of "
    "the river and was measuring it with a piece of string. \"The missing one,\" he said after a while, \"is the one "
    "with the glass in it.\" Nobody had opened it in years. Their grandfather had bought the lenses in Hamburg, before "
    "the war, and carried them home wrapped in wool. In the spring the ice on the lake breaks with a sound like "
    "distant guns, and the children run down to the shore to see which boat will be the first on the water.";
constexpr const char* kText =
    "The tide comes in twice a day, and with it the small fish that the herons wait for. A shoal turns as one, without "
    "a leader: each fish watches its neighbours, and that is enough for thousands of them to move like water.";

// Of `first` tokens at once, then `each` after each: f32 [tokens, n_vocab].
Result<std::vector<float>> Logits(Engine& engine, std::span<const TokenId> tokens, std::size_t first = kPrompt,
                                  std::size_t each = 1) {
  std::vector<float> all, hidden, out;
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t n = at == 0 ? first : each;
    std::vector<EngineRow> rows;
    for (std::size_t i = 0; i < n; ++i) rows.push_back({0, static_cast<Position>(at + i), true});
    SHOAL_RETURN_IF_ERROR(engine.Embed(tokens.subspan(at, n), hidden));
    SHOAL_RETURN_IF_ERROR(engine.Forward(rows, hidden, out));
    all.insert(all.end(), out.begin(), out.end());
    at += n;
  }
  return all;
}

// KL of each token's successor.
std::vector<double> Divergences(std::span<const float> mine, std::span<const float> reference, std::size_t width) {
  std::vector<double> each;
  for (std::size_t at = 0; at < reference.size(); at += width) {
    each.push_back(MeanDivergence(mine.subspan(at, width), reference.subspan(at, width), width));
  }
  return each;
}

// What a mean hides.
std::string Described(std::vector<double> each) {
  std::sort(each.begin(), each.end());
  double sum = 0, top = 0;
  const std::size_t tenth = each.size() / 10;
  for (std::size_t i = 0; i < each.size(); ++i) (i + tenth < each.size() ? sum : top) += each[i];
  char text[160];
  std::snprintf(text, sizeof text, "mean KL %.1e, median %.1e, largest %.1e, a tenth of the tokens has %.0f %% of it",
                (sum + top) / static_cast<double>(each.size()), each[each.size() / 2], each.back(),
                100 * top / (sum + top));
  return text;
}

struct Weights {
  const char* model;
  bool f16;  // the test's model, its weights widened
  std::string name() const { return std::string(model) + (f16 ? "_f16" : ""); }
};

class RealDevice : public testing::TestWithParam<Weights> {
 protected:
  std::string File() {
    const std::string path = TestModelPath(GetParam().model);
    if (!GetParam().f16) return path;
    const std::string wide = folder_.path() + "/f16.gguf";
    QuantizeOptions options;
    options.type = "F16";
    options.from_quantized = true;
    const auto made = QuantizeModel(path, wide, options);
    EXPECT_TRUE(made.ok()) << made.error().message;
    return wide;
  }

 private:
  TestFolder folder_;
};

TEST_P(RealDevice, ComputesWhatTheCpuDoes) {
  const std::string name = Environment("SHOAL_TEST_DEVICE");
  if (name.empty()) GTEST_SKIP() << "SHOAL_TEST_DEVICE names no device";
  const auto model = OpenModelFile(File());
  ASSERT_TRUE(model.ok()) << model.error().message;
  const auto vocabulary = Vocabulary::Open(*model);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().message;
  std::vector<TokenId> tokens = (*vocabulary)->Tokenize(kText, true, false).value();
  ASSERT_GE(tokens.size(), kPrompt + kSingles);
  tokens.resize(kPrompt + kSingles);

  EngineOptions options;
  options.layers = {0, (*model)->info.n_layer};
  options.kv_tokens_max = 256;
  options.output_rows_max = kPrompt;
  options.threads = 2;
  const auto here = Engine::Open(*model, options).value();
  const std::vector<float> reference = Logits(*here, tokens).value();

  OffloadOptions offload;
  offload.command = {ProgramPath(), kOffloadCommand};
  offload.on_lost = [](const Error& why) { ADD_FAILURE() << why.message; };
  options.device = ParseDeviceChoice(name).value();
  for (const std::int32_t layers : {0, (*model)->info.n_layer / 2}) {
    options.device.layers = layers;
    const auto there = OpenOffloaded(*model, options, offload);
    ASSERT_TRUE(there.ok()) << there.error().message;
    const auto mine = Logits(*there->engine, tokens);
    ASSERT_TRUE(mine.ok()) << mine.error().message;
    const double divergence = MeanDivergence(*mine, reference, static_cast<std::size_t>(here->n_vocab()));
    std::printf("%s, %s layers on %s: mean KL %.1e over %zu tokens\n", GetParam().name().c_str(),
                layers == 0 ? "all" : std::to_string(layers).c_str(), there->device.c_str(), divergence, tokens.size());
    EXPECT_LE(divergence, GetParam().f16 ? kDivergenceMax : kDivergenceOfQuantizedMax);
  }
}

// Who of both rounds: the same text, prompt by prompt, with weights that are widened and products that are computed in
// F32, as OpenBLAS does.
TEST_P(RealDevice, AndTheCpuAreSoFarFromTheProductsInF32) {
  const std::string name = Environment("SHOAL_TEST_DEVICE");
  if (name.empty() || name == "blas") GTEST_SKIP() << "SHOAL_TEST_DEVICE names no device that may round";
  if (BackendFile("blas").empty()) GTEST_SKIP() << "there is no libggml-blas.so beside the program";
  const auto model = OpenModelFile(File());
  ASSERT_TRUE(model.ok()) << model.error().message;
  const auto vocabulary = Vocabulary::Open(*model);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().message;
  std::vector<TokenId> tokens = (*vocabulary)->Tokenize(kLongText, true, false).value();
  ASSERT_GE(tokens.size(), kLong);
  tokens.resize(kLong);

  EngineOptions options;
  options.layers = {0, (*model)->info.n_layer};
  options.kv_tokens_max = 256;
  options.output_rows_max = kTogether;
  options.batch_rows_max = kTogether;
  options.threads = 2;
  OffloadOptions offload;
  offload.command = {ProgramPath(), kOffloadCommand};
  const auto logits_on = [&](const std::string& device) {
    options.device = ParseDeviceChoice(device).value();
    if (options.device.none()) return Logits(*Engine::Open(*model, options).value(), tokens, kTogether, kTogether);
    const Result<OffloadedEngine> there = OpenOffloaded(*model, options, offload);
    return there.ok() ? Logits(*there->engine, tokens, kTogether, kTogether) : there.error();
  };
  const auto exact = logits_on("blas"), cpu = logits_on("cpu"), device = logits_on(name);
  for (const auto* one : {&exact, &cpu, &device}) ASSERT_TRUE(one->ok()) << one->error().message;
  const auto width = static_cast<std::size_t>((*model)->info.n_vocab);
  const auto say = [&](const std::string& what, std::span<const float> mine, std::span<const float> reference) {
    std::printf("%s, %s: %s\n", GetParam().name().c_str(), what.c_str(),
                Described(Divergences(mine, reference, width)).c_str());
    return MeanDivergence(mine, reference, width);
  };
  (void)say("the CPU from F32", *cpu, *exact);
  (void)say(name + " from the CPU", *device, *cpu);
  EXPECT_LE(say(name + " from F32", *device, *exact), kDivergenceMax);
}

INSTANTIATE_TEST_SUITE_P(Models, RealDevice,
                         testing::Values(Weights{"smollm2", false}, Weights{"smollm2", true}, Weights{"gemma3", false},
                                         Weights{"gemma3", true}),
                         [](const auto& one) { return one.param.name(); });

}  // namespace
}  // namespace shoal
