// Trials take turns, so that a slow moment meets all of them; the best of each counts.
#include "node/kernel_choice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/log.h"
#include "base/program_path.h"
#include "device/command.h"
#include "engine/cpu_kernels.h"
#include "engine/matrix_speed.h"
#include "identity/private_file.h"
#include "node/device_speed.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr std::size_t kBackendsTried = 3;
constexpr std::size_t kTrialsMax = 16;
constexpr std::size_t kFileBytesMax = 64U << 10;
constexpr int kRounds = 3, kThreadRounds = 2;
constexpr std::chrono::milliseconds kFigureTime{150};   // of each figure of a trial
constexpr std::chrono::milliseconds kTrialMax{20'000};  // a slow phone fills the weights first
constexpr double kPromptPasses = 512.0 / kSpeedRows, kAnswerPasses = 128;
constexpr const char* kKleidiAi = "-kleidiai";

std::string PathIn(const std::string& home) { return home + "/kernels.json"; }

std::string Fingerprint(const DeviceProfile& profile) {
  std::vector<int> cpus = profile.UsableCpus();
  std::sort(cpus.begin(), cpus.end());
  std::string text =
      profile.topology.chip + "|" + profile.machine + "|" + CpuListText(cpus) + "|" + GgmlVersion() + "|";
  for (const CpuBackendFile& backend : CpuBackendFiles()) text += " " + backend.variant;
  return text;
}

void Measure(const std::string& quantization, KernelTrial& trial) {
  std::vector<std::string> command{ProgramPath(), kKernelCommand, quantization, std::to_string(trial.threads)};
  if (trial.variant != kBuiltInKernels) {
    command.insert(command.begin(), {"env", std::string(kCpuVariantVariable) + "=" + trial.variant});
  }
  const std::optional<std::string> said = RunCommandFor(command, kTrialMax);
  if (!said) return;
  std::istringstream in(*said);
  double one = 0, rows = 0;
  std::string layout;
  if (!(in >> one >> rows >> layout)) return;
  trial.one_row_bytes_s = std::max(trial.one_row_bytes_s, one);
  trial.rows_bytes_s = std::max(trial.rows_bytes_s, rows);
  trial.layout = layout;
}

// Of the trials of one variant that take at most `seconds`, the one with the fewest threads; else `otherwise`, of it.
std::size_t Fewest(const std::vector<KernelTrial>& trials, std::size_t otherwise, double seconds) {
  std::size_t fewest = otherwise;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    const double takes = RequestTime(trials[i]);
    const bool alike = trials[i].variant == trials[otherwise].variant && std::isfinite(takes) && takes <= seconds;
    if (alike && trials[i].threads < trials[fewest].threads) fewest = i;
  }
  return fewest;
}

std::string Text(const KernelTrial& trial) {
  return trial.variant + " with " + std::to_string(trial.threads) + (trial.threads == 1 ? " thread" : " threads");
}

}  // namespace

double RequestTime(const KernelTrial& trial) {
  if (!(trial.one_row_bytes_s > 0) || !(trial.rows_bytes_s > 0)) return std::numeric_limits<double>::infinity();
  return kPromptPasses / trial.rows_bytes_s + kAnswerPasses / trial.one_row_bytes_s;
}

std::vector<KernelTrial> KernelCandidates(const std::vector<CpuBackendFile>& backends, int cores) {
  std::vector<KernelTrial> trials;
  for (const CpuBackendFile& backend : backends) {
    if (backend.variant.ends_with(kKleidiAi)) continue;
    if (trials.size() >= kBackendsTried) break;
    trials.push_back({backend.variant, cores, 0, 0, ""});
  }
  if (trials.empty()) trials.push_back({kBuiltInKernels, cores, 0, 0, ""});
  const std::size_t plain = trials.size();
  for (std::size_t i = 0; i < plain; ++i) {
    const std::string twin = trials[i].variant + kKleidiAi;
    const bool there = std::any_of(backends.begin(), backends.end(),
                                   [&](const CpuBackendFile& backend) { return backend.variant == twin; });
    if (there) trials.push_back({twin, cores, 0, 0, ""});
  }
  return trials;
}

