// Trials take turns, so that a slow moment meets all of them; the best of each counts.
#include "node/kernel_choice.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "api/json_values.h"
#include "base/log.h"
#include "base/program_path.h"
#include "cluster/member.h"
#include "device/command.h"
#include "engine/cpu_kernels.h"
#include "engine/matrix_speed.h"
#include "identity/private_file.h"
#include "node/device_speed.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 3;
constexpr std::size_t kBackendsTried = 3;
constexpr std::size_t kTrialsMax = 16;
constexpr int kThreadsMax = 1024;
constexpr std::size_t kFileBytesMax = 256U << 10;
constexpr int kRounds = 3, kThreadRounds = 2, kConfirmRounds = 2;
constexpr std::chrono::milliseconds kFigureTime{150};   // of each figure of a trial
constexpr std::chrono::milliseconds kTrialMax{20'000};  // a slow phone fills the weights first
constexpr double kPromptPasses = 512.0 / kSpeedRows, kAnswerPasses = 128;
constexpr const char* kAdvisedFallback = "Q4_0";
constexpr const char* kKleidiAi = "-kleidiai";
constexpr const char* kSmeVariants = "armv9";  // begin so
constexpr double kGotMin = 0.85;               // of the processor time: below it others computed as well
constexpr int kLowPriority = 10;

std::string PathIn(const std::string& home) { return home + "/kernels.json"; }

std::string Fingerprint(const DeviceProfile& profile) { return KernelsFingerprint(profile, CpuBackendFiles()); }

// The trials of one type, as far as they have been measured.
class Trials {
 public:
  Trials(std::string quantization, const KernelMeasuring& how) : quantization_(std::move(quantization)), how_(how) {}

  std::vector<KernelTrial>& list() { return trials_; }
  bool cancelled() const { return how_.cancelled && how_.cancelled(); }
  // Each of them from `from` on, in turns.
  void Measure(std::size_t from, int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = from; i < trials_.size(); ++i) MeasureOne(trials_[i]);
    }
  }
  void MeasureOne(KernelTrial& trial);

 private:
  const std::string quantization_;
  const KernelMeasuring& how_;
  const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + kKernelTimeMax;
  std::vector<KernelTrial> trials_;
};

void Trials::MeasureOne(KernelTrial& trial) {
  if (cancelled() || std::chrono::steady_clock::now() >= end_) return;
  std::vector<std::string> command{ProgramPath(), kKernelCommand, quantization_, std::to_string(trial.threads),
                                   how_.in_background ? kKernelPriorityLow : kKernelPriorityNormal};
  std::vector<std::string> environment;
  if (trial.variant != kBuiltInKernels) environment.push_back(std::string(kCpuVariantVariable) + "=" + trial.variant);
  if (trial.sme >= 0) environment.push_back(std::string(kSmeVariable) + "=" + std::to_string(trial.sme));
  if (trial.sme > 0) environment.push_back(std::string(kSmeThreadsVariable) + "=" + std::to_string(trial.threads));
  if (!environment.empty()) environment.insert(environment.begin(), "env");
  command.insert(command.begin(), environment.begin(), environment.end());
  const std::optional<std::string> said = RunCommandFor(command, kTrialMax, how_.cancelled);
  if (!said) return;
  std::istringstream in(*said);
  double one = 0, rows = 0, got = 0;
  std::string layout;
  if (!(in >> one >> rows >> layout >> got)) return;
  const bool first = trial.one_row_bytes_s <= 0;
  trial.one_row_bytes_s = std::max(trial.one_row_bytes_s, one);
  trial.rows_bytes_s = std::max(trial.rows_bytes_s, rows);
  trial.layout = layout;
  trial.got = first ? got : std::max(trial.got, got);
}

// 0, which is "did not run", for what no device reaches.
double SpeedIn(const Json& from, const char* key) {
  const double speed = NumberIn(from, key, 0);
  return speed > 0 && speed <= kBytesPerSecondMax ? speed : 0;
}

std::optional<KernelChoice> ReadChoice(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  KernelChoice choice;
  choice.quantization = TextIn(json, "quantization");
  choice.why = TextIn(json, "why");
  const auto trials = json.find("trials");
  for (std::size_t i = 0; trials != json.end() && trials->is_array() && i < std::min(trials->size(), kTrialsMax); ++i) {
    const Json& item = (*trials)[i];
    if (!item.is_object()) return std::nullopt;
    const double threads = NumberIn(item, "threads", -1), sme = NumberIn(item, "sme_threads", -1);
    if (!(threads >= 1 && threads <= kThreadsMax) || !(sme >= -1 && sme <= kThreadsMax)) return std::nullopt;
    choice.trials.push_back({TextIn(item, "variant"), static_cast<int>(threads), SpeedIn(item, "one_row_bytes_s"),
                             SpeedIn(item, "rows_bytes_s"), TextIn(item, "layout"), static_cast<int>(sme),
                             NumberIn(item, "got", -1)});
  }
  const double best = NumberIn(json, "best", -1);
  if (choice.quantization.empty() || !(best >= 0 && best < static_cast<double>(choice.trials.size()))) {
    return std::nullopt;
  }
  choice.best = static_cast<std::size_t>(best);
  if (choice.chosen().variant.empty()) return std::nullopt;
  return choice;
}

