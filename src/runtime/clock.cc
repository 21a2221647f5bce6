// The real clock. Knows nothing of the time of day.
#include "runtime/clock.h"

#include <chrono>

namespace shoal {

TimeUs RealClock::Now() const {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

}  // namespace shoal