std::vector<int> OtherThreadCounts(const DeviceProfile& profile, int now) {
  const std::vector<int> usable = profile.UsableCpus();
  const auto most = static_cast<int>(profile.cpu_quota ? SpeedCpus(profile, 0).size() : usable.size());
  std::vector<int> counts;
  const auto add = [&](int count) {
    const bool known = count == now || std::find(counts.begin(), counts.end(), count) != counts.end();
    if (!known && count >= 1 && count <= most && counts.size() < kThreadCountsMax) counts.push_back(count);
  };
  // With more threads than a chip can feed each waits for the others; with slow cores among them all wait for those.
  add(now - 1);
  add(now / 2);
  int up_to = 0;
  for (const CoreGroup& group : profile.topology.groups) {
    up_to += static_cast<int>(std::count_if(group.cpus.begin(), group.cpus.end(), [&](int cpu) {
      return std::find(usable.begin(), usable.end(), cpu) != usable.end();
    }));
    add(up_to);
  }
  return counts;
}

KernelChoice ChooseKernels(std::string quantization, std::vector<KernelTrial> trials) {
  SHOAL_CHECK(!trials.empty());
  KernelChoice choice{std::move(quantization), std::move(trials), 0, ""};
  std::size_t fastest = 0;
  for (std::size_t i = 1; i < choice.trials.size(); ++i) {
    if (RequestTime(choice.trials[i]) < RequestTime(choice.trials[fastest])) fastest = i;
  }
  const double mine = RequestTime(choice.trials[0]);
  const bool gains = fastest != 0 && !(mine / RequestTime(choice.trials[fastest]) < kKernelGainMin);  // or only it ran
  const std::size_t usual = gains ? fastest : 0;
  choice.best = Fewest(choice.trials, usual, RequestTime(choice.trials[usual]) * (gains ? kKernelSame : 1));
  const double gain = mine / RequestTime(choice.trials[gains ? choice.best : fastest]);
  const std::string own = Text(choice.trials[0]) + ", what ggml takes by itself";
  char text[160];
  if (gains) {
    std::snprintf(text, sizeof text, " is %.2f times as fast as ", gain);
    choice.why = Text(choice.chosen()) + (std::isfinite(gain) ? text : " runs, unlike ") + own;
  } else if (choice.best != 0) {
    choice.why = Text(choice.chosen()) + " is as fast as " + own + ", and heats less";
  } else if (fastest == 0) {
    choice.why = own + ", is the fastest";
  } else {
    std::snprintf(text, sizeof text, ", is as fast as the fastest within %.0f %%: ", (gain - 1) * 100 + 0.5);
    choice.why = own + text + Text(choice.trials[fastest]);
  }
  return choice;
}

Result<KernelChoice> MeasureKernels(const std::string& home, const DeviceProfile& profile,
                                    const std::string& quantization) {
  const auto cores = static_cast<int>(SpeedCpus(profile, 0).size());
  std::vector<KernelTrial> trials = KernelCandidates(CpuBackendFiles(), std::max(cores, 1));
  const auto measure = [&](std::size_t from, int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = from; i < trials.size(); ++i) Measure(quantization, trials[i]);
    }
  };
  measure(0, kRounds);
  const KernelTrial best = ChooseKernels(quantization, trials).chosen();
  const std::size_t before = trials.size();
  for (const int threads : OtherThreadCounts(profile, best.threads)) {
    trials.push_back({best.variant, threads, 0, 0, ""});
  }
  measure(before, kThreadRounds);
  if (std::all_of(trials.begin(), trials.end(), [](const KernelTrial& t) { return std::isinf(RequestTime(t)); })) {
    return Error{ErrorCode::kInternal, "no CPU backend could be measured with " + quantization + " weights"};
  }
  KernelChoice choice = ChooseKernels(quantization, std::move(trials));
  Status kept = MakePrivateFolder(home);
  if (kept.ok()) kept = WritePrivateText(PathIn(home), KernelChoiceJson(choice, Fingerprint(profile)));
  if (!kept.ok()) Log(LogLevel::kWarning, "device", kept.error().message);
  return choice;
}

