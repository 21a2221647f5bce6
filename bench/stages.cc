// What cutting a model into stages gains and costs, as ratios of runs on pinned cores in one session.
//
// Every figure comes from a child process of its own; the two sides of a ratio alternate, and the median of the
// pairwise ratios is reported. The baseline of single-stream decode is libllama itself, unsplit, on one core.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/test_models.h"
#include "bench.h"
#include "llama.h"
#include "node/node.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

constexpr std::int32_t kPrefillTokens = 2048;
constexpr std::int32_t kDecodeTokens = 96;
constexpr std::int32_t kStreams = 8;
constexpr std::int32_t kContext = 2304;
constexpr int kRoundsMax = 24;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// Of the mean; infinite for less than two values.
double StandardError(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  if (values.size() < 2) return std::numeric_limits<double>::infinity();
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (n - 1) / n);
}

void PinProcess(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    std::fprintf(stderr, "bench: these cores cannot be had; the figures need two cores\n");
    std::_Exit(1);
  }
}

// Runs `work` in a child pinned to `cpus` and returns the number it computed.
double InChild(const std::vector<int>& cpus, const std::function<double()>& work) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) std::abort();
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    PinProcess(cpus);
    const double value = work();
    const ssize_t written = write(pipe_ends[1], &value, sizeof value);
    std::_Exit(written == sizeof value ? 0 : 1);
  }
  close(pipe_ends[1]);
  double value = 0;
  const ssize_t n = read(pipe_ends[0], &value, sizeof value);
  close(pipe_ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (n != sizeof value || status != 0) {
    std::fprintf(stderr, "bench: a run failed\n");
    std::exit(1);
  }
  return value;
}

std::vector<TokenId> RandomPrompt(std::int32_t n, std::int32_t n_vocab, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<TokenId> tokens;
  tokens.reserve(static_cast<std::size_t>(n));
  for (std::int32_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<TokenId>(100 + rng.Below(static_cast<std::uint64_t>(std::min(n_vocab, 40000) - 100))));
  }
  return tokens;
}

// `cpus`: the core of each stage.
std::shared_ptr<Node> OpenNode(const std::string& model, const std::string& stages, const std::vector<int>& cpus,
                               std::int32_t slots, std::int32_t context) {
  NodeOptions options;
  options.model_path = model;
  options.placement.stages = stages;
  options.placement.threads = 1;
  options.placement.slots = slots;
  options.placement.context_tokens = context;
  for (const int cpu : cpus) options.placement.cpus.push_back({cpu});
  return Must(Node::Open(options));
}

std::unique_ptr<GenerationHandle> Start(Node& node, std::vector<TokenId> prompt, std::int32_t tokens_max) {
  GenerateOptions options;
  options.prompt = std::move(prompt);
  options.tokens_max = tokens_max;
  options.sampling.temperature = 0;
  options.sampling.ignore_end = true;
  return Must(node.Generate(std::move(options)));
}

// Reads to the end; returns the time of the first token.
SteadyClock::time_point Drain(GenerationHandle& handle) {
  SteadyClock::time_point first{};
  while (true) {
    const auto event = handle.Next(std::chrono::seconds(60));
    if (!event || event->end == GenerationEnd::kError) {
      std::fprintf(stderr, "bench: %s\n", event ? event->error.message.c_str() : "no token for 60 s");
      std::_Exit(1);
    }
    if (event->token && first == SteadyClock::time_point{}) first = SteadyClock::now();
    if (event->end) return first;
  }
}

// Prompt tokens a second.
double PrefillRate(const std::string& model, const std::string& stages, const std::vector<int>& cpus) {
  const auto node = OpenNode(model, stages, cpus, 1, kContext);
  Drain(*Start(*node, RandomPrompt(256, node->vocabulary().size(), 1), 1));
  const auto start = SteadyClock::now();
  Drain(*Start(*node, RandomPrompt(kPrefillTokens, node->vocabulary().size(), 2), 1));
  return kPrefillTokens / SecondsSince(start);
}

