// Where tests and benchmarks find the real test models. Not for the program itself.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>

namespace shoal {

// "smollm2" or "gemma3": $SHOAL_TEST_<NAME>, else the cache folder. `./dev model <name>` puts it there.
inline std::string TestModelPath(const std::string& name) {
  std::string variable = "SHOAL_TEST_" + name;
  std::transform(variable.begin(), variable.end(), variable.begin(), [](unsigned char c) { return std::toupper(c); });
  if (const char* path = std::getenv(variable.c_str())) return path;
  const char* cache = std::getenv("SHOAL_CACHE_DIR");
  const char* home = std::getenv("HOME");
  const std::string folder = cache != nullptr ? cache : std::string(home != nullptr ? home : "") + "/.cache/shoal";
  return folder + "/models/" + name + ".gguf";
}

}  // namespace shoal
