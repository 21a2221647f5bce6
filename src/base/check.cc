// The one place that ends the process on a bug of ours.
#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace shoal {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "shoal: bug at %s:%d: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace shoal