// Tokens a second of all streams together, once all of them decode.
double DecodeRate(const std::string& model, const std::string& stages, const std::vector<int>& cpus,
                  std::int32_t streams) {
  const auto node = OpenNode(model, stages, cpus, streams, 2048);
  Drain(*Start(*node, RandomPrompt(64, node->vocabulary().size(), 1), 8));
  std::vector<std::unique_ptr<GenerationHandle>> handles;
  handles.reserve(static_cast<std::size_t>(streams));
  for (std::int32_t i = 0; i < streams; ++i) {
    handles.push_back(
        Start(*node, RandomPrompt(32, node->vocabulary().size(), 10 + static_cast<std::uint64_t>(i)), kDecodeTokens));
  }
  for (const auto& handle : handles) {
    const auto event = handle->Next(std::chrono::seconds(60));
    if (!event || !event->token) std::_Exit(1);
  }
  const std::uint64_t before = node->Stats().tokens_decoded;
  const auto start = SteadyClock::now();
  Drain(*handles.front());
  const double seconds = SecondsSince(start);
  return static_cast<double>(node->Stats().tokens_decoded - before) / seconds;
}

// The same through libllama's own API, the whole model in one context.
double LibllamaDecodeRate(const std::string& model) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model_params model_params = llama_model_default_params();
  model_params.load_mode = LLAMA_LOAD_MODE_NONE;
  llama_model* loaded = llama_model_load_from_file(model.c_str(), model_params);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 2048;
  params.n_batch = params.n_ubatch = 64;
  params.n_outputs_max = 1;
  params.n_threads = params.n_threads_batch = 1;
  params.swa_full = true;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  llama_context* context = llama_init_from_model(loaded, params);
  const std::int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(loaded));
  std::vector<TokenId> prompt = RandomPrompt(64 + 32, n_vocab, 1);
  const auto decode = [&](TokenId* tokens, std::int32_t n) {
    if (llama_decode(context, llama_batch_get_one(tokens, n)) != 0) std::_Exit(1);
    const float* logits = llama_get_logits_ith(context, -1);
    return static_cast<TokenId>(std::max_element(logits, logits + n_vocab) - logits);
  };
  decode(prompt.data(), 64);
  TokenId token = decode(prompt.data() + 64, 32);
  const auto start = SteadyClock::now();
  for (std::int32_t i = 0; i + 1 < kDecodeTokens; ++i) token = decode(&token, 1);
  const double rate = (kDecodeTokens - 1) / SecondsSince(start);
  llama_free(context);
  llama_model_free(loaded);
  return rate;
}

// Resident anonymous memory of this process.
double ResidentBytes() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("RssAnon:", 0) == 0) return std::atof(line.c_str() + 8) * 1024;
  }
  return 0;
}

// Resident memory that one stage adds, after use, minus (1.05 * (weights + KV)).
double StageMemoryExcess(const std::string& path, LayerRange layers) {
  const auto model = Must(OpenModelFile(path));
  EngineOptions options;
  options.layers = layers;
  options.kv_tokens_max = kContext;
  const double before = ResidentBytes();
  const auto engine = Must(Engine::Open(model, options));
  std::vector<EngineRow> rows;
  rows.reserve(static_cast<std::size_t>(options.batch_rows_max));
  for (std::int32_t i = 0; i < options.batch_rows_max; ++i) rows.push_back({0, i, i == 0});
  std::vector<float> hidden(static_cast<std::size_t>(options.batch_rows_max * engine->n_embd()), 0.01F), out;
  if (!engine->Forward(rows, hidden, out).ok()) std::_Exit(1);
  const EngineMemory memory = engine->memory();
  return ResidentBytes() - before - 1.05 * static_cast<double>(memory.weight_bytes + memory.kv_bytes);
}

