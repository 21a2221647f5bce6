// Which CPU backend, and how many threads, are fastest on this device: measured, each in a process of its own since a
// process loads one backend, and kept in SHOAL_HOME/kernels.json until chip, cores, ggml or the backends change.
//
// What ggml takes by itself stands, with a thread on each fast core, unless another one is faster by more than
// kKernelGainMin: measurements are noisy. Fewer threads stand where they are no slower: they heat less. A build with
// its kernels built in has threads alone to choose. Knows no models.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/profile.h"
#include "engine/backend_files.h"

namespace shoal {

inline constexpr double kKernelGainMin = 1.05;
inline constexpr double kKernelSame = 1.02;  // within so much of the fastest the fewest threads are taken
inline constexpr const char* kBuiltInKernels = "built in";
// The word of the command line that makes the program such a process: kKernelCommand QUANTIZATION THREADS.
inline constexpr const char* kKernelCommand = "kernel-speed";

struct KernelTrial {
  std::string variant;  // "armv8.6_0", "armv8.6_0-kleidiai"
  int threads = 1;
  double one_row_bytes_s = 0, rows_bytes_s = 0;  // as MatrixSpeed; 0: did not run
  std::string layout;                            // of the weights: "CPU_REPACK", "CPU_KLEIDIAI", "CPU"
};

struct KernelChoice {
  std::string quantization;
  std::vector<KernelTrial> trials;  // the first: what ggml takes by itself, a thread on each fast core
  std::size_t best = 0;
  std::string why;  // for a person

  const KernelTrial& chosen() const { return trials[best]; }
};

// Measures, some ten seconds with everything else at rest, and keeps the result. Blocks.
// Errors: kInternal (none could be measured).
Result<KernelChoice> MeasureKernels(const std::string& home, const DeviceProfile& profile,
                                    const std::string& quantization);
// What was kept for this device and build.
std::optional<KernelChoice> LoadKernelChoice(const std::string& home, const DeviceProfile& profile);
// The process that measures: prints one line. Returns the exit code.
int PrintKernelSpeed(const std::string& quantization, int threads);

// Pure parts, for tests.
// One thread on each of `cores` cores for the best backends, and for those of KleidiAI beside them; for what is built
// in where there are none.
std::vector<KernelTrial> KernelCandidates(const std::vector<CpuBackendFile>& backends, int cores);
// Other numbers of threads than `now`, at most kThreadCountsMax: one fewer, half, the prime cores alone, and all up to
// each slower kind of cores, as long as no quota forbids that.
inline constexpr std::size_t kThreadCountsMax = 4;
std::vector<int> OtherThreadCounts(const DeviceProfile& profile, int now);
// How long a request takes, in seconds a byte of weights: a prompt of 512 tokens, an answer of 128.
double RequestTime(const KernelTrial& trial);
KernelChoice ChooseKernels(std::string quantization, std::vector<KernelTrial> trials);
std::string KernelChoiceJson(const KernelChoice& choice, const std::string& fingerprint);
std::optional<KernelChoice> ParseKernelChoice(const std::string& text, const std::string& fingerprint);

}  // namespace shoal
