// What faults change about a simulated device, and how long things take on it.
#pragma once

#include "runtime/rng.h"
#include "sim/network.h"

namespace shoal::sim {

struct Hardware {
  double disk_slowness = 1, compute_slowness = 1;
  double load_failures = 0, batch_failures = 0;  // chances
};

inline DurationUs Scaled(Rng& rng, DurationUs base, double slowness) {
  return static_cast<DurationUs>(static_cast<double>(base) * slowness * (0.8 + 0.4 * rng.Uniform()));
}

// Of a stage, or the copy of one, from the disk.
inline DurationUs LoadTime(Rng& rng, const Hardware& hardware) {
  constexpr DurationUs kLoadMinUs = 100 * kMillisecond, kLoadMaxUs = 1500 * kMillisecond;
  const auto range = static_cast<std::uint64_t>(kLoadMaxUs - kLoadMinUs);
  return Scaled(rng, kLoadMinUs + static_cast<DurationUs>(rng.Below(range)), hardware.disk_slowness);
}

}  // namespace shoal::sim
