// See golden.h.
#include "golden.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

#include "base/test_models.h"
#include "engine/llama_log.h"
#include "llama.h"
#include "sample/draw.h"
#include "wire/messages.h"

namespace shoal::golden {
namespace {

Result<TestModel> OpenTestModel(const std::string& name) {
  TestModel model;
  auto file = OpenModelFile(TestModelPath(name));
  if (!file.ok()) {
    return Error{file.error().code, file.error().message + " (./dev model " + name + " fetches this test model)"};
  }
  model.file = std::move(file).value();
  SHOAL_ASSIGN_OR_RETURN(const auto vocabulary, Vocabulary::Open(model.file));
  std::ifstream in(SHOAL_GOLDEN_TEXT, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (text.empty()) return Error{ErrorCode::kNotFound, std::string("no text in ") + SHOAL_GOLDEN_TEXT};
  SHOAL_ASSIGN_OR_RETURN(model.text, vocabulary->Tokenize(text, true, false));
  return model;
}

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

llama_context_params UnsplitParams(const RunSettings& settings) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(settings.kv_tokens * (settings.kv_shared ? 1 : settings.sequences));
  params.n_batch = params.n_ubatch = static_cast<std::uint32_t>(settings.chunk);
  params.n_seq_max = static_cast<std::uint32_t>(settings.sequences);
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = settings.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = params.type_v = settings.kv_type == KvType::kQ8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
  params.swa_full = true;
  params.kv_unified = settings.kv_shared;
  return params;
}

// One micro-batch of sequence 0: rows [from, to) of `tokens`; which of them have output.
bool IsOutput(const RunSettings& settings, std::size_t row, std::size_t to) {
  return settings.all_rows || row + 1 == to;
}

Status DecodeUnsplit(llama_context* context, const RunSettings& settings, std::size_t from, std::size_t to,
                     Outcome& run) {
  const auto n_vocab = static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context))));
  llama_batch batch = llama_batch_init(static_cast<std::int32_t>(to - from), 0, 1);
  batch.n_tokens = static_cast<std::int32_t>(to - from);
  for (std::size_t i = from; i < to; ++i) {
    batch.token[i - from] = run.tokens[i];
    batch.pos[i - from] = static_cast<llama_pos>(i);
    batch.n_seq_id[i - from] = 1;
    batch.seq_id[i - from][0] = 0;
    batch.logits[i - from] = IsOutput(settings, i, to) ? 1 : 0;
  }
  const int code = llama_decode(context, batch);
  llama_batch_free(batch);
  if (code != 0) return Error{ErrorCode::kInternal, "llama_decode gives " + std::to_string(code)};
  for (std::size_t i = from; i < to; ++i) {
    if (!IsOutput(settings, i, to)) continue;
    const float* logits = llama_get_logits_ith(context, static_cast<std::int32_t>(i - from));
    run.logits.emplace_back(logits, logits + n_vocab);
  }
  return {};
}

}  // namespace

Result<const TestModel*> GetTestModel(const std::string& name) {
  static std::map<std::string, TestModel> models;
  const auto known = models.find(name);
  if (known != models.end()) return &known->second;
  SHOAL_ASSIGN_OR_RETURN(TestModel model, OpenTestModel(name));
  return &models.emplace(name, std::move(model)).first->second;
}

Result<Outcome> RunUnsplit(const TestModel& model, const RunSettings& settings, std::size_t prompt,
                           std::size_t decode) {
  InitLlama();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  const std::unique_ptr<llama_model, Free> loaded(llama_model_load_from_file(model.file->path.c_str(), params));
  if (loaded == nullptr) return Error{ErrorCode::kInternal, "libllama does not load " + model.file->path};
  const std::unique_ptr<llama_context, Free> context(llama_init_from_model(loaded.get(), UnsplitParams(settings)));
  if (context == nullptr) return Error{ErrorCode::kInternal, "libllama makes no context"};

  Outcome run;
  run.tokens.assign(model.text.begin(), model.text.begin() + static_cast<std::ptrdiff_t>(prompt));
  const auto chunk = static_cast<std::size_t>(settings.chunk);
  for (std::size_t from = 0; from < prompt; from += chunk) {
    SHOAL_RETURN_IF_ERROR(DecodeUnsplit(context.get(), settings, from, std::min(from + chunk, prompt), run));
  }
  for (std::size_t i = 0; i < decode; ++i) {
    run.tokens.push_back(static_cast<TokenId>(ArgMax(run.logits.back())));
    SHOAL_RETURN_IF_ERROR(DecodeUnsplit(context.get(), settings, run.tokens.size() - 1, run.tokens.size(), run));
  }
  return run;
}

