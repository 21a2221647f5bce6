// The best by ggml's own checks is loaded; which that was is read from where its code lies in memory.
#include "engine/cpu_kernels.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "base/environment.h"
#include "base/log.h"
#include "engine/backend_files.h"
#include "engine/llama_log.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace shoal {
namespace {

std::string& Preferred() {
  static std::string variant;
  return variant;
}

ggml_backend_reg_t CpuRegistry() { return ggml_backend_reg_by_name("CPU"); }

// A function of the CPU backend by name; null if there is none.
template <typename Function>
Function CpuFunction(const char* name) {
  ggml_backend_reg_t registry = CpuRegistry();
  if (registry == nullptr) return nullptr;
  return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(registry, name));
}

// Of no other kind: what a driver does when it is loaded is not this process's risk.
void LoadBackend(const std::string& variant) {
  if (!variant.empty()) {
    const std::string file = BackendFile(variant == "base" ? "cpu" : "cpu-" + variant);
    if (!file.empty()) ggml_backend_load(file.c_str());
    return;
  }
  std::vector<CpuBackendFile> backends = CpuBackendFiles();
  std::stable_partition(backends.begin(), backends.end(),
                        [](const CpuBackendFile& backend) { return backend.variant == Preferred(); });
  for (const CpuBackendFile& backend : backends) {
    if (ggml_backend_load(backend.file.c_str()) != nullptr) return;
  }
}

std::vector<std::string> Features() {
  std::vector<std::string> features;
  const auto get = CpuFunction<ggml_backend_get_features_t>("ggml_backend_get_features");
  if (get == nullptr) return features;
  for (const ggml_backend_feature* feature = get(CpuRegistry()); feature != nullptr && feature->name != nullptr;
       ++feature) {
    const std::string value = feature->value;
    features.push_back(value == "1" ? std::string(feature->name) : std::string(feature->name) + "=" + value);
  }
  return features;
}

Result<CpuKernels> Load() {
  const bool built_in = CpuRegistry() != nullptr;
  if (!built_in) {
    LlamaErrors errors;
    const std::string variant = Environment(kCpuVariantVariable);
    LoadBackend(variant);
    if (CpuRegistry() == nullptr) {
      return Error{ErrorCode::kNotFound,
                   errors.TextOr("no CPU backend " + (variant.empty() ? "" : "'" + variant + "' ") +
                                 "(libggml-cpu*.so) that runs on this CPU; looked in " + BackendFoldersText() + ". " +
                                 kBackendsFolderVariable + " names another folder")};
    }
  }
  CpuKernels kernels;
  kernels.features = Features();
  kernels.variant = "built in";
  Dl_info where{};
  if (!built_in && ::dladdr(CpuRegistry(), &where) != 0 && where.dli_fname != nullptr) {
    kernels.file = where.dli_fname;
    kernels.variant = CpuVariantOfFile(kernels.file);
  }
  Log(LogLevel::kInfo, "engine", "CPU kernels: " + CpuKernelsText(kernels));
  return kernels;
}

const Result<CpuKernels>& Loaded() {
  static const Result<CpuKernels> loaded = Load();
  return loaded;
}

}  // namespace

const Result<CpuKernels>& LoadedCpuKernels() {
  InitLlama();
  return Loaded();
}

std::string LoadedCpuVariant() {
  const Result<CpuKernels>& kernels = LoadedCpuKernels();
  return kernels.ok() ? kernels->variant : std::string();
}

void PreferCpuVariant(const std::string& variant) { Preferred() = variant; }

void PreferSme(int threads) {
  if (!Environment(kSmeVariable).empty()) return;
  ::setenv(kSmeVariable, std::to_string(threads).c_str(), 1);
  if (threads > 0) ::setenv(kSmeThreadsVariable, std::to_string(threads).c_str(), 1);
}

std::string GgmlVersion() { return std::string(ggml_version()) + " " + ggml_commit(); }

void LoadCpuKernelsOnce() { (void)Loaded(); }

std::string CpuKernelsText(const CpuKernels& kernels) {
  std::string text;
  for (const std::string& feature : kernels.features) text += (text.empty() ? "" : " ") + feature;
  return kernels.variant + " (" + text + ")";
}

ggml_threadpool* NewThreadpool(ggml_threadpool_params* params) {
  static const auto make = CpuFunction<decltype(&ggml_threadpool_new)>("ggml_threadpool_new");
  return make == nullptr ? nullptr : make(params);
}

void FreeThreadpool(ggml_threadpool* pool) {
  static const auto free = CpuFunction<decltype(&ggml_threadpool_free)>("ggml_threadpool_free");
  if (free != nullptr) free(pool);
}

void SetBackendThreads(ggml_backend* cpu, int threads, ggml_threadpool* pool) {
  static const auto set_threads = CpuFunction<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads");
  static const auto set_pool =
      CpuFunction<decltype(&ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool");
  if (set_threads != nullptr) set_threads(cpu, threads);
  if (set_pool != nullptr) set_pool(cpu, pool);
}

}  // namespace shoal
