// Linux: /proc/self/exe; where /proc is not mounted, the path that the kernel was given (getauxval(3), AT_EXECFN).
#include "base/program_path.h"

#include <filesystem>
#include <system_error>

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <mach-o/dyld.h>

#include <cstdint>
#endif

namespace shoal {
namespace {

namespace fs = std::filesystem;

std::string Canonical(const char* path) {
  std::error_code error;
  const fs::path whole = fs::canonical(path, error);
  return error ? "" : whole.string();
}

}  // namespace

std::string ProgramPath() {
#if defined(__linux__)
  if (std::string path = Canonical("/proc/self/exe"); !path.empty()) return path;
  const auto* given = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  return given == nullptr ? "" : Canonical(given);
#elif defined(__APPLE__)
  char path[4096];
  std::uint32_t size = sizeof path;
  return _NSGetExecutablePath(path, &size) == 0 ? Canonical(path) : "";
#else
  return "";
#endif
}

}  // namespace shoal
