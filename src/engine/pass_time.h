// The clock by which passes are measured on the thread that runs them.
#pragma once

#include <ctime>

namespace shoal {

// What a clock of POSIX says, in seconds.
inline double ClockSeconds(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Seconds since an arbitrary start. `rationed`: of processor time that this thread has had, so that what a control
// group holds it back for is not in it; a pass of several threads counts whole, for they wait for each other awake.
inline double PassTime(bool rationed) { return ClockSeconds(rationed ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC); }

}  // namespace shoal
