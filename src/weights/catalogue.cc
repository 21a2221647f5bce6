// Sizes: decimal megabytes, for choosing before anything is asked; checked against the repositories' pages for
// llama-3.2-1b, qwen3-4b, gemma-3-4b and smollm3-3b, not yet for the others. A pull goes by the hub's own list. Layers
// and heads serve the estimate of the KV cache and are not checked one by one.
#include "weights/catalogue.h"

#include <algorithm>

namespace shoal {
namespace {

constexpr std::uint64_t operator""_mb(unsigned long long n) { return n * 1'000'000; }

constexpr CatalogueSize kSmolLm135[] = {{"Q4_0", 92_mb}, {"Q4_K_M", 105_mb}, {"Q5_K_M", 112_mb}, {"Q8_0", 145_mb}};
constexpr CatalogueSize kSmolLm360[] = {{"Q4_0", 229_mb}, {"Q4_K_M", 271_mb}, {"Q5_K_M", 290_mb}, {"Q8_0", 386_mb}};
constexpr CatalogueSize kQwen05[] = {{"Q4_0", 429_mb}, {"Q4_K_M", 491_mb}, {"Q5_K_M", 522_mb}, {"Q8_0", 676_mb}};
constexpr CatalogueSize kGemma1[] = {{"Q4_0", 722_mb}, {"Q4_K_M", 806_mb}, {"Q5_K_M", 851_mb}, {"Q8_0", 1070_mb}};
constexpr CatalogueSize kLlama1[] = {{"Q4_0", 773_mb}, {"Q4_K_M", 808_mb}, {"Q5_K_M", 912_mb}, {"Q8_0", 1321_mb}};
constexpr CatalogueSize kSmolLm17[] = {{"Q4_0", 992_mb}, {"Q4_K_M", 1056_mb}, {"Q5_K_M", 1226_mb}, {"Q8_0", 1820_mb}};
constexpr CatalogueSize kQwen15[] = {{"Q4_0", 1066_mb}, {"Q4_K_M", 1117_mb}, {"Q5_K_M", 1285_mb}, {"Q8_0", 1895_mb}};
constexpr CatalogueSize kLlama3[] = {{"Q4_0", 1921_mb}, {"Q4_K_M", 2019_mb}, {"Q5_K_M", 2322_mb}, {"Q8_0", 3422_mb}};
constexpr CatalogueSize kSmol3[] = {{"Q4_0", 1810_mb}, {"Q4_K_M", 1920_mb}, {"Q5_K_M", 2210_mb}, {"Q8_0", 3280_mb}};
constexpr CatalogueSize kQwen4[] = {{"Q4_0", 2380_mb}, {"Q4_K_M", 2500_mb}, {"Q5_K_M", 2890_mb}, {"Q8_0", 4280_mb}};
constexpr CatalogueSize kGemma4[] = {{"Q4_0", 2370_mb}, {"Q4_K_M", 2490_mb}, {"Q5_K_M", 2830_mb}, {"Q8_0", 4130_mb}};
constexpr CatalogueSize kMistral7[] = {{"Q4_K_M", 4373_mb}, {"Q5_K_M", 5136_mb}, {"Q8_0", 7702_mb}};
constexpr CatalogueSize kQwen7[] = {{"Q4_0", 4444_mb}, {"Q4_K_M", 4683_mb}, {"Q5_K_M", 5445_mb}, {"Q8_0", 8099_mb}};
constexpr CatalogueSize kLlama8[] = {{"Q4_0", 4676_mb}, {"Q4_K_M", 4921_mb}, {"Q5_K_M", 5733_mb}, {"Q8_0", 8541_mb}};
constexpr CatalogueSize kQwen8[] = {{"Q4_0", 4790_mb}, {"Q4_K_M", 5030_mb}, {"Q5_K_M", 5850_mb}, {"Q8_0", 8710_mb}};
constexpr CatalogueSize kQwen14[] = {{"Q4_0", 8540_mb}, {"Q4_K_M", 9000_mb}, {"Q5_K_M", 10510_mb}, {"Q8_0", 15700_mb}};

// K and V of one token: layers * heads of keys and values * their width * two of them * two bytes.
constexpr std::uint32_t KvBytes(std::uint32_t layers, std::uint32_t heads, std::uint32_t width) {
  return layers * heads * width * 2 * 2;
}

constexpr CatalogueModel kModels[] = {
    {"smollm2-135m", "bartowski/SmolLM2-135M-Instruct-GGUF", "llama", "135M", "Apache-2.0",
     "trying things out; knows little", 30, KvBytes(30, 3, 64), kSmolLm135},
    {"smollm2-360m", "bartowski/SmolLM2-360M-Instruct-GGUF", "llama", "360M", "Apache-2.0",
     "short English answers on the oldest phones", 32, KvBytes(32, 5, 64), kSmolLm360},
    {"qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2", "0.5B", "Apache-2.0",
     "many languages on one small phone", 24, KvBytes(24, 2, 64), kQwen05},
    {"gemma-3-1b", "bartowski/google_gemma-3-1b-it-GGUF", "gemma3", "1B", "Gemma terms of use",
     "summaries and chat on one phone", 26, KvBytes(26, 1, 256), kGemma1},
    {"llama-3.2-1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", "llama", "1.2B", "Llama 3.2 Community License",
     "chat and tools on one phone", 16, KvBytes(16, 8, 64), kLlama1},
    {"smollm2-1.7b", "bartowski/SmolLM2-1.7B-Instruct-GGUF", "llama", "1.7B", "Apache-2.0",
     "English chat; a long context costs much (no grouped heads)", 24, KvBytes(24, 32, 64), kSmolLm17},
    {"qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF", "qwen2", "1.5B", "Apache-2.0",
     "chat, tools and code on one phone or two old ones", 28, KvBytes(28, 2, 128), kQwen15},
    {"smollm3-3b", "bartowski/HuggingFaceTB_SmolLM3-3B-GGUF", "smollm3", "3.1B", "Apache-2.0",
     "chat in six languages on two or three phones; cut at every fourth layer", 36, KvBytes(36, 4, 128), kSmol3},
    {"llama-3.2-3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", "llama", "3.2B", "Llama 3.2 Community License",
     "good chat and tools on two or three phones", 28, KvBytes(28, 8, 128), kLlama3},
    {"gemma-3-4b", "bartowski/google_gemma-3-4b-it-GGUF", "gemma3", "4B", "Gemma terms of use",
     "writing in many languages on two or three phones", 34, KvBytes(34, 4, 256), kGemma4},
    {"qwen3-4b", "bartowski/Qwen_Qwen3-4B-GGUF", "qwen3", "4B", "Apache-2.0",
     "thinks before it answers; two or three phones", 36, KvBytes(36, 8, 128), kQwen4},
    {"mistral-7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF", "llama", "7.2B", "Apache-2.0",
     "free prose and code; three phones", 32, KvBytes(32, 8, 128), kMistral7},
    {"qwen2.5-7b", "bartowski/Qwen2.5-7B-Instruct-GGUF", "qwen2", "7.6B", "Apache-2.0",
     "code, tools and many languages on three phones; a long context costs little", 28, KvBytes(28, 4, 128), kQwen7},
    {"llama-3.1-8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "llama", "8B", "Llama 3.1 Community License",
     "what most people compare with; three or four phones", 32, KvBytes(32, 8, 128), kLlama8},
    {"qwen3-8b", "bartowski/Qwen_Qwen3-8B-GGUF", "qwen3", "8.2B", "Apache-2.0",
     "thinks before it answers; three or four phones", 36, KvBytes(36, 8, 128), kQwen8},
    {"qwen3-14b", "bartowski/Qwen_Qwen3-14B-GGUF", "qwen3", "14.8B", "Apache-2.0",
     "the most that a drawer of phones should try; five or more", 40, KvBytes(40, 8, 128), kQwen14},
};

}  // namespace

std::span<const CatalogueModel> Catalogue() { return kModels; }

const CatalogueModel* FindInCatalogue(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kModels), std::end(kModels), [&](const CatalogueModel& one) { return one.name == name; });
  return found == std::end(kModels) ? nullptr : found;
}

}  // namespace shoal