// Whether others computed while something was measured, every time. A quota takes time away from all alike.
bool WasDisturbed(const std::vector<KernelTrial>& trials, const DeviceProfile& profile) {
  return !profile.cpu_quota && std::any_of(trials.begin(), trials.end(), [](const KernelTrial& trial) {
    return trial.one_row_bytes_s > 0 && trial.got < kGotMin;
  });
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

}  // namespace

std::string KernelTrialText(const KernelTrial& trial) {
  return trial.variant + " with " + std::to_string(trial.threads) + (trial.threads == 1 ? " thread" : " threads") +
         (trial.sme < 0    ? ""
          : trial.sme == 0 ? ", without SME"
                           : ", with SME");
}

double RequestTime(const KernelTrial& trial) {
  if (!(trial.one_row_bytes_s > 0) || !(trial.rows_bytes_s > 0)) return std::numeric_limits<double>::infinity();
  return kPromptPasses / trial.rows_bytes_s + kAnswerPasses / trial.one_row_bytes_s;
}

std::string KernelsFingerprint(const DeviceProfile& profile, const std::vector<CpuBackendFile>& backends) {
  std::vector<int> cpus = profile.UsableCpus();
  std::sort(cpus.begin(), cpus.end());
  std::string text =
      profile.topology.chip + "|" + profile.machine + "|" + CpuListText(cpus) + "|" + GgmlVersion() + "|";
  for (const CpuBackendFile& backend : backends) text += " " + FileStamp(backend.file);
  return backends.empty() ? text + FileStamp(ProgramPath()) : text;
}

std::vector<KernelTrial> KernelCandidates(const std::vector<CpuBackendFile>& backends, int cores, bool has_sme) {
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
    if (!there) continue;
    const bool chooses = has_sme && twin.starts_with(kSmeVariants);
    trials.push_back({twin, cores, 0, 0, "", chooses ? 0 : -1});
    if (chooses) trials.push_back({twin, cores, 0, 0, "", cores});
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
  const std::string own = KernelTrialText(choice.trials[0]) + ", what ggml takes by itself";
  char text[160];
  if (gains) {
    std::snprintf(text, sizeof text, " is %.2f times as fast as ", gain);
    choice.why = KernelTrialText(choice.chosen()) + (std::isfinite(gain) ? text : " runs, unlike ") + own;
  } else if (choice.best != 0) {
    choice.why = KernelTrialText(choice.chosen()) + " is as fast as " + own + ", and heats less";
  } else if (fastest == 0) {
    choice.why = own + ", is the fastest";
  } else {
    std::snprintf(text, sizeof text, ", is as fast as the fastest within %.0f %%: ", (gain - 1) * 100 + 0.5);
    choice.why = own + text + KernelTrialText(choice.trials[fastest]);
  }
  return choice;
}

Result<KernelChoice> MeasureKernels(const std::string& home, const DeviceProfile& profile,
                                    const std::string& quantization, const KernelMeasuring& how) {
  const auto cores = static_cast<int>(SpeedCpus(profile, 0).size());
  const auto& sets = profile.topology.instruction_sets;
  const bool has_sme = sets && std::find(sets->begin(), sets->end(), "sme") != sets->end();
  Trials trials(quantization, how);
  trials.list() = KernelCandidates(CpuBackendFiles(), std::max(cores, 1), has_sme);
  trials.Measure(0, kRounds);
  const KernelTrial best = ChooseKernels(quantization, trials.list()).chosen();
  const std::size_t before = trials.list().size();
  for (const int threads : OtherThreadCounts(profile, best.threads)) {
    trials.list().push_back({best.variant, threads, 0, 0, "", best.sme > 0 ? threads : best.sme});
  }
  trials.Measure(before, kThreadRounds);
  KernelChoice choice = ChooseKernels(quantization, trials.list());
  // What would replace ggml's own shows it once more, and so does that.
  for (int round = 0; round < kConfirmRounds && choice.best != 0; ++round) {
    trials.MeasureOne(trials.list()[0]);
    trials.MeasureOne(trials.list()[choice.best]);
    choice = ChooseKernels(quantization, trials.list());
  }
  if (trials.cancelled()) return Error{ErrorCode::kCancelled, "the measurement was ended"};
  if (std::isinf(RequestTime(choice.chosen()))) {
    return Error{ErrorCode::kInternal, "no CPU backend could be measured with " + quantization + " weights"};
  }
  if (how.in_background && WasDisturbed(choice.trials, profile)) {
    return Error{ErrorCode::kUnavailable, "something else computed meanwhile"};
  }
  KernelChoices choices = LoadKernelChoices(home, profile);
  std::erase_if(choices, [&](const KernelChoice& one) { return one.quantization == quantization; });
  if (choices.size() >= kKernelTypesMax) choices.erase(choices.begin());
  choices.push_back(choice);
  Status kept = MakePrivateFolder(home);
  if (kept.ok()) kept = WritePrivateText(PathIn(home), KernelChoicesJson(choices, Fingerprint(profile)));
  if (!kept.ok()) Log(LogLevel::kWarning, "device", kept.error().message);
  return choice;
}

