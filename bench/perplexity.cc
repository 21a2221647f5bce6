// What half precision between stages costs: perplexity of a long text with f16 on the wire against f32.
//
// The text is the documentation in the pinned llama.cpp source tree, in windows that each begin with nothing. The first
// stage runs once; what it gives goes through the codec of the wire in both precisions, into two sequences of the
// second stage. So the two differ token by token in nothing else, and the standard error of the mean difference is
// small.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/test_models.h"
#include "bench.h"
#include "engine/engine.h"
#include "engine/split_rules.h"
#include "engine/vocabulary.h"
#include "wire/messages.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int32_t kWindow = 1024, kMicroBatch = 64;
constexpr double kChangeMax = 0.001;  // of perplexity
constexpr WireType kWires[] = {WireType::kF32, WireType::kF16};

// Every page of the documentation, in the order of the names.
std::string ReadDocumentation() {
  std::vector<std::filesystem::path> pages;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(SHOAL_LLAMA_CPP_SOURCE "/docs")) {
    if (entry.path().extension() == ".md") pages.push_back(entry.path());
  }
  std::sort(pages.begin(), pages.end());
  std::string text;
  for (const auto& page : pages) {
    std::ifstream in(page);
    text.append(std::istreambuf_iterator<char>(in), {});
  }
  return text;
}

// As the next stage gets it.
std::vector<float> ThroughWire(std::span<const EngineRow> rows, const std::vector<float>& hidden, std::int32_t n_embd,
                               WireType wire) {
  BatchMessage batch;
  batch.batch = 1;
  for (const EngineRow& row : rows) batch.rows.push_back({row.sequence, row.position, row.output, 1});
  batch.n_embd = static_cast<std::uint32_t>(n_embd);
  batch.wire_type = wire;
  batch.hidden = hidden;
  DecodedFrame decoded = Must(DecodeFrame(EncodeBatch(batch, {}, 1)));
  return std::move(std::get<BatchFrame>(decoded.message).batch.hidden);
}

// -log of the probability of `token`.
double Surprise(std::span<const float> logits, TokenId token) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - top);
  return std::log(total) + top - logits[static_cast<std::size_t>(token)];
}

struct Difference {
  double surprise_f32 = 0;  // mean
  double mean = 0, standard_error = 0;
  std::size_t tokens = 0;
};

class Stages {
 public:
  Stages(const std::string& path, std::int32_t threads) {
    const auto model = Must(OpenModelFile(path));
    const std::vector<std::int32_t> cuts = RulesFor(*model).cuts;
    cut_ = cuts[cuts.size() / 2];
    EngineOptions options;
    options.threads = threads;
    options.kv_tokens_max = 2 * kWindow;
    options.sequences_max = 2;
    options.output_rows_max = kMicroBatch;
    options.layers = {0, cut_};
    first_ = Must(Engine::Open(model, options));
    options.layers = {cut_, model->info.n_layer};
    last_ = Must(Engine::Open(model, options));
    tokens_ = Must(Must(Vocabulary::Open(model))->Tokenize(ReadDocumentation(), false, false));
  }

  std::int32_t cut() const { return cut_; }

  Difference Measure(std::size_t tokens) {
    std::vector<double> differences;
    double surprise = 0;
    tokens = std::min(tokens, tokens_.size());
    for (std::size_t window = 0; window + kWindow <= tokens; window += kWindow) {
      for (const SequenceId sequence : {0, 1}) {
        Must(first_->Rewind(sequence, 0));
        Must(last_->Rewind(sequence, 0));
      }
      for (std::int32_t at = 0; at < kWindow; at += kMicroBatch) surprise += Chunk(window, at, differences);
      std::fprintf(stderr, ".");
    }
    std::fprintf(stderr, "\n");
    Difference result;
    result.tokens = differences.size();
    const auto n = static_cast<double>(differences.size());
    double squares = 0;
    for (const double d : differences) result.mean += d / n;
    for (const double d : differences) squares += (d - result.mean) * (d - result.mean);
    result.standard_error = std::sqrt(squares / (n - 1) / n);
    result.surprise_f32 = surprise / n;
    return result;
  }

 private:
  // Appends each token's surprise in f16 less that in f32; returns the sum of the latter.
  double Chunk(std::size_t window, std::int32_t at, std::vector<double>& differences) {
    const std::span text = std::span(tokens_).subspan(window, kWindow);
    std::vector<float> hidden, out, logits[2];
    Must(first_->Embed(text.subspan(static_cast<std::size_t>(at), kMicroBatch), hidden));
    Must(first_->Forward(Rows(0, at), hidden, out));
    for (const SequenceId sequence : {0, 1}) {
      const std::vector<EngineRow> rows = Rows(sequence, at);
      Must(last_->Forward(rows, ThroughWire(rows, out, first_->n_embd(), kWires[sequence]), logits[sequence]));
    }
    const auto n_vocab = static_cast<std::size_t>(last_->n_vocab());
    double surprise = 0;
    for (std::int32_t i = 0; i < kMicroBatch && at + i + 1 < kWindow; ++i) {
      const TokenId next = text[static_cast<std::size_t>(at + i + 1)];
      double of[2];
      for (const int s : {0, 1}) {
        of[s] = Surprise(std::span(logits[s]).subspan(static_cast<std::size_t>(i) * n_vocab, n_vocab), next);
      }
      surprise += of[0];
      differences.push_back(of[1] - of[0]);
    }
    return surprise;
  }

  static std::vector<EngineRow> Rows(SequenceId sequence, std::int32_t from) {
    std::vector<EngineRow> rows;
    for (std::int32_t i = 0; i < kMicroBatch; ++i) rows.push_back({sequence, from + i, true});
    return rows;
  }

  std::int32_t cut_ = 0;
  std::unique_ptr<Engine> first_, last_;
  std::vector<TokenId> tokens_;
};

int Main(int argc, char** argv) {
  std::size_t tokens = 16384;
  std::int32_t threads = 2;
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::string(argv[i]) == "--tokens")
      tokens = static_cast<std::size_t>(std::max(kWindow, std::atoi(argv[i + 1])));
    if (std::string(argv[i]) == "--threads") threads = std::max(1, std::atoi(argv[i + 1]));
  }
  SetLogLevel(LogLevel::kError);
  Json checks = Json::array(), figures = Json::array();
  for (const char* name : {"smollm2", "gemma3"}) {
    Stages stages(TestModelPath(name), threads);
    const Difference d = stages.Measure(tokens);
    const double change = std::expm1(d.mean);
    const std::string check = std::string(name) + ": perplexity with f16 on the wire / f32, less 1 (absolute)";
    checks.push_back({{"name", check},
                      {"value", std::fabs(change)},
                      {"bar", kChangeMax},
                      {"holds", std::fabs(change) <= kChangeMax}});
    figures.push_back({{"name", check},
                       {"cut", stages.cut()},
                       {"tokens", d.tokens},
                       {"perplexity_f32", std::exp(d.surprise_f32)},
                       {"change", change},
                       {"standard_error", d.standard_error}});
    std::fprintf(stderr, "%s\n", figures.back().dump().c_str());
  }
  std::printf("%s\n", Json{{"bench", "perplexity"}, {"checks", checks}, {"figures", figures}}.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc, argv); }
