// An engine whose threads yield to other programs on the same cores, against one that computes with all of its threads
// always, in turns: beside nothing, beside one busy program and beside one for each core. One row (a token of an
// answer) and 64 (a micro-batch of a prompt). What yielding learns and tries is in its time.
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/test_models.h"
#include "bench.h"
#include "device/cpu_affinity.h"
#include "engine/engine.h"
#include "model/model_info.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

constexpr int kTurns = 5;
constexpr double kTurnS = 3;
constexpr Position kContext = 448;  // positions of a sequence, before it begins anew

// Programs that do nothing but use a core, until this ends.
class BusyPrograms {
 public:
  explicit BusyPrograms(int count) {
    const pid_t bench = ::getpid();
    for (int i = 0; i < count; ++i) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        while (::getppid() == bench) {}
        std::_Exit(0);
      }
      if (pid > 0) pids_.push_back(pid);
    }
  }
  BusyPrograms(const BusyPrograms&) = delete;
  BusyPrograms& operator=(const BusyPrograms&) = delete;
  ~BusyPrograms() {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

 private:
  std::vector<pid_t> pids_;
};

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

int Main(int argc, char** argv) {
  if (argc > 2 || (argc == 2 && std::string(argv[1]) != "--json")) {
    std::fprintf(stderr, "usage: shoal_bench_contention [--json]\n");
    return 2;
  }
  SetLogLevel(LogLevel::kError);
  const int cores = AllowedCpuCount();
  Json checks = Json::array(), figures = Json::array();
  for (const char* name : {"smollm2", "gemma3"}) {
    const auto model = Must(OpenModelFile(TestModelPath(name)));
    for (const int busy : {0, 1, cores}) {
      const BusyPrograms programs(busy);
      for (const std::int32_t rows : {1, 64}) {
        const auto yielding = OpenWhole(model, cores, true), stubborn = OpenWhole(model, cores, false);
        std::vector<double> ratios, yielding_rates, stubborn_rates;
        for (int turn = 0; turn < kTurns; ++turn) {
          yielding_rates.push_back(Rate(*yielding, rows));
          stubborn_rates.push_back(Rate(*stubborn, rows));
          ratios.push_back(yielding_rates.back() / stubborn_rates.back());
        }
        const double bar = busy > 0 && rows == 1 ? 1.2 : 0.97, value = Median(ratios);
        const std::string check = std::string(name) + ", " + std::to_string(rows) + " rows, " + std::to_string(busy) +
                                  " busy programs: yielding / all " + std::to_string(cores) + " threads always";
        checks.push_back({{"name", check}, {"value", value}, {"bar", bar}, {"holds", value >= bar}});
        figures.push_back({{"name", check},
                           {"yielding_rows_per_s", Median(yielding_rates)},
                           {"always_rows_per_s", Median(stubborn_rates)},
                           {"ratios", ratios}});
        std::fprintf(stderr, "%-70s %6.2f  >= %.2f  %s (%.1f, %.1f rows/s)\n", check.c_str(), value, bar,
                     value >= bar ? "holds" : "MISSED", Median(yielding_rates), Median(stubborn_rates));
      }
    }
  }
  std::printf("%s\n", Json{{"bench", "contention"}, {"checks", checks}, {"figures", figures}}.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc, argv); }
