// What the environment says.
#pragma once

#include <cstdlib>
#include <string>

namespace shoal {

// The variable's text; empty when it is not set. Not beside setenv.
inline std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace shoal
