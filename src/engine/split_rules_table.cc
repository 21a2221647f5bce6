// The table of architectures: what tests/golden/arch has shown to be exact, and what it has not.
//
// To add one: add its line, run the sweep with --write, look at docs/architectures.md.
#include "engine/split_rules_table.h"

#include <algorithm>

namespace shoal {
namespace {

constexpr std::int32_t kBaichuanSizes[] = {32, 40};      // 7B has RoPE, 13B ALiBi
constexpr std::int32_t kDeepSeek2Lite[] = {26, 27, 48};  // no query compression
constexpr std::int32_t kExaone4Window[] = {64};          // 32B has sliding windows
constexpr std::int32_t kGemma2Scale[] = {46};            // 27B scales attention by n_embd / n_head
constexpr std::int32_t kGemma3Scale[] = {62};
constexpr std::int32_t kNoRopeStep[] = {4};  // a model of 4 layers would have RoPE everywhere

constexpr WindowRule Always(std::int32_t period, bool full_first = false) {
  return {WindowRule::When::kAlways, period, full_first};
}
constexpr WindowRule IfWindow(std::int32_t period, bool full_first = false) {
  return {WindowRule::When::kIfWindow, period, full_first};
}

using R = RecurrentRule;
using P = PositionRule;

constexpr ArchitectureEntry kTable[] = {
    {.architecture = "afmoe", .multiple = 4, .window = IfWindow(4), .scale = InputScale::kAnyInput},
    {.architecture = "arcee"},
    {.architecture = "arctic"},
    {.architecture = "baichuan", .special_counts = kBaichuanSizes},
    {.architecture = "bailingmoe"},
    {.architecture = "bailingmoe2"},
    {.architecture = "bailingmoe3", .recurrent = R::kNoKvHeads, .positions = P::kFourIfSections},
    {.architecture = "chatglm"},
    {.architecture = "codeshell"},
    {.architecture = "cohere2", .window = Always(4)},
    {.architecture = "cohere2moe", .window = Always(4, true)},
    {.architecture = "command-r"},
    {.architecture = "dbrx"},
    {.architecture = "deci"},
    {.architecture = "deepseek"},
    {.architecture = "deepseek2", .special_counts = kDeepSeek2Lite},
    {.architecture = "deepseek32"},
    {.architecture = "dots1"},
    {.architecture = "dots3note", .window = Always(0), .shared_indexers = true},
    {.architecture = "ernie4_5"},
    {.architecture = "ernie4_5-moe", .multiple_key = "interleave_moe_layer_step"},
    {.architecture = "exaone"},
    {.architecture = "exaone-moe", .window = Always(4)},
    {.architecture = "exaone4", .special_counts = kExaone4Window},
    {.architecture = "falcon"},
    {.architecture = "falcon-h1", .recurrent = R::kEvery},
    {.architecture = "gemma", .scale = InputScale::kAnyInput},
    {.architecture = "gemma2",
     .window = Always(2),
     .scale = InputScale::kAnyInput,
     .special_counts = kGemma2Scale,
     .special_if_head_width = true},
    {.architecture = "gemma3",
     .window = IfWindow(6),
     .scale = InputScale::kTokensOnly,
     .special_counts = kGemma3Scale,
     .special_if_head_width = true},
    {.architecture = "glm-dsa", .shared_indexers = true},
    {.architecture = "glm4", .positions = P::kFourIfSections},
    {.architecture = "glm4moe", .positions = P::kFourIfSections},
    {.architecture = "gpt-oss", .window = Always(2)},
    {.architecture = "gpt2"},
    {.architecture = "gptneox"},
    {.architecture = "granite"},
    {.architecture = "granite_swa", .window = Always(0)},
    {.architecture = "granitehybrid", .recurrent = R::kNoKvHeads},
    {.architecture = "granitemoe"},
    {.architecture = "grok"},
    {.architecture = "grovemoe"},
    {.architecture = "hunyuan-dense"},
    {.architecture = "hunyuan-moe"},
    {.architecture = "hunyuan_vl", .positions = P::kFourIfSections},
    {.architecture = "hy_v3"},
    {.architecture = "internlm2"},
    {.architecture = "jais"},
    {.architecture = "jais2"},
    {.architecture = "jamba", .recurrent = R::kNoKvHeads},
    {.architecture = "kimi-linear", .recurrent = R::kNoKvHeads},
    {.architecture = "laguna", .window = IfWindow(4, true)},
    {.architecture = "lfm2", .recurrent = R::kNoKvHeads},
    {.architecture = "lfm2moe", .recurrent = R::kNoKvHeads},
    {.architecture = "llama"},
    {.architecture = "llama4", .multiple = 4, .multiple_key = "interleave_moe_layer_step", .window = Always(4)},
    {.architecture = "maincoder"},
    {.architecture = "mamba", .recurrent = R::kEvery},
    {.architecture = "mamba2", .recurrent = R::kEvery},
    {.architecture = "maple", .window = Always(0)},
    {.architecture = "mellum", .window = IfWindow(4)},
    {.architecture = "mimo2", .window = Always(0)},
    {.architecture = "minicpm"},
    {.architecture = "minimax-m2"},
    {.architecture = "minimax-m3"},
    {.architecture = "mistral3"},
    {.architecture = "mistral4", .special_counts = kDeepSeek2Lite},
    {.architecture = "mpt"},
    {.architecture = "nanbeige"},
    {.architecture = "nemotron"},
    {.architecture = "nemotron_h", .recurrent = R::kNoKvNoFfn, .hidden_tensor = "nemotron_h_block_out"},
    {.architecture = "nemotron_h_moe", .recurrent = R::kNoKvNoFfn, .hidden_tensor = "nemotron_h_block_out"},
    {.architecture = "olmo"},
    {.architecture = "olmo2", .window = IfWindow(4)},
    {.architecture = "olmoe"},
    {.architecture = "openelm"},
    {.architecture = "orion"},
    {.architecture = "paddleocr", .positions = P::kFour},
    {.architecture = "pangu-embedded"},
    {.architecture = "phi2"},
    {.architecture = "phi3"},
    {.architecture = "phimoe"},
    {.architecture = "plamo"},
    {.architecture = "plamo2", .recurrent = R::kNoKvHeads, .hidden_tensor = "ffn_residual"},
    {.architecture = "plamo3", .window = IfWindow(8)},
    {.architecture = "pockettts"},
    {.architecture = "qwen"},
    {.architecture = "qwen2"},
    {.architecture = "qwen2moe"},
    {.architecture = "qwen2vl", .positions = P::kFour},
    {.architecture = "qwen3"},
    {.architecture = "qwen35", .recurrent = R::kInterval, .positions = P::kFour},
    {.architecture = "qwen35moe", .recurrent = R::kInterval, .positions = P::kFour},
    {.architecture = "qwen3moe"},
    {.architecture = "qwen3next", .recurrent = R::kInterval},
    {.architecture = "qwen3vl", .positions = P::kFour},
    {.architecture = "qwen3vlmoe", .positions = P::kFour},
    {.architecture = "refact"},
    {.architecture = "seed_oss"},
    {.architecture = "smallthinker", .multiple = 4, .window = IfWindow(4, true), .special_counts = kNoRopeStep},
    {.architecture = "smollm3", .multiple = 4},
    {.architecture = "spark2_5", .window = Always(0)},
    {.architecture = "stablelm"},
    {.architecture = "starcoder"},
    {.architecture = "starcoder2"},
    {.architecture = "xverse"},
};

constexpr std::string_view kDiffusion =
    "a diffusion model keeps no KV cache and fills in a text, instead of continuing it";
constexpr std::string_view kInputNorm =
    "libllama normalises any input of the model, so a later stage would normalise the hidden state too";
constexpr std::string_view kWideResidual =
    "its residual stream is several hidden states wide (hyper-connections), and libllama takes in only one";
constexpr std::string_view kPerLayerEmbedding =
    "every layer needs the token itself (per-layer embeddings), and later layers share earlier layers' KV";

constexpr WholeEntry kWhole[] = {
    {"bloom", kInputNorm},
    {"cogvlm", "libllama gives embedded inputs, as a stage has them, to the experts for images"},
    {"deepseek4", kWideResidual},
    {"dream", kDiffusion},
    {"gemma3n", kPerLayerEmbedding},
    {"gemma4", kPerLayerEmbedding},
    {"glm5-next", kWideResidual},
    {"hrm_text", "its layers run several times over, in two loops"},
    {"hy_v4", kWideResidual},
    {"kimi-k3", "its layers attend to the outputs of all earlier blocks (attention residuals)"},
    {"llada", kDiffusion},
    {"llada-moe", kDiffusion},
    {"minicpm3", "libllama multiplies any input by 12, which cannot be undone to the bit"},
    {"minimax-01", "a layer's decay depends on its place among all layers of the model"},
    {"muse-glimmer", kInputNorm},
    {"qwen3tts", "its output head has a fixed number of speech codes, so no stage can do without it"},
    {"qwen4exp", kWideResidual},
    {"rnd1", kDiffusion},
    {"talkie", kInputNorm},
};

}  // namespace

std::span<const ArchitectureEntry> ArchitectureTable() { return kTable; }
std::span<const WholeEntry> WholeTable() { return kWhole; }

const ArchitectureEntry* FindArchitecture(std::string_view architecture) {
  const auto* const found =
      std::ranges::find(kTable, architecture, [](const ArchitectureEntry& entry) { return entry.architecture; });
  return found == std::end(kTable) ? nullptr : found;
}

}  // namespace shoal