std::optional<KernelChoice> LoadKernelChoice(const std::string& home, const DeviceProfile& profile) {
  const std::string text = ReadPrivateText(PathIn(home), kFileBytesMax);
  return text.empty() ? std::nullopt : ParseKernelChoice(text, Fingerprint(profile));
}

int PrintKernelSpeed(const std::string& quantization, int threads) {
  SpeedTestOptions options;
  options.quantization = quantization;
  options.threads = threads;
  options.time_max = kFigureTime;
  // On the fastest cores, as a stage's threads are.
  std::vector<int> cpus = ReadDeviceProfile(SystemFiles(), nullptr).UsableCpus();
  if (threads > 0 && static_cast<std::size_t>(threads) <= cpus.size()) {
    cpus.resize(static_cast<std::size_t>(threads));
    options.cpus = std::move(cpus);
  }
  const Result<MatrixSpeed> speed = MeasureMatrixSpeed(options);
  if (!speed.ok()) {
    std::fprintf(stderr, "shoal: %s\n", speed.error().message.c_str());
    return 1;
  }
  std::printf("%.6g %.6g %s\n", speed->one_row_bytes_s, speed->rows_bytes_s, speed->layout.c_str());
  return 0;
}

std::string KernelChoiceJson(const KernelChoice& choice, const std::string& fingerprint) {
  Json trials = Json::array();
  for (const KernelTrial& trial : choice.trials) {
    trials.push_back({{"variant", trial.variant},
                      {"threads", trial.threads},
                      {"one_row_bytes_s", trial.one_row_bytes_s},
                      {"rows_bytes_s", trial.rows_bytes_s},
                      {"layout", trial.layout}});
  }
  const Json json{{"version", kVersion}, {"device", fingerprint}, {"quantization", choice.quantization},
                  {"best", choice.best}, {"why", choice.why},     {"trials", trials}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<KernelChoice> ParseKernelChoice(const std::string& text, const std::string& fingerprint) {
  const Json json = Json::parse(text, nullptr, false);
  const auto text_of = [](const Json& from, const char* key) {
    const auto at = from.find(key);
    return at != from.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  const auto number_of = [](const Json& from, const char* key) {
    const auto at = from.find(key);
    return at != from.end() && at->is_number() ? at->get<double>() : -1.0;
  };
  if (!json.is_object() || number_of(json, "version") != kVersion || text_of(json, "device") != fingerprint) {
    return std::nullopt;
  }
  KernelChoice choice;
  choice.quantization = text_of(json, "quantization");
  choice.why = text_of(json, "why");
  const auto trials = json.find("trials");
  for (std::size_t i = 0; trials != json.end() && trials->is_array() && i < std::min(trials->size(), kTrialsMax); ++i) {
    const Json& item = (*trials)[i];
    if (!item.is_object()) return std::nullopt;
    const double threads = number_of(item, "threads");
    if (!(threads >= 1 && threads <= 1024)) return std::nullopt;
    choice.trials.push_back({text_of(item, "variant"), static_cast<int>(threads), number_of(item, "one_row_bytes_s"),
                             number_of(item, "rows_bytes_s"), text_of(item, "layout")});
  }
  const double best = number_of(json, "best");
  if (!(best >= 0 && best < static_cast<double>(choice.trials.size()))) return std::nullopt;
  choice.best = static_cast<std::size_t>(best);
  if (choice.chosen().variant.empty()) return std::nullopt;
  return choice;
}

}  // namespace shoal
