// Which build of ggml's CPU kernels runs here, and ggml's CPU functions that only that build has.
//
// A portable build (SHOAL_CPU_VARIANTS) has one backend a kind of CPU in files beside the program, and the best that
// this CPU can run is loaded once a process; any other build has one, linked in. Both are used the same way.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/backend_files.h"

struct ggml_threadpool;
struct ggml_threadpool_params;
struct ggml_backend;

namespace shoal {

inline constexpr const char* kCpuVariantVariable = "SHOAL_CPU_VARIANT";  // instead of the best: "armv8.2_2"

// Before they are loaded: takes this one, if it is there and this CPU can run it; kCpuVariantVariable has the last
// word. Later it does nothing. Not beside anything else of this module.
void PreferCpuVariant(const std::string& variant);

// For backends with Arm's KleidiAI, on a CPU with SME: that many threads, all of a stage's, use its SME units; 0: none.
// Left to itself ggml lets some use them and others not, and keeps the weights twice for that. The environment's own
// kSmeVariable has the last word. As PreferCpuVariant, and not beside other threads.
inline constexpr const char* kSmeVariable = "GGML_KLEIDIAI_SME";  // ggml's names
inline constexpr const char* kSmeThreadsVariable = "GGML_TOTAL_THREADS";
void PreferSme(int threads);

std::string GgmlVersion();  // and its commit; loads nothing

struct CpuKernels {
  std::string variant;                // "armv8.6_0"; "base" runs on every CPU; "built in"
  std::string file;                   // that was loaded; empty: built in
  std::vector<std::string> features;  // as ggml names what was compiled in: "NEON", "MATMUL_INT8", "SVE_CNT=16"
};

// Loads them if that has not been done; InitLlama does it too. Any thread; the first call may take some tens of
// milliseconds. Errors: kNotFound (no backend beside the program that this CPU can run, or not the one asked for).
const Result<CpuKernels>& LoadedCpuKernels();
std::string LoadedCpuVariant();  // of the same; empty where there are none
void LoadCpuKernelsOnce();       // for InitLlama alone

// The same for people and logs: "armv8.6_0 (NEON DOTPROD MATMUL_INT8)".
std::string CpuKernelsText(const CpuKernels& kernels);

// ggml's own, of the kernels that are loaded. Null where they are not.
ggml_threadpool* NewThreadpool(ggml_threadpool_params* params);
void FreeThreadpool(ggml_threadpool* pool);
void SetBackendThreads(ggml_backend* cpu, int threads, ggml_threadpool* pool);

}  // namespace shoal
