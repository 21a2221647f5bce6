// An engine whose threads yield to other programs on the same cores, against one that computes with all of its threads
// always, in turns: beside nothing, beside one busy program and beside one for each core. One row (a token of an
// answer) and 64 (a micro-batch of a prompt). What yielding learns and tries is in its time.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/test_models.h"
#include "bench.h"
#include "device/cpu_affinity.h"
#include "device/test_busy_programs.h"
#include "engine/engine.h"
#include "model/model_info.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

constexpr int kTurns = 5;
constexpr double kTurnS = 3;
constexpr Position kContext = 448;  // positions of a sequence, before it begins anew

std::unique_ptr<Engine> OpenWhole(const std::shared_ptr<const ModelFile>& model, int threads, bool yields) {
  EngineOptions options;
  options.layers = {0, model->info.n_layer};
  options.kv_tokens_max = kContext + options.batch_rows_max;
  options.sequences_max = 1;
  options.threads = threads;
  options.yields = yields;
  return Must(Engine::Open(model, options));
}

// Rows a second in passes of `rows`, for kTurnS.
double Rate(Engine& engine, std::int32_t rows) {
  std::vector<EngineRow> batch(static_cast<std::size_t>(rows));
  const std::vector<float> hidden(static_cast<std::size_t>(rows) * static_cast<std::size_t>(engine.n_embd()), 0.01F);
  std::vector<float> out;
  double done = 0, seconds = 0;
  const auto start = SteadyClock::now();
  while (seconds < kTurnS) {
    if (engine.Length(0) + rows > kContext) (void)engine.Rewind(0, 0);
    const Position from = engine.Length(0);
    for (std::int32_t i = 0; i < rows; ++i) batch[static_cast<std::size_t>(i)] = {0, from + i, i + 1 == rows};
    if (!engine.Forward(batch, hidden, out).ok()) std::exit(1);
    done += rows;
    seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  }
  return done / seconds;
}

struct Rates {
  std::vector<double> yielding, always, ratios;  // of each turn
};

Rates InTurns(const std::shared_ptr<const ModelFile>& model, int threads, std::int32_t rows) {
  const auto yielding = OpenWhole(model, threads, true), always = OpenWhole(model, threads, false);
  Rates rates;
  for (int turn = 0; turn < kTurns; ++turn) {
    rates.yielding.push_back(Rate(*yielding, rows));
    rates.always.push_back(Rate(*always, rows));
    rates.ratios.push_back(rates.yielding.back() / rates.always.back());
  }
  return rates;
}

class Report {
 public:
  void Add(const std::string& name, double bar, const Rates& rates) {
    const double value = Median(rates.ratios), yielding = Median(rates.yielding), always = Median(rates.always);
    checks_.push_back({{"name", name}, {"value", value}, {"bar", bar}, {"holds", value >= bar}});
    figures_.push_back(
        {{"name", name}, {"yielding_rows_per_s", yielding}, {"always_rows_per_s", always}, {"ratios", rates.ratios}});
    std::fprintf(stderr, "%-70s %6.2f  >= %.2f  %s (%.1f, %.1f rows/s)\n", name.c_str(), value, bar,
                 value >= bar ? "holds" : "MISSED", yielding, always);
  }

  Json ToJson() const { return {{"bench", "contention"}, {"checks", checks_}, {"figures", figures_}}; }

 private:
  Json checks_ = Json::array(), figures_ = Json::array();
};

int Main(int argc, char** argv) {
  if (argc > 2 || (argc == 2 && std::string(argv[1]) != "--json")) {
    std::fprintf(stderr, "usage: shoal_bench_contention [--json]\n");
    return 2;
  }
  SetLogLevel(LogLevel::kError);
  const int cores = AllowedCpuCount();
  Report report;
  for (const char* name : {"smollm2", "gemma3"}) {
    const auto model = Must(OpenModelFile(TestModelPath(name)));
    for (const int busy : {0, 1, cores}) {
      const BusyPrograms programs(busy);
      for (const std::int32_t rows : {1, 64}) {
        report.Add(std::string(name) + ", " + std::to_string(rows) + " rows, " + std::to_string(busy) +
                       " busy programs: yielding / all " + std::to_string(cores) + " threads always",
                   busy > 0 && rows == 1 ? 1.2 : 0.97, InTurns(model, cores, rows));
      }
    }
  }
  std::printf("%s\n", report.ToJson().dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc, argv); }
