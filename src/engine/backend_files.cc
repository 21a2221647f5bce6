// The first folder that has CPU backends has them all; what ggml calls a backend's score is asked of the library.
#include "engine/backend_files.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <map>
#include <mutex>
#include <set>

#include "base/environment.h"
#include "base/program_path.h"

namespace shoal {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "libggml-";
constexpr const char* kCpuPrefix = "libggml-cpu";
constexpr const char* kNoBackends[] = {"base", "rpc"};  // the library they all share; servers

// 0 when this CPU cannot run it.
int ScoreOf(const std::string& file) {
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return 0;
  auto* const score = reinterpret_cast<int (*)()>(::dlsym(library, "ggml_backend_score"));
  const int value = score == nullptr ? 0 : score();
  ::dlclose(library);
  return value;
}

std::vector<CpuBackendFile> CpuBackendFilesIn(const std::vector<std::string>& folders) {
  std::vector<CpuBackendFile> files;
  for (const std::string& folder : folders) {
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      const std::string file = at->path().string();
      const std::string variant = CpuVariantOfFile(file);
      if (variant.empty()) continue;
      const int score = variant == "base" ? 0 : ScoreOf(file);
      if (score > 0 || variant == "base") files.push_back({variant, file, score});
    }
    if (!files.empty()) break;
  }
  std::sort(files.begin(), files.end(), [](const CpuBackendFile& a, const CpuBackendFile& b) {
    return a.score != b.score ? a.score > b.score : a.variant < b.variant;
  });
  return files;
}

}  // namespace

std::vector<std::string> BackendFolders() {
  if (const std::string given = Environment(kBackendsFolderVariable); !given.empty()) return {given};
  const fs::path program = ProgramPath();
  if (program.empty()) return {};
  return {program.parent_path().string(), (program.parent_path().parent_path() / "lib" / "shoal").string()};
}

std::string BackendFoldersText() {
  std::string text;
  for (const std::string& folder : BackendFolders()) text += (text.empty() ? "" : ", ") + folder;
  return text;
}

std::string BackendFile(const std::string& name) {
  for (const std::string& folder : BackendFolders()) {
    const fs::path file = fs::path(folder) / (kPrefix + name + ".so");
    std::error_code error;
    if (fs::is_regular_file(file, error)) return file.string();
  }
  return "";
}

std::string FileStamp(const std::string& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  if (error) return "";
  const fs::file_time_type changed = fs::last_write_time(file, error);
  if (error) return "";
  // libc++ counts its files' time in 128 bits, which std::to_string does not know.
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(changed.time_since_epoch());
  return file + " " + std::to_string(size) + " " + std::to_string(nanoseconds.count());
}

std::vector<std::string> OtherBackends() {
  std::set<std::string> names;
  for (const std::string& folder : BackendFolders()) {
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      const std::string file = at->path().stem().string();
      if (at->path().extension() != ".so" || !file.starts_with(kPrefix) || file.starts_with(kCpuPrefix)) continue;
      names.insert(file.substr(std::char_traits<char>::length(kPrefix)));
    }
  }
  for (const char* name : kNoBackends) names.erase(name);
  while (names.size() > kOtherBackendsMax) names.erase(std::prev(names.end()));
  return {names.begin(), names.end()};
}

const std::vector<CpuBackendFile>& CpuBackendFiles() {
  static std::mutex mutex;
  static std::map<std::vector<std::string>, std::vector<CpuBackendFile>> known;  // tests name other folders
  const std::vector<std::string> folders = BackendFolders();
  const std::lock_guard lock(mutex);
  const auto found = known.find(folders);
  return found != known.end() ? found->second : known[folders] = CpuBackendFilesIn(folders);
}

std::string CpuVariantOfFile(const std::string& path) {
  const std::string name = fs::path(path).stem().string();
  if (!name.starts_with(kCpuPrefix) || fs::path(path).extension() != ".so") return "";
  const std::string rest = name.substr(std::char_traits<char>::length(kCpuPrefix));
  if (rest.empty()) return "base";
  return rest.size() > 1 && rest.front() == '-' ? rest.substr(1) : "";
}

}  // namespace shoal
