// Which CPU backend, and how many threads, are fastest on this device: measured, each in a process of its own since a
// process loads one backend, and kept in SHOAL_HOME/kernels.json until chip, cores, ggml or the files of the backends
// change.
//
// What ggml takes by itself stands, with a thread on each fast core, unless another one is faster by more than
// kKernelGainMin: measurements are noisy. Fewer threads stand where they are no slower: they heat less. A build with
// its kernels built in has threads alone to choose. By type of weights; knows no models.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/advice.h"
#include "device/profile.h"
#include "engine/backend_files.h"

namespace shoal {

inline constexpr double kKernelGainMin = 1.05;
inline constexpr double kKernelSame = 1.02;  // within so much of the fastest the fewest threads are taken
inline constexpr const char* kBuiltInKernels = "built in";
// The words of the command line that make the program such a process: kKernelCommand QUANTIZATION THREADS PRIORITY.
inline constexpr const char* kKernelCommand = "kernel-speed";
inline constexpr const char* kKernelPriorityNormal = "normal";
inline constexpr const char* kKernelPriorityLow = "low";
inline constexpr std::size_t kKernelTypesMax = 8;          // kept
inline constexpr std::chrono::seconds kKernelTimeMax{90};  // of one type; then what has been measured decides

struct KernelTrial {
  std::string variant;  // "armv8.6_0", "armv8.6_0-kleidiai"
  int threads = 1;
  double one_row_bytes_s = 0, rows_bytes_s = 0;  // as MatrixSpeed; 0: did not run
  std::string layout;                            // of the weights: "CPU_REPACK", "CPU_KLEIDIAI", "CPU"
  int sme = -1;    // threads that use SME (PreferSme), where KleidiAI and the CPU have it; -1: nothing to choose
  double got = 1;  // as MatrixSpeed, of the run that got the most
};

struct KernelChoice {
  std::string quantization;
  std::vector<KernelTrial> trials;  // the first: what ggml takes by itself, a thread on each fast core
  std::size_t best = 0;
  std::string why;  // for a person

  const KernelTrial& chosen() const { return trials[best]; }
};

using KernelChoices = std::vector<KernelChoice>;  // one a type of weights, the last measured at the end

struct KernelMeasuring {
  bool in_background = false;       // at low priority; refuses a machine that is busy
  std::function<bool()> cancelled;  // ends what is measured now; empty: never
};

// Measures, some ten seconds with everything else at rest, and keeps the result. Blocks, at most kKernelTimeMax and one
// trial more. Errors: kInternal (none could be measured), kCancelled; in the background kUnavailable: the processor was
// not this measurement's alone.
Result<KernelChoice> MeasureKernels(const std::string& home, const DeviceProfile& profile,
                                    const std::string& quantization, const KernelMeasuring& how = {});
// What was kept for this device and build.
KernelChoices LoadKernelChoices(const std::string& home, const DeviceProfile& profile);
// That of a type; where it was not measured, of the last one that was: null without any.
const KernelChoice* ChoiceOf(const KernelChoices& choices, const std::string& quantization);
bool HasChoiceOf(const KernelChoices& choices, const std::string& quantization);
// What a process should compute with: one backend whatever types it meets. "" of `quantization`: several. Null: nothing
// was measured.
const KernelTrial* SettingOf(const KernelChoices& choices, const std::string& quantization);
// Threads of a stage of such weights ("": of any) where `variant` computes; 0: one on each fast core.
int ThreadsOf(const KernelChoices& choices, const std::string& quantization, const std::string& variant);
// ggml's name of what most of a file is made of: "Q4_K_M" -> "Q4_K".
std::string WeightsTypeOf(std::string file_type);
// That of the weights that a device's owner is told to take.
std::string AdvisedWeightsType(const DeviceAdvice& advice);
// The process that measures: prints one line. Returns the exit code.
int PrintKernelSpeed(const std::string& quantization, int threads, const std::string& priority);
std::string KernelTrialText(const KernelTrial& trial);  // "armv9.2_2-kleidiai with 2 threads, SME"

// What a measurement is of: the chip, its cores, ggml and the files that have the kernels, by size and time of change:
// another compiler, other flags or a newer KleidiAI leave ggml's version as it is. Without backends, of the program.
std::string KernelsFingerprint(const DeviceProfile& profile, const std::vector<CpuBackendFile>& backends);

// Pure parts, for tests.
// One thread on each of `cores` cores for the best backends, and for those of KleidiAI beside them, with SME and
// without where the CPU has it; for what is built in where there are none.
std::vector<KernelTrial> KernelCandidates(const std::vector<CpuBackendFile>& backends, int cores, bool has_sme);
// Other numbers of threads than `now`, at most kThreadCountsMax: one fewer, half, the prime cores alone, and all up to
// each slower kind of cores, as long as no quota forbids that.
inline constexpr std::size_t kThreadCountsMax = 4;
std::vector<int> OtherThreadCounts(const DeviceProfile& profile, int now);
// How long a request takes, in seconds a byte of weights: a prompt of 512 tokens, an answer of 128.
double RequestTime(const KernelTrial& trial);
KernelChoice ChooseKernels(std::string quantization, std::vector<KernelTrial> trials);
// Text of kernels.json; nothing for what is not such a text, or has another fingerprint.
std::string KernelChoicesJson(const KernelChoices& choices, const std::string& fingerprint);
KernelChoices ParseKernelChoices(const std::string& text, const std::string& fingerprint);

}  // namespace shoal
