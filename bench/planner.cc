// How good plans are: against trying everything, against a lower bound, against how other systems split; and how fast.
//
// Everything is computed, nothing runs on a model, so the figures do not depend on the machine but for the times, which
// are of the processor. Other
// systems' splits are judged by our cost model (planner/cost_model.h), which none of them was made for: it says what
// their rule would cost here, not how their program performs.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/units.h"
#include "planner/plan.h"
#include "planner/test_instances.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSmallInstances = 2000;
constexpr int kLargeInstances = 1000;
constexpr double kEqual = 1e-9;

// Of processor time: what else the machine does is not the planner's.
double Milliseconds(const std::function<void()>& work) {
  const auto now_ms = [] {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
  };
  const double start = now_ms();
  work();
  return now_ms() - start;
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}

Json Check(const std::string& name, double value, const char* sense, double bar) {
  const bool holds = sense[0] == '<' ? value <= bar : value >= bar;
  return {{"name", name}, {"value", value}, {"bar", std::string(sense) + " " + Json(bar).dump()}, {"holds", holds}};
}

// --- Against trying everything
// ----------------------------------------------------------------------------------------

// Instances of `random` until `wanted` of them fit; `see` gets the result of each that does.
Json AgainstBruteForce(
    const std::string& name, int wanted, const std::function<PlanInput()>& random, Json& checks,
    const std::function<void(const PlanResult&)>& see = [](const PlanResult&) {}) {
  int tried = 0, solved = 0, optimal = 0, agreed = 0;
  std::vector<double> times;
  for (; solved < wanted; ++tried) {
    const PlanInput input = random();
    const BruteForce brute(input);
    std::optional<Result<PlanResult>> result;
    times.push_back(Milliseconds([&] { result.emplace(MakePlan(input)); }));
    agreed += result->ok() == brute.best().has_value() ? 1 : 0;
    if (!brute.best()) continue;
    ++solved;
    if (!result->ok()) continue;
    optimal += (*result)->exact && (*result)->plan.cost <= *brute.best() * (1 + kEqual) ? 1 : 0;
    see(**result);
  }
  checks.push_back(Check(name + "_same_verdict", static_cast<double>(agreed) / tried, ">=", 1));
  checks.push_back(Check(name + "_optimal", static_cast<double>(optimal) / solved, ">=", 1));
  return {{"instances_that_fit", solved}, {"that_do_not", tried - solved},     {"same_verdict", agreed},
          {"optimal", optimal},           {"ms_median", Quantile(times, 0.5)}, {"ms_worst", Quantile(times, 1)}};
}

Json SmallInstances(Json& checks) {
  InstanceRng rng(7);
  return AgainstBruteForce(
      "small", kSmallInstances, [&] { return RandomInstance(rng, InstanceOptions{}); }, checks);
}

// The least energy among plans that are fast enough.
Json EnergyInstances(Json& checks) {
  InstanceRng rng(10);
  std::vector<double> saved;
  Json report = AgainstBruteForce(
      "energy", kSmallInstances / 2, [&] { return RandomEnergyInstance(rng, InstanceOptions{}); }, checks,
      [&](const PlanResult& result) { saved.push_back(1 - result.plan.cost / result.fastest->cost); });
  report["saved_median"] = Quantile(saved, 0.5);
  report["saved_most"] = Quantile(saved, 1);
  return report;
}

// The exact search at its largest: ten devices.
Json TenDevices(Json& checks) {
  InstanceRng rng(8);
  int solved = 0, exact = 0;
  std::vector<double> times;
  for (int i = 0; i < 60; ++i) {
    InstanceOptions options{10, 10, 28, 48, 8e9, 40e9, i % 2 == 0};
    const PlanInput input = RandomInstance(rng, options);
    std::optional<Result<PlanResult>> result;
    const double ms = Milliseconds([&] { result.emplace(MakePlan(input)); });
    if (!result->ok()) continue;
    times.push_back(ms);
    ++solved;
    exact += (*result)->exact ? 1 : 0;
  }
  checks.push_back(Check("ten_devices_exact", static_cast<double>(exact) / std::max(solved, 1), ">=", 1));
  return {{"instances", solved},
          {"proved_best", exact},
          {"ms_median", Quantile(times, 0.5)},
          {"ms_p90", Quantile(times, 0.9)},
          {"ms_worst", Quantile(times, 1)}};
}

// --- Large clusters
// ---------------------------------------------------------------------------------------------------