// One micro-batch with a row of each of `rows` sequences, each some 100 tokens long.
double RowsMs(const std::shared_ptr<const ModelFile>& model, LayerRange layers, std::int32_t rows) {
  constexpr std::int32_t kRounds = 40, kSkipped = 8;
  EngineOptions options;
  options.layers = layers;
  options.kv_tokens_max = 4096;
  options.sequences_max = rows;
  options.output_rows_max = std::min(rows, 16);
  const auto engine = Must(Engine::Open(model, options));
  std::vector<float> hidden(static_cast<std::size_t>(rows * engine->n_embd()), 0.01F), out;
  double seconds = 0;
  for (std::int32_t round = 0; round < kRounds; ++round) {
    std::vector<EngineRow> batch;
    batch.reserve(static_cast<std::size_t>(rows));
    for (std::int32_t i = 0; i < rows; ++i) batch.push_back({i, round, i < options.output_rows_max});
    const auto start = SteadyClock::now();
    if (!engine->Forward(batch, hidden, out).ok()) std::_Exit(1);
    if (round >= kSkipped) seconds += SecondsSince(start);
  }
  return 1e3 * seconds / (kRounds - kSkipped);
}

class Report {
 public:
  // At least `rounds` pairs, and more until the mean is known to `error_max`, at most kRoundsMax.
  void Ratio(const std::string& name, double bar, bool at_least, int rounds, const std::function<double()>& a,
             const std::function<double()>& b, double error_max = 1) {
    std::vector<double> ratios, as, bs;
    for (int i = 0; i < rounds || (i < kRoundsMax && StandardError(ratios) > error_max); ++i) {
      as.push_back(a());
      bs.push_back(b());
      ratios.push_back(as.back() / bs.back());
    }
    Add(name, Median(ratios), bar, at_least);
    figures_.push_back({{"name", name},
                        {"a_per_s", Median(as)},
                        {"b_per_s", Median(bs)},
                        {"standard_error", StandardError(ratios)},
                        {"ratios", ratios}});
  }

  void Add(const std::string& name, double value, double bar, bool at_least) {
    const bool holds = at_least ? value >= bar : value <= bar;
    checks_.push_back({{"name", name}, {"value", value}, {"bar", bar}, {"holds", holds}});
    std::fprintf(stderr, "%-72s %8.3f  %s %.3f  %s\n", name.c_str(), value, at_least ? ">=" : "<=", bar,
                 holds ? "holds" : "MISSED");
  }

  Json ToJson() const { return {{"bench", "stages"}, {"checks", checks_}, {"figures", figures_}}; }

 private:
  Json checks_ = Json::array(), figures_ = Json::array();
};

void Speed(Report& report, int rounds, const std::string& smollm2, const std::string& gemma3) {
  const auto prefill = [&](const std::string& name, double bar, const std::string& model, const std::string& cut) {
    report.Ratio(
        name, bar, true, rounds,
        [&] {
          return InChild({0, 1}, [&] { return PrefillRate(model, cut, {0, 1}); });
        },
        [&] { return InChild({0}, [&] { return PrefillRate(model, "1", {0}); }); });
  };
  prefill("prefill 2,048 tokens, SmolLM2 0-14,15-29 on 2 cores / 1 core", 1.75, smollm2, "0-14,15-29");
  prefill("prefill 2,048 tokens, Gemma-3 0-8,9-17 on 2 cores / 1 core", 1.85, gemma3, "0-8,9-17");
  const auto decode = [&](const std::string& name, const std::string& model, const std::string& cut) {
    report.Ratio(
        name, 1.7, true, rounds,
        [&] {
          return InChild({0, 1}, [&] { return DecodeRate(model, cut, {0, 1}, kStreams); });
        },
        [&] { return InChild({0}, [&] { return DecodeRate(model, "1", {0}, kStreams); }); });
  };
  decode("decode 8 streams, SmolLM2 0-17,18-29 on 2 cores / 1 core", smollm2, "0-17,18-29");
  decode("decode 8 streams, Gemma-3 0-15,16-17 on 2 cores / 1 core", gemma3, "0-15,16-17");
  const auto single = [&](const std::string& name, const std::string& model) {
    report.Ratio(
        name, 0.97, true, rounds, [&] { return InChild({0}, [&] {
                                          return DecodeRate(model, "3", {0, 0, 0}, 1);
                                        }); },
        [&] { return InChild({0}, [&] { return LibllamaDecodeRate(model); }); }, 0.01);
  };
  single("decode 1 stream, SmolLM2, 3 stages on 1 core / unsplit libllama", smollm2);
  single("decode 1 stream, Gemma-3, 3 stages on 1 core / unsplit libllama", gemma3);
}

