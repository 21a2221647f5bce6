// Time as an interface: the real clock, and one that a simulation moves.
#pragma once

#include <cstdint>

namespace shoal {

using TimeUs = std::int64_t;  // microseconds since an arbitrary start; never goes back
using DurationUs = std::int64_t;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimeUs Now() const = 0;
};

// The machine's monotonic clock. Any thread.
class RealClock final : public Clock {
 public:
  TimeUs Now() const override;
};

}  // namespace shoal
