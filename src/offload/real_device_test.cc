// A device that is really there computes what the CPU does: whole models on a real text, all layers there or half.
//
// SHOAL_TEST_DEVICE names it, as `--device` would; without it there is nothing to show (./dev test --devices).
#include <gtest/gtest.h>

#include <cstdio>

#include "base/environment.h"
#include "base/program_path.h"
#include "base/test_folder.h"
#include "base/test_models.h"
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
constexpr const char* kText =
    "The tide comes in twice a day, and with it the small fish that the herons wait for. A shoal turns as one, without "
    "a leader: each fish watches its neighbours, and that is enough for thousands of them to move like water.";

// Of the tokens after the first kPrompt one by one: f32 [tokens, n_vocab].
Result<std::vector<float>> Logits(Engine& engine, std::span<const TokenId> tokens) {
  std::vector<float> all, hidden, out;
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t n = at == 0 ? kPrompt : 1;
    std::vector<EngineRow> rows;
    for (std::size_t i = 0; i < n; ++i) rows.push_back({0, static_cast<Position>(at + i), true});
    SHOAL_RETURN_IF_ERROR(engine.Embed(tokens.subspan(at, n), hidden));
    SHOAL_RETURN_IF_ERROR(engine.Forward(rows, hidden, out));
    all.insert(all.end(), out.begin(), out.end());
    at += n;
  }
  return all;
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

INSTANTIATE_TEST_SUITE_P(Models, RealDevice,
                         testing::Values(Weights{"smollm2", false}, Weights{"smollm2", true}, Weights{"gemma3", false},
                                         Weights{"gemma3", true}),
                         [](const auto& one) { return one.param.name(); });

}  // namespace
}  // namespace shoal