void Memory(Report& report, const std::string& smollm2, const std::string& gemma3) {
  const auto check = [&](const std::string& name, const std::string& model, LayerRange layers) {
    const double excess = InChild({0}, [&] { return StageMemoryExcess(model, layers); });
    report.Add("resident MB over 1.05 x (weights + KV), " + name, excess / 1e6, 40, false);
  };
  check("SmolLM2 layers 0-9", smollm2, {0, 10});
  check("SmolLM2 layers 10-19", smollm2, {10, 20});
  check("SmolLM2 layers 20-29", smollm2, {20, 30});
  check("Gemma-3 layers 0-8", gemma3, {0, 9});
  check("Gemma-3 layers 9-17", gemma3, {9, 18});
}

// `--try prefill|decode MODEL CUT`: one ratio of two stages on two cores to one on one, to look for the best cut.
int Try(const std::string& what, const std::string& model, const std::string& cut, int rounds) {
  const auto rate = [&](const std::string& stages, const std::vector<int>& cpus) {
    return what == "prefill" ? PrefillRate(model, stages, cpus) : DecodeRate(model, stages, cpus, kStreams);
  };
  Report report;
  report.Ratio(
      what + " " + cut, 1, true, rounds,
      [&] {
        return InChild({0, 1}, [&] { return rate(cut, {0, 1}); });
      },
      [&] { return InChild({0}, [&] { return rate("1", {0}); }); });
  std::printf("%s\n", report.ToJson().dump(2).c_str());
  return 0;
}

// `--rows MODEL CUT`: milliseconds of one micro-batch of 1, 2, 4, 8, 16 and 64 sequences' rows on each stage, to see
// what a group of decoding answers costs. On the last stage every row (at most 16) has an output.
int Rows(const std::string& path, const std::string& cut) {
  const auto model = Must(OpenModelFile(path));
  const std::vector<LayerRange> ranges = Must(ParseStages(cut, model->info.n_layer));
  Json stages = Json::array();
  for (const LayerRange& range : ranges) {
    Json times;
    for (const std::int32_t rows : {1, 2, 4, 8, 16, 64}) {
      times[std::to_string(rows)] = InChild({0}, [&] { return RowsMs(model, range, rows); });
    }
    stages.push_back({{"first", range.first}, {"last", range.last - 1}, {"ms_by_rows", times}});
    std::fprintf(stderr, "%s\n", stages.back().dump().c_str());
  }
  std::printf("%s\n", Json{{"bench", "stages"}, {"stages", stages}}.dump(2).c_str());
  return 0;
}

int Main(std::vector<std::string> words) {
  std::erase(words, "--json");  // it always is
  SetLogLevel(LogLevel::kError);
  if (words.size() == 3 && words[0] == "--rows") return Rows(words[1], words[2]);
  if (words.size() == 4 && words[0] == "--try" && (words[1] == "prefill" || words[1] == "decode")) {
    return Try(words[1], words[2], words[3], 3);
  }
  int rounds = 5;
  if (words.size() == 2 && words[0] == "--rounds") rounds = std::atoi(words[1].c_str());
  if (rounds < 1 || (!words.empty() && words[0] != "--rounds") || words.size() % 2 != 0) {
    std::fprintf(stderr, "use: [--json] [--rounds N] | --try prefill|decode MODEL CUT | --rows MODEL CUT\n");
    return 2;
  }
  const std::string smollm2 = TestModelPath("smollm2");
  const std::string gemma3 = TestModelPath("gemma3");
  Report report;
  Memory(report, smollm2, gemma3);
  Speed(report, rounds, smollm2, gemma3);
  std::printf("%s\n", report.ToJson().dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main({argv + 1, argv + argc}); }
