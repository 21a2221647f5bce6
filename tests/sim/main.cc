// ./dev sim: plays many seeded histories, says what was checked and what broke, and how to replay what broke.
//
// Each history runs in one thread; --jobs many run side by side and share nothing.
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "sim/history.h"

namespace shoal::sim {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kSeedsBar = 10'000;
constexpr double kOverlapBar = 0.2;
constexpr double kMinutesBar = 10;

struct Options {
  std::uint64_t seeds = 200, first = 1;
  int nodes = 0, minutes = 10, jobs = 1;
  bool one = false, json = false, strict = false, keep_going = false, calm = false;
  std::string broken;
};

thread_local std::uint64_t t_seed = 0;

// A CHECK that fails ends the program: at least with the seed.
void OnAbort(int) {
  char text[64];
  const int bytes =
      std::snprintf(text, sizeof text, "sim: seed %llu ended in an abort\n", static_cast<unsigned long long>(t_seed));
  std::fwrite(text, 1, static_cast<std::size_t>(bytes), stderr);
  std::signal(SIGABRT, SIG_DFL);
}

std::string ReplayCommand(const Options& options, std::uint64_t seed) {
  std::string text = "./dev sim --seed " + std::to_string(seed) + " --nodes " + std::to_string(options.nodes) +
                     " --minutes " + std::to_string(options.minutes);
  if (!options.broken.empty()) text += " --break " + options.broken;
  if (options.calm) text += " --calm";
  return text;
}

HistoryOptions HistoryOf(const Options& options, std::uint64_t seed) {
  HistoryOptions history;
  history.seed = seed;
  history.nodes = options.nodes;
  history.minutes = options.minutes;
  history.calm = options.calm;
  history.rules.break_epoch_tag = options.broken == "epoch-tag";
  history.rules.break_stale_check = options.broken == "stale-epoch";
  history.rules.entry.break_resume = options.broken == "resume";
  history.rules.copies.break_rewind = options.broken == "copy-rewind";
  history.rules.answering.break_position = options.broken == "event-id";
  history.break_drafts = options.broken == "draft";
  history.rules.answering.break_found = options.broken == "copy-found";
  return history;
}

// What all histories together came to.
struct Totals {
  std::uint64_t seeds = 0, events = 0, asked = 0, complete = 0, tokens = 0, faults = 0, placements = 0, nodes = 0;
  std::uint64_t overlapping = 0, overlapping_seeds = 0, resumed = 0;
  std::uint64_t control_bytes = 0, trace = 0;
  DurationUs virtual_us = 0, node_us = 0, agreed_max_us = 0, faults_min_us = 0;
  std::vector<std::uint64_t> broken = std::vector<std::uint64_t>(kInvariants, 0);
  std::map<std::string, std::uint64_t> errors;
  Recovery recovery;
  DraftStats drafts;
  ComingBack back;
  Json violations = Json::array();