Json LargeInstances(Json& checks) {
  InstanceRng rng(9);
  Json report = Json::object();
  std::vector<double> gaps, times;
  std::vector<double> by_objective[2];
  while (gaps.size() < kLargeInstances) {
    InstanceOptions options{64, 64, 126, 126, 20e9, 80e9, true};
    const PlanInput input = RandomInstance(rng, options);
    std::optional<Result<PlanResult>> result;
    times.push_back(Milliseconds([&] { result.emplace(MakePlan(input)); }));
    const auto bound = LowerBound(input);
    if (!bound.ok()) continue;  // no plan at all
    if (!result->ok()) {
      gaps.push_back(1e9);
      continue;
    }
    const double gap = (*result)->plan.cost / *bound - 1;
    gaps.push_back(gap);
    by_objective[input.policy.objective == PlanObjective::kLatency ? 0 : 1].push_back(gap);
  }
  checks.push_back(Check("large_gap_median", Quantile(gaps, 0.5), "<=", 0.03));
  checks.push_back(Check("large_gap_worst", Quantile(gaps, 1), "<=", 0.10));
  checks.push_back(Check("large_instances", static_cast<double>(gaps.size()), ">=", kLargeInstances));
  checks.push_back(Check("large_ms_median", Quantile(times, 0.5), "<=", 100));
  checks.push_back(Check("large_ms_worst", Quantile(times, 1), "<=", 100));
  report = {{"instances", gaps.size()},
            {"devices", 64},
            {"layers", 126},
            {"gap_median", Quantile(gaps, 0.5)},
            {"gap_p95", Quantile(gaps, 0.95)},
            {"gap_worst", Quantile(gaps, 1)}};
  report["latency_gap_median"] = Quantile(by_objective[0], 0.5);
  report["latency_gap_worst"] = Quantile(by_objective[0], 1);
  report["throughput_gap_median"] = Quantile(by_objective[1], 0.5);
  report["throughput_gap_worst"] = Quantile(by_objective[1], 1);
  report["ms_median"] = Quantile(times, 0.5);
  report["ms_worst"] = Quantile(times, 1);
  return report;
}

// --- How others split
// -------------------------------------------------------------------------------------------------

// Layers in proportion to `weights`, each device at least one; rounded by largest remainders.
std::vector<PlanStage> Proportional(const PlanInput& input, const std::vector<std::size_t>& order,
                                    const std::vector<double>& weights) {
  const auto layers = static_cast<double>(input.model.layer_bytes.size());
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<PlanStage> stages;
  double until = 0;
  std::int32_t first = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    until += weights[i] / all * layers;
    const bool is_last = i + 1 == order.size();
    const auto last = is_last ? static_cast<std::int32_t>(layers) : static_cast<std::int32_t>(std::lround(until));
    if (last <= first) continue;
    stages.push_back({static_cast<std::int32_t>(order[i]), {first, last}});
    first = last;
  }
  return stages;
}

// exo: a ring of all devices, layers in proportion to memory, the largest first
// (exo/topology/ring_memory_weighted_partitioning_strategy.py of exo 0.0.x).
std::vector<PlanStage> SplitAsExo(const PlanInput& input) {
  std::vector<std::size_t> order(input.devices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return input.devices[a].memory_bytes > input.devices[b].memory_bytes;
  });
  std::vector<double> weights;
  for (const std::size_t d : order) weights.push_back(static_cast<double>(input.devices[d].memory_bytes));
  return Proportional(input, order, weights);
}