EngineOptions StageOptions(const RunSettings& settings, LayerRange layers) {
  EngineOptions options;
  options.layers = layers;
  options.kv_tokens_max = settings.kv_tokens;
  options.sequences_max = settings.sequences;
  options.batch_rows_max = settings.chunk;
  options.output_rows_max = settings.chunk;
  options.kv_type = settings.kv_type;
  options.flash_attention = settings.flash_attention;
  options.kv_shared = settings.kv_shared;
  return options;
}

namespace {

// Hidden states as the next stage gets them: in a frame, and out of it again.
Result<std::vector<float>> OverTheWire(std::vector<float> hidden, std::size_t rows, WireType type) {
  BatchMessage batch;
  batch.rows.resize(rows);
  batch.tokens.resize(rows);
  batch.n_embd = static_cast<std::uint32_t>(hidden.size() / rows);
  batch.wire_type = type;
  batch.hidden = std::move(hidden);
  SHOAL_ASSIGN_OR_RETURN(DecodedFrame frame, DecodeFrame(EncodeBatch(batch, {}, 1)));
  return std::move(std::get<BatchFrame>(frame.message).batch.hidden);
}

Status RunBatch(std::vector<std::unique_ptr<Engine>>& engines, const RunSettings& settings, std::size_t from,
                std::size_t to, Outcome& run) {
  std::vector<EngineRow> rows;
  for (std::size_t i = from; i < to; ++i) { rows.push_back({0, static_cast<Position>(i), IsOutput(settings, i, to)}); }
  std::vector<float> hidden, out;
  SHOAL_RETURN_IF_ERROR(engines.front()->Embed({run.tokens.data() + from, to - from}, hidden));
  for (const auto& engine : engines) {
    if (settings.wire && engine != engines.front()) {
      SHOAL_ASSIGN_OR_RETURN(hidden, OverTheWire(std::move(hidden), rows.size(), *settings.wire));
    }
    SHOAL_RETURN_IF_ERROR(engine->Forward(rows, hidden, out));
    hidden.swap(out);
  }
  const auto n_vocab = static_cast<std::size_t>(engines.back()->n_vocab());
  if (hidden.size() % n_vocab != 0) return Error{ErrorCode::kInternal, "logits of a wrong size"};
  for (std::size_t i = 0; i < hidden.size(); i += n_vocab) {
    run.logits.emplace_back(hidden.begin() + static_cast<std::ptrdiff_t>(i),
                            hidden.begin() + static_cast<std::ptrdiff_t>(i + n_vocab));
  }
  return {};
}

}  // namespace

Result<Outcome> RunStages(const TestModel& model, const RunSettings& settings, const std::vector<LayerRange>& stages,
                          const std::vector<TokenId>& tokens, std::size_t prompt) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (const LayerRange& layers : stages) {
    SHOAL_ASSIGN_OR_RETURN(auto engine, Engine::Open(model.file, StageOptions(settings, layers)));
    engines.push_back(std::move(engine));
  }
  Outcome run;
  run.tokens = tokens;
  const auto chunk = static_cast<std::size_t>(settings.chunk);
  for (std::size_t from = 0; from < prompt; from += chunk) {
    SHOAL_RETURN_IF_ERROR(RunBatch(engines, settings, from, std::min(from + chunk, prompt), run));
  }
  for (std::size_t i = prompt; i < tokens.size(); ++i) {
    SHOAL_RETURN_IF_ERROR(RunBatch(engines, settings, i, i + 1, run));
  }
  return run;
}

std::string Difference(const Outcome& expected, const Outcome& actual) {
  if (expected.logits.size() != actual.logits.size()) {
    return std::to_string(actual.logits.size()) + " rows of logits, expected " + std::to_string(expected.logits.size());
  }
  std::size_t first = expected.logits.size();
  double largest = 0;
  for (std::size_t i = expected.logits.size(); i-- > 0;) {
    const auto& a = expected.logits[i];
    const auto& b = actual.logits[i];
    if (a.size() != b.size()) return "rows of different sizes";
    if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) continue;
    first = i;
    for (std::size_t j = 0; j < a.size(); ++j) {
      largest = std::max(largest, std::isfinite(b[j]) ? std::fabs(double{a[j]} - b[j]) : INFINITY);
    }
  }
  if (first == expected.logits.size()) return "";
  return "first in row " + std::to_string(first) + ", at most " + std::to_string(largest);
}

double Perplexity(const Outcome& run) {
  double sum = 0;
  const std::size_t n = std::min(run.logits.size(), run.tokens.size()) - 1;
  for (std::size_t i = 0; i < n; ++i) {
    const auto& logits = run.logits[i];
    const double top = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float logit : logits) total += std::exp(logit - top);
    sum += top + std::log(total) - logits[static_cast<std::size_t>(run.tokens[i + 1])];
  }
  return std::exp(sum / static_cast<double>(n));
}

}  // namespace shoal::golden