  void Add(const Options& options, std::uint64_t seed, const HistoryResult& result) {
    if (!result.violated) faults_min_us = seeds == 0 ? result.faults_us : std::min(faults_min_us, result.faults_us);
    ++seeds;
    events += result.events;
    asked += result.asked;
    complete += result.complete;
    tokens += result.tokens;
    faults += result.faults;
    overlapping += result.overlapping;
    overlapping_seeds += result.overlapping > 0 ? 1 : 0;
    resumed += result.resumed;
    for (const auto& [text, count] : result.errors) errors[text] += count;
    back += result.coming_back;
    placements += result.placements;
    recovery += result.recovery;
    drafts += result.drafts;
    nodes += static_cast<std::uint64_t>(result.nodes);
    control_bytes += result.control_bytes;
    trace += result.trace;  // the order of the seeds does not matter
    virtual_us += result.virtual_us;
    node_us += result.node_us;
    agreed_max_us = std::max(agreed_max_us, result.agreed_us);
    if (!result.violated) return;
    ++broken[static_cast<std::size_t>(result.invariant)];
    violations.push_back({{"seed", seed},
                          {"nodes", result.nodes},
                          {"invariant", InvariantName(result.invariant)},
                          {"what", result.what},
                          {"replay", ReplayCommand(options, seed)}});
    std::fprintf(stderr, "sim: seed %llu (%d nodes, at %.1f s) breaks \"%s\": %s\n     %s\n",
                 static_cast<unsigned long long>(seed), result.nodes, static_cast<double>(result.virtual_us) / 1e6,
                 std::string(InvariantName(result.invariant)).c_str(), result.what.c_str(),
                 ReplayCommand(options, seed).c_str());
  }
};

Totals Run(const Options& options) {
  Totals totals;
  std::mutex mutex;
  std::atomic<std::uint64_t> next{options.first};
  std::atomic<bool> stop{false};
  const std::uint64_t end = options.first + options.seeds;
  const auto work = [&] {
    for (std::uint64_t seed = next++; seed < end && !stop; seed = next++) {
      t_seed = seed;
      const HistoryResult result = PlayHistory(HistoryOf(options, seed));
      const std::lock_guard lock(mutex);
      totals.Add(options, seed, result);
      if (result.violated && !options.keep_going) stop = true;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < options.jobs; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return totals;
}

double Rounded(double value) { return std::round(value * 1000) / 1000; }

Json ChecksOf(const Totals& totals) {
  Json checks = Json::array();
  const auto check = [&](const std::string& name, double value, double bar, bool holds) {
    checks.push_back({{"name", name}, {"value", value}, {"bar", bar}, {"holds", holds}});
  };
  const double minutes = static_cast<double>(totals.faults_min_us) / 60e6;
  check("seeds run, at least", static_cast<double>(totals.seeds), kSeedsBar, totals.seeds >= kSeedsBar);
  check("virtual minutes of faults of each seed, at least", Rounded(minutes), kMinutesBar, minutes >= kMinutesBar);
  const double overlap =
      static_cast<double>(totals.overlapping_seeds) / static_cast<double>(std::max<std::uint64_t>(1, totals.seeds));
  check("share of seeds with two faults at a time, at least", Rounded(overlap), kOverlapBar, overlap >= kOverlapBar);
  for (int i = 0; i < kInvariants; ++i) {
    const auto count = static_cast<double>(totals.broken[static_cast<std::size_t>(i)]);
    check("violations: " + std::string(InvariantName(static_cast<Invariant>(i))), count, 0, count == 0);
  }
  return checks;
}

// Says which bars were missed.
bool AllHold(const Totals& totals) {
  bool all = true;
  for (const Json& check : ChecksOf(totals)) {
    if (check["holds"].get<bool>()) continue;
    std::fprintf(stderr, "sim: does not hold: %s\n", check.dump().c_str());
    all = false;
  }
  return all;
}

Json Report(const Options& options, const Totals& totals, double wall_s) {
  char trace[32];
  std::snprintf(trace, sizeof trace, "%016llx", static_cast<unsigned long long>(totals.trace));
  const double node_s = std::max(1e-9, static_cast<double>(totals.node_us) / 1e6);
  return {{"bench", "sim"},
          {"seeds", totals.seeds},
          {"first_seed", options.first},
          {"nodes", options.nodes == 0 ? Json("2 to 12") : Json(options.nodes)},
          {"minutes", options.minutes},
          {"violations", totals.violations},
          {"wall_s", Rounded(wall_s)},
          {"virtual_s", Rounded(static_cast<double>(totals.virtual_us) / 1e6)},
          {"events", totals.events},
          {"trace", trace},
          {"faults", totals.faults},
          {"faults_overlapping", totals.overlapping},
          {"placements", totals.placements},
          {"stages_taken_over", totals.recovery.taken_over},
          {"row_layers_recovered", totals.recovery.row_layers_recovered},
          {"row_layers_from_nothing", totals.recovery.row_layers_from_nothing},
          {"copies_taken_over", totals.recovery.copies_taken},
          {"copies_that_knew", totals.recovery.copies_that_knew},
          {"row_layers_spared_by_copies", totals.recovery.row_layers_spared},
          {"drafts", totals.drafts.sent},
          {"drafts_right", totals.drafts.right},
          {"generations", totals.asked},
          {"generations_complete", totals.complete},
          {"generations_resumed", totals.resumed},
          {"generations_ended_by", totals.errors},
          {"entries_lost", totals.back.lost},
          {"entries_lost_gone_on", totals.back.found},
          {"entries_lost_complete", totals.back.complete},
          {"not_gone_on_by", totals.back.not_found_by},
          {"tokens", totals.tokens},
          {"agreed_after_s_max", Rounded(static_cast<double>(totals.agreed_max_us) / 1e6)},
          {"control_bytes_per_node_s", Rounded(static_cast<double>(totals.control_bytes) / node_s)},
          {"checks", ChecksOf(totals)}};
}

void Print(const Options& options, const Totals& totals, double wall_s) {
  const double virtual_h = static_cast<double>(totals.virtual_us) / 3.6e9;
  std::printf("%llu seeds, %.1f virtual hours in %.1f s; %llu events, trace %016llx\n",
              static_cast<unsigned long long>(totals.seeds), virtual_h, wall_s,
              static_cast<unsigned long long>(totals.events), static_cast<unsigned long long>(totals.trace));
  std::printf("%llu faults and wishes (%llu while another fault was there), %llu placements\n",
              static_cast<unsigned long long>(totals.faults), static_cast<unsigned long long>(totals.overlapping),
              static_cast<unsigned long long>(totals.placements));
  std::printf("%llu generations (%llu whole, %llu times resumed), %llu tokens\n",
              static_cast<unsigned long long>(totals.asked), static_cast<unsigned long long>(totals.complete),
              static_cast<unsigned long long>(totals.resumed), static_cast<unsigned long long>(totals.tokens));
  std::printf("%llu answers lost the node that was asked; %llu were gone on with, %llu of them to the end\n",
              static_cast<unsigned long long>(totals.back.lost), static_cast<unsigned long long>(totals.back.found),
              static_cast<unsigned long long>(totals.back.complete));
  std::printf("%llu stages went on in a later epoch; after losses %llu row-layers were run, of %llu from nothing\n",
              static_cast<unsigned long long>(totals.recovery.taken_over),
              static_cast<unsigned long long>(totals.recovery.row_layers_recovered),
              static_cast<unsigned long long>(totals.recovery.row_layers_from_nothing));
  std::printf("%llu rows were computed before their token was known, %llu of right guesses\n",
              static_cast<unsigned long long>(totals.drafts.sent),
              static_cast<unsigned long long>(totals.drafts.right));
  std::printf("%llu copies took over, %llu of them knew something, which spared %llu row-layers\n",
              static_cast<unsigned long long>(totals.recovery.copies_taken),
              static_cast<unsigned long long>(totals.recovery.copies_that_knew),
              static_cast<unsigned long long>(totals.recovery.row_layers_spared));
  std::printf("agreement at the latest %.1f s after the faults; %.0f bytes of control traffic a node and second\n",
              static_cast<double>(totals.agreed_max_us) / 1e6,
              static_cast<double>(totals.control_bytes) / std::max(1.0, static_cast<double>(totals.node_us) / 1e6));
  std::printf("%zu violations%s\n", totals.violations.size(),
              options.broken.empty() ? "" : " (a rule is broken on purpose)");
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app{"Plays seeded histories of a cluster under faults in virtual time."};
  std::uint64_t seed = 0;
  app.add_option("--seeds", options.seeds, "how many")->capture_default_str();
  app.add_option("--first", options.first, "the first of them")->capture_default_str();
  const CLI::Option* one = app.add_option("--seed", seed, "this one only");
  app.add_option("--nodes", options.nodes, "0: 2 to 12, by the seed")->check(CLI::Range(0, 100));
  app.add_option("--minutes", options.minutes, "virtual, under faults")->check(CLI::Range(1, 10'000));
  app.add_option("-j,--jobs", options.jobs, "histories side by side")->check(CLI::Range(1, 256));
  app.add_flag("--json", options.json, "one JSON object on stdout");
  app.add_flag("--keep-going", options.keep_going, "also after a violation");
  app.add_flag("--strict", options.strict,
               "fails also when a check misses its bar: too few seeds, too little at a time");
  app.add_flag("--calm", options.calm, "no faults");
  app.add_option("--break", options.broken, "breaks a rule on purpose: the checks must see it")
      ->check(CLI::IsMember({"epoch-tag", "stale-epoch", "resume", "copy-rewind", "event-id", "copy-found", "draft"}));
  CLI11_PARSE(app, argc, argv);
  if (one->count() > 0) {
    options.first = seed;
    options.seeds = 1;
  }
  std::signal(SIGABRT, OnAbort);
  const auto start = std::chrono::steady_clock::now();
  const Totals totals = Run(options);
  const double wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.json) {
    std::printf("%s\n", Report(options, totals, wall_s).dump(2).c_str());
  } else {
    Print(options, totals, wall_s);
  }
  return totals.violations.empty() && (!options.strict || AllHold(totals)) ? 0 : 1;
}

}  // namespace
}  // namespace shoal::sim

int main(int argc, char** argv) { return shoal::sim::Main(argc, argv); }
