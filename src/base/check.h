// CHECK: our own bugs, always on. Prints the place and the broken condition, then aborts.
#pragma once

namespace shoal {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace shoal

#define SHOAL_CHECK(condition)                              \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::shoal::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
