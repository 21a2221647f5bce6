// The folder is looked through by ggml, which asks each backend's own check; what came of it is read from where its
// code lies in memory.
#include "engine/cpu_kernels.h"

#include <dlfcn.h>

#include <filesystem>

#include "base/environment.h"
#include "base/log.h"
#include "base/program_path.h"
#include "engine/llama_log.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"

namespace shoal {
namespace {

namespace fs = std::filesystem;

ggml_backend_reg_t CpuRegistry() { return ggml_backend_reg_by_name("CPU"); }

// A function of the CPU backend by name; null if there is none.
template <typename Function>
Function CpuFunction(const char* name) {
  ggml_backend_reg_t registry = CpuRegistry();
  if (registry == nullptr) return nullptr;
  return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(registry, name));
}

// Folders that may hold the backends: the one given; else the program's, and lib/shoal where it is installed in bin.
std::vector<fs::path> BackendFolders() {
  if (const std::string given = Environment(kBackendsFolderVariable); !given.empty()) return {given};
  const fs::path program = ProgramPath();
  if (program.empty()) return {};
  return {program.parent_path(), program.parent_path().parent_path() / "lib" / "shoal"};
}

void LoadBackends(const std::vector<fs::path>& folders, const std::string& variant) {
  if (folders.empty()) ggml_backend_load_all();  // ggml may know another way
  for (const fs::path& folder : folders) {
    std::error_code error;
    if (variant.empty()) {
      if (!fs::is_directory(folder, error)) continue;
      ggml_backend_load_all_from_path(folder.c_str());
    } else {
      const fs::path file = folder / (variant == "base" ? "libggml-cpu.so" : "libggml-cpu-" + variant + ".so");
      if (fs::exists(file, error)) ggml_backend_load(file.c_str());
    }
    if (CpuRegistry() != nullptr) return;
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
    const std::vector<fs::path> folders = BackendFolders();
    const std::string variant = Environment(kCpuVariantVariable);
    LoadBackends(folders, variant);
    if (CpuRegistry() == nullptr) {
      std::string looked;
      for (const fs::path& folder : folders) looked += (looked.empty() ? "" : ", ") + folder.string();
      return Error{ErrorCode::kNotFound,
                   errors.TextOr("no CPU backend " + (variant.empty() ? "" : "'" + variant + "' ") +
                                 "(libggml-cpu*.so) that runs on this CPU; looked in " + looked + ". " +
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

void LoadCpuKernelsOnce() { (void)Loaded(); }

std::string CpuKernelsText(const CpuKernels& kernels) {
  std::string text;
  for (const std::string& feature : kernels.features) text += (text.empty() ? "" : " ") + feature;
  return kernels.variant + " (" + text + ")";
}

std::string CpuVariantOfFile(const std::string& path) {
  constexpr const char* kPrefix = "libggml-cpu";
  const std::string name = fs::path(path).stem().string();
  if (!name.starts_with(kPrefix) || fs::path(path).extension() != ".so") return "";
  const std::string rest = name.substr(std::char_traits<char>::length(kPrefix));
  if (rest.empty()) return "base";
  return rest.size() > 1 && rest.front() == '-' ? rest.substr(1) : "";
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
