// The clock by which passes are measured on the thread that runs them.
#pragma once

#include <ctime>

namespace shoal {

// Seconds since an arbitrary start. `rationed`: of processor time that this thread has had, so that what a control
// group holds it back for is not in it; a pass of several threads counts whole, for they wait for each other awake.
inline double PassTime(bool rationed) {
  timespec now{};
  ::clock_gettime(rationed ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace shoal
