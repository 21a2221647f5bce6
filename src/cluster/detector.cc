// Exponentially weighted mean and deviation; the normal distribution's tail by a logistic approximation.
#include "cluster/detector.h"

#include <algorithm>
#include <cmath>

namespace shoal {
namespace {

constexpr double kWeight = 0.1;       // of the newest gap
constexpr double kLearnAtMost = 4.0;  // intervals: one long silence is no jitter

}  // namespace

void Detector::Heard(DurationUs gap_us) {
  const auto interval = static_cast<double>(interval_us_);
  const double late = std::clamp(static_cast<double>(gap_us) - interval, -interval, kLearnAtMost * interval);
  deviation_us_ += kWeight * (std::abs(late - late_us_) - deviation_us_);
  late_us_ += kWeight * (late - late_us_);
}

double Detector::Phi(DurationUs silent_us) const {
  const auto interval = static_cast<double>(interval_us_);
  // A calm link is not trusted to stay calm: half an interval of deviation at least. 1.25: from absolute to standard.
  const double deviation = std::max(1.25 * deviation_us_, interval / 2);
  const double y = (static_cast<double>(silent_us) - interval - std::max(0.0, late_us_)) / deviation;
  const double e = std::exp(-y * (1.5976 + 0.070566 * y * y));
  return y > 20 ? 100.0 : -std::log10(e / (1.0 + e));
}

}  // namespace shoal