KernelChoices LoadKernelChoices(const std::string& home, const DeviceProfile& profile) {
  const std::string text = ReadPrivateText(PathIn(home), kFileBytesMax);
  return text.empty() ? KernelChoices() : ParseKernelChoices(text, Fingerprint(profile));
}

const KernelChoice* ChoiceOf(const KernelChoices& choices, const std::string& quantization) {
  for (const KernelChoice& choice : choices) {
    if (choice.quantization == quantization) return &choice;
  }
  return choices.empty() ? nullptr : &choices.back();
}

bool HasChoiceOf(const KernelChoices& choices, const std::string& quantization) {
  const KernelChoice* const choice = ChoiceOf(choices, quantization);
  return choice != nullptr && choice->quantization == quantization;
}

const KernelTrial* SettingOf(const KernelChoices& choices, const std::string& quantization) {
  if (choices.empty()) return nullptr;
  if (!quantization.empty()) return &ChoiceOf(choices, quantization)->chosen();
  // Of what was chosen for one of the types, that with which all types together take the least of what they would.
  const KernelTrial* least = nullptr;
  double least_time = 0;
  for (const KernelChoice& candidate : choices) {
    double time = 1;
    for (const KernelChoice& choice : choices) {
      double best = std::numeric_limits<double>::infinity();
      for (const KernelTrial& trial : choice.trials) {
        if (trial.variant == candidate.chosen().variant) best = std::min(best, RequestTime(trial));
      }
      time *= best / RequestTime(choice.chosen());
    }
    if (least != nullptr && !(time < least_time)) continue;
    least = &candidate.chosen();
    least_time = time;
  }
  return least;
}

int ThreadsOf(const KernelChoices& choices, const std::string& quantization, const std::string& variant) {
  const KernelChoice* const choice = quantization.empty() ? nullptr : ChoiceOf(choices, quantization);
  if (choice == nullptr || choice->chosen().variant != variant) return 0;
  const int threads = choice->chosen().threads;
  return threads == choice->trials.front().threads ? 0 : threads;
}

std::string WeightsTypeOf(std::string file_type) {
  if (file_type.ends_with("_K_M") || file_type.ends_with("_K_S")) file_type.resize(file_type.size() - 2);
  return file_type;
}

std::string AdvisedWeightsType(const DeviceAdvice& advice) {
  return advice.quantization.empty() ? kAdvisedFallback : WeightsTypeOf(advice.quantization);
}

int PrintKernelSpeed(const std::string& quantization, int threads, const std::string& priority) {
  if (priority == kKernelPriorityLow) (void)::setpriority(PRIO_PROCESS, 0, kLowPriority);
  SpeedTestOptions options;
  options.quantization = quantization;
  options.threads = threads;
  options.time_max = kFigureTime;
  // On the fastest cores, as a stage's threads are.
  std::vector<int> cpus = SpeedCpus(ReadDeviceProfile(SystemFiles(), nullptr), threads);
  if (cpus.size() == static_cast<std::size_t>(threads)) options.cpus = std::move(cpus);
  const Result<MatrixSpeed> speed = MeasureMatrixSpeed(options);
  if (!speed.ok()) {
    std::fprintf(stderr, "shoal: %s\n", speed.error().message.c_str());
    return 1;
  }
  std::printf("%.6g %.6g %s %.3f\n", speed->one_row_bytes_s, speed->rows_bytes_s, speed->layout.c_str(), speed->got);
  return 0;
}

std::string KernelChoicesJson(const KernelChoices& choices, const std::string& fingerprint) {
  Json list = Json::array();
  for (const KernelChoice& choice : choices) {
    Json trials = Json::array();
    for (const KernelTrial& trial : choice.trials) {
      trials.push_back({{"variant", trial.variant},
                        {"threads", trial.threads},
                        {"sme_threads", trial.sme < 0 ? Json(nullptr) : Json(trial.sme)},
                        {"one_row_bytes_s", trial.one_row_bytes_s},
                        {"rows_bytes_s", trial.rows_bytes_s},
                        {"layout", trial.layout},
                        {"got", trial.got}});
    }
    list.push_back({{"quantization", choice.quantization},
                    {"best", choice.best},
                    {"why", choice.why},
                    {"trials", std::move(trials)}});
  }
  const Json json{{"version", kVersion}, {"device", fingerprint}, {"choices", std::move(list)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

KernelChoices ParseKernelChoices(const std::string& text, const std::string& fingerprint) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || NumberIn(json, "version", -1) != kVersion || TextIn(json, "device") != fingerprint)
    return {};
  KernelChoices choices;
  const auto list = json.find("choices");
  for (std::size_t i = 0; list != json.end() && list->is_array() && i < std::min(list->size(), kKernelTypesMax); ++i) {
    std::optional<KernelChoice> choice = ReadChoice((*list)[i]);
    if (choice && !HasChoiceOf(choices, choice->quantization)) choices.push_back(*std::move(choice));
  }
  return choices;
}

}  // namespace shoal
