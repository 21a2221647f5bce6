// One reference run, many sharded runs with the same batch shapes. See arch_variant.h.
#include "arch_variant.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "engine/engine.h"
#include "engine/llama_log.h"
#include "engine/llama_shard.h"

namespace shoal::golden {
namespace {

constexpr std::int32_t kPrefill = 48, kDecode = 8;  // the models' sliding window is 32
constexpr std::uint32_t kTokenSeed = 5;
constexpr std::int32_t kTokensBelow = 128;  // the smallest vocabulary; some graphs limit input tokens below n_vocab

EngineOptions Options(LayerRange layers) {
  EngineOptions options;
  options.layers = layers;
  options.kv_tokens_max = 64;
  options.sequences_max = 1;
  options.batch_rows_max = kPrefill;
  options.output_rows_max = 1;
  options.flash_attention = false;
  return options;
}

// The batches of a run: positions [first, first + tokens.size()), the last row has logits.
struct Step {
  std::int32_t first;
  std::vector<TokenId> tokens;
};

std::vector<Step> Steps(std::int32_t n_vocab) {
  std::mt19937 random(kTokenSeed);
  const auto draw = [&] {
    return static_cast<TokenId>(random() % static_cast<std::uint32_t>(std::min(n_vocab, kTokensBelow)));
  };
  std::vector<Step> steps{{0, {}}};
  for (std::int32_t i = 0; i < kPrefill; ++i) steps[0].tokens.push_back(draw());
  for (std::int32_t i = 0; i < kDecode; ++i) steps.push_back({kPrefill + i, {draw()}});
  return steps;
}

using Logits = std::vector<std::vector<float>>;  // [steps][n_vocab]

// The unsplit model: loaded from its file by name, fed with tokens.
Result<Logits> RunReference(const ModelFile& file, const std::vector<Step>& steps) {
  InitLlama();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  const LlamaModelPtr model(llama_model_load_from_file(file.path.c_str(), params));
  if (model == nullptr) return Error{ErrorCode::kUnsupported, "libllama does not load it"};
  SHOAL_ASSIGN_OR_RETURN(const LlamaContextPtr context,
                         MakeLlamaContext(model.get(), LlamaContextParams(Options({0, file.info.n_layer}), true)));
  const std::int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
  Logits all;
  for (const Step& step : steps) {
    const auto n = static_cast<std::int32_t>(step.tokens.size());
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (std::int32_t i = 0; i < n; ++i) {
      batch.token[i] = step.tokens[static_cast<std::size_t>(i)];
      batch.pos[i] = step.first + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = i + 1 == n ? 1 : 0;
    }
    const int code = llama_decode(context.get(), batch);
    llama_batch_free(batch);
    if (code != 0) return Error{ErrorCode::kUnsupported, "libllama does not run it: code " + std::to_string(code)};
    const float* logits = llama_get_logits_ith(context.get(), -1);
    if (logits == nullptr) return Error{ErrorCode::kUnsupported, "libllama gives no logits"};
    all.emplace_back(logits, logits + n_vocab);
  }
  for (const std::vector<float>& logits : all) {
    const auto [low, high] = std::minmax_element(logits.begin(), logits.end());
    const bool finite = std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); });
    if (!finite || !(*low < *high)) return Error{ErrorCode::kUnsupported, "the unsplit model's logits say nothing"};
  }
  if (all.front() == all.back()) return Error{ErrorCode::kUnsupported, "the unsplit model's logits never change"};
  return all;
}

Result<Logits> RunStages(const std::shared_ptr<const ModelFile>& file, const std::vector<LayerRange>& stages,
                         const std::vector<Step>& steps) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (const LayerRange& layers : stages) {
    SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Open(file, Options(layers)));
    engines.push_back(std::move(engine));
  }
  Logits all;
  for (const Step& step : steps) {
    std::vector<EngineRow> rows;
    for (std::size_t i = 0; i < step.tokens.size(); ++i) {
      rows.push_back({0, step.first + static_cast<Position>(i), i + 1 == step.tokens.size()});
    }
    std::vector<float> hidden, out;
    SHOAL_RETURN_IF_ERROR(engines.front()->Embed(step.tokens, hidden));
    for (const auto& engine : engines) {
      SHOAL_RETURN_IF_ERROR(engine->Forward(rows, hidden, out));
      std::swap(hidden, out);
    }
    all.push_back(std::move(hidden));
  }
  return all;
}

// Empty if equal to the bit, else how far apart.
std::string Difference(const Logits& expected, const Logits& actual) {
  double largest = 0, magnitude = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].size() != actual[i].size()) return "a different number of logits";
    for (std::size_t j = 0; j < expected[i].size(); ++j) {
      if (!std::isfinite(actual[i][j])) return "logits that are not finite";
      largest = std::max<double>(largest, std::fabs(expected[i][j] - actual[i][j]));
      magnitude = std::max<double>(magnitude, std::fabs(expected[i][j]));
    }
  }
  if (largest == 0) return {};
  char text[64];
  std::snprintf(text, sizeof text, "a difference of %.1e of %.1e", largest, magnitude);
  return text;
}

std::string Ranges(const std::vector<std::int32_t>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t end = i;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(numbers[i]);
    if (end > i) text.append("-").append(std::to_string(numbers[end]));
    i = end + 1;
  }
  return text;
}

std::string Name(const std::vector<LayerRange>& stages) {
  if (stages.size() == 1) return "as one stage";
  std::string text = "cut at";
  for (std::size_t i = 1; i < stages.size(); ++i)
    text.append(i > 1 ? "+" : " ").append(std::to_string(stages[i].first));
  return text;
}

}  // namespace

Result<VariantReport> ReadVariant(const std::string& path) {
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelFile> file, OpenModelFile(path));
  const SplitRules rules = RulesFor(*file);
  return VariantReport{rules.splittable, false, Ranges(rules.cuts), rules.reason};
}

Result<VariantReport> CompareVariant(const std::string& path) {
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelFile> file, OpenModelFile(path));
  const SplitRules rules = RulesFor(*file);
  VariantReport report{rules.splittable, true, Ranges(rules.cuts), rules.reason};
  const std::int32_t n_layer = file->info.n_layer;
  const std::vector<Step> steps = Steps(file->info.n_vocab);
  SHOAL_ASSIGN_OR_RETURN(const Logits expected, RunReference(*file, steps));

  std::vector<std::vector<LayerRange>> runs{{{0, n_layer}}};
  for (const std::int32_t cut : rules.cuts) runs.push_back({{0, cut}, {cut, n_layer}});
  if (auto three = BalancedStages(*file, 3); three.ok()) runs.push_back(*three);
  for (const std::vector<LayerRange>& stages : runs) {
    const Result<Logits> actual = RunStages(file, stages, steps);
    const std::string problem = actual.ok() ? Difference(expected, *actual) : actual.error().message;
    if (problem.empty()) continue;
    report.exact = false;
    report.note += (report.note.empty() ? "" : "; ") + Name(stages) + ": " + problem;
  }
  return report;
}

}  // namespace shoal::golden
