// What a micro-batch took, by the timings that came back with it; and medians of a few of them. For what is learned
// from passes: decode_groups.h, drafts.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "wire/messages.h"

namespace shoal {

// Microseconds of computing and of the wire, not of waiting.
struct PassTimes {
  double slowest_stage = 0, all_stages = 0;
};

inline PassTimes PassTimesOf(std::span<const StageTiming> timings) {
  PassTimes times;
  for (const StageTiming& timing : timings) {
    const double us = static_cast<double>(timing.compute_us) + static_cast<double>(timing.wire_us);
    times.slowest_stage = std::max(times.slowest_stage, us);
    times.all_stages += us;
  }
  return times;
}

template <std::size_t N>
double Median(std::array<double, N> values) {
  std::nth_element(values.begin(), values.begin() + N / 2, values.end());
  return values[N / 2];
}

}  // namespace shoal