// llama.cpp: -ts in proportion to free memory, its default, devices as given on the command line.
std::vector<PlanStage> SplitAsLlama(const PlanInput& input) {
  std::vector<std::size_t> order(input.devices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<double> weights;
  for (const PlanDevice& device : input.devices) weights.push_back(static_cast<double>(device.memory_bytes));
  return Proportional(input, order, weights);
}

// prima.cpp, as its paper (arXiv:2504.08791) describes Halda, where memory holds the whole model so that nothing is
// read from disk and one round is enough: in the given order, the layers that make one token fastest, at least one a
// device; then devices leave as long as the token gets faster without them.
std::vector<PlanStage> SplitAsPrima(const PlanInput& input) {
  const auto deal = [&](const std::vector<std::size_t>& order) -> std::optional<Plan> {
    const auto layers = static_cast<std::int32_t>(input.model.layer_bytes.size());
    std::vector<std::int32_t> counts(order.size(), 1), most(order.size());
    std::int32_t left = layers - static_cast<std::int32_t>(order.size());
    if (left < 0) return std::nullopt;
    const double layer = static_cast<double>(input.model.layer_bytes[0]) +
                         static_cast<double>(input.model.kv_bytes[0]) * input.workload.context_tokens;
    std::vector<std::size_t> fastest(order.size());
    std::iota(fastest.begin(), fastest.end(), std::size_t{0});
    std::stable_sort(fastest.begin(), fastest.end(), [&](std::size_t a, std::size_t b) {
      return input.devices[order[a]].decode_bytes_s > input.devices[order[b]].decode_bytes_s;
    });
    for (std::size_t i = 0; i < order.size(); ++i) {
      double room = static_cast<double>(input.devices[order[i]].memory_bytes) * (1 - input.policy.memory_headroom) -
                    static_cast<double>(input.policy.stage_bytes);
      if (i + 1 == order.size()) room -= static_cast<double>(input.model.output_bytes);
      most[i] = static_cast<std::int32_t>(room / layer);
    }
    for (const std::size_t i : fastest) {
      const std::int32_t more = std::clamp(most[i] - 1, 0, left);
      counts[i] += more;
      left -= more;
    }
    if (left > 0) return std::nullopt;
    std::vector<PlanStage> stages;
    std::int32_t first = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      stages.push_back({static_cast<std::int32_t>(order[i]), {first, first + counts[i]}});
      first += counts[i];
    }
    const auto judged = JudgePlan(input, stages);
    return judged.ok() ? std::optional(*judged) : std::nullopt;
  };
  std::vector<std::size_t> order(input.devices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::optional<Plan> best = deal(order);
  for (bool better = true; better && order.size() > 1;) {
    better = false;
    std::vector<std::size_t> next;
    for (std::size_t i = 0; i < order.size(); ++i) {
      std::vector<std::size_t> fewer = order;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      const auto plan = deal(fewer);
      if (!plan || (best && plan->tokens_s <= best->tokens_s)) continue;
      best = plan;
      next = fewer;
      better = true;
    }
    if (better) order = next;
  }
  return best ? best->stages : std::vector<PlanStage>{};
}

struct KnownDevice {
  const char* name;
  double memory_gib;  // that a model may have
  double gb_s;        // of its memory, as the vendor says
  double prefill;     // share of that in passes of 64 rows: 1 is bound by memory still, a GPU; phones about a tenth
};

// A named cluster: the memory as published, vendor's bandwidth of which 70 % is taken to be reached in decode.
PlanInput MakeCluster(const std::vector<KnownDevice>& devices, double layer_bytes, int layers, double link_ms,
                      double mb_s) {
  PlanInput input;
  for (const KnownDevice& known : devices) {
    PlanDevice device;
    device.name = known.name;
    device.memory_bytes = static_cast<std::uint64_t>(known.memory_gib * static_cast<double>(kGiB));
    device.decode_bytes_s = device.kv_bytes_s = known.gb_s * 0.7e9;
    device.prefill_bytes_s = device.decode_bytes_s * known.prefill;
    device.pass_overhead_s = 3e-4;
    input.devices.push_back(device);
  }
  input.links.assign(devices.size() * devices.size(), {link_ms / 1000, mb_s * 1e6});
  input.model.layer_bytes.assign(static_cast<std::size_t>(layers), static_cast<std::uint64_t>(layer_bytes));
  input.model.kv_bytes.assign(static_cast<std::size_t>(layers), 4096);
  input.model.output_bytes = static_cast<std::uint64_t>(layer_bytes * 1.5);
  input.model.hidden_bytes = 8192;
  for (std::int32_t cut = 1; cut < layers; ++cut) input.model.cuts.push_back(cut);
  input.workload.context_tokens = 2048;
  return input;
}

// Memory: prima.cpp's README, table 1 (available RAM; for the GPUs, VRAM). Phones: what Android leaves of 8, 12 and 16
// GB is estimated. Bandwidth: Apple, NVIDIA; phones by their LPDDR generation and 64 bits. Links: estimates.
std::vector<std::pair<std::string, PlanInput>> KnownClusters() {
  const KnownDevice m1{"Mac M1", 2.4, 68, 0.3}, laptop{"laptop RTX 3070", 8, 448, 0.9};
  const KnownDevice desktop{"desktop RTX 2080 Ti", 11, 616, 0.9}, mate{"Mate 40 Pro", 1.9, 44, 0.1};
  const KnownDevice gen1{"8 Gen 1, 8 GB", 3.5, 51, 0.15}, gen2{"8 Gen 2, 8 GB", 3.5, 67, 0.18};
  const KnownDevice gen3{"8 Gen 3, 12 GB", 6, 77, 0.2}, elite{"8 Elite, 16 GB", 9, 85, 0.25};
  const KnownDevice sd865{"Snapdragon 865, 8 GB", 3.5, 44, 0.08}, pixel4a{"Pixel 4a, 6 GB", 2, 15, 0.05};
  const KnownDevice tensor{"Tensor G3, 8 GB", 3.5, 51, 0.12}, pi5{"Raspberry Pi 5, 8 GB", 6.5, 17, 0.1};
  const double b8 = 4.7e9 / 33.5, b14 = 8.4e9 / 49.5, b30 = 19e9 / 65.5, b3 = 1.9e9 / 29.5;
  return {{"prima.cpp's four devices, 30B", MakeCluster({m1, laptop, desktop, mate}, b30, 64, 3, 40)},
          {"prima.cpp's four devices, 14B", MakeCluster({m1, laptop, desktop, mate}, b14, 48, 3, 40)},
          {"two phones, 8B", MakeCluster({gen2, gen2}, b8, 32, 4, 30)},
          {"four mixed phones, 8B", MakeCluster({sd865, gen1, gen3, tensor}, b8, 32, 4, 30)},
          {"old and new phones, 14B", MakeCluster({pixel4a, sd865, gen2, elite}, b14, 48, 6, 15)},
          {"six phones on weak Wi-Fi, 14B", MakeCluster({pixel4a, sd865, sd865, gen1, tensor, gen2}, b14, 48, 12, 5)},
          {"phone and two boards on a cable, 3B", MakeCluster({pixel4a, pi5, pi5}, b3, 28, 0.5, 110)}};
}

Json AgainstOthers(Json& checks) {
  Json rows = Json::array();
  double worst = 1e9;
  for (auto& [name, input] : KnownClusters()) {
    for (const PlanObjective objective : {PlanObjective::kLatency, PlanObjective::kThroughput}) {
      input.policy.objective = objective;
      const auto ours = MakePlan(input);
      Json row = {{"cluster", name}, {"objective", objective == PlanObjective::kLatency ? "latency" : "throughput"}};
      if (!ours.ok()) {
        row["ours"] = ours.error().message;
        rows.push_back(row);
        continue;
      }
      row["ours"] = {{"devices", ours->plan.stages.size()},
                     {"first_token_s", ours->plan.first_token_s},
                     {"tokens_s", ours->plan.tokens_s},
                     {"tokens_s_many", ours->plan.tokens_s_many}};
      const std::pair<const char*, std::vector<PlanStage>> others[] = {
          {"exo", SplitAsExo(input)}, {"llama.cpp_ts", SplitAsLlama(input)}, {"prima.cpp", SplitAsPrima(input)}};
      for (const auto& [system, stages] : others) {
        const auto judged = JudgePlan(input, stages);
        // How much longer theirs takes; text where it does not fit.
        row[system] = judged.ok() ? Json(judged->cost / ours->plan.cost) : Json(judged.error().message);
        if (judged.ok()) worst = std::min(worst, judged->cost / ours->plan.cost);
      }
      rows.push_back(row);
    }
  }
  checks.push_back(Check("never_worse_than_others", worst, ">=", 1 - kEqual));
  return rows;
}

// All parts, or those named: "small", "energy", "ten_devices", "large", "others".
int Main(const std::vector<std::string>& named) {
  Json checks = Json::array();
  Json report = {{"bench", "planner"}};
  const std::pair<const char*, Json (*)(Json&)> parts[] = {{"small", SmallInstances},
                                                           {"energy", EnergyInstances},
                                                           {"ten_devices", TenDevices},
                                                           {"large", LargeInstances},
                                                           {"others", AgainstOthers}};
  for (const auto& [name, run] : parts) {
    if (named.empty() || std::find(named.begin(), named.end(), name) != named.end()) report[name] = run(checks);
  }
  report["checks"] = checks;
  std::printf("%s\n", report.dump(2).c_str());
  return std::all_of(checks.begin(), checks.end(), [](const Json& check) { return check["holds"].get<bool>(); }) ? 0
                                                                                                                 : 1;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) {
  std::vector<std::string> named;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) != "--json") named.emplace_back(argv[i]);
  }
  return shoal::Main(named);
}
