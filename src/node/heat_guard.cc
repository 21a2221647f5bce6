// One clock, `since_`, for both ways: whatever breaks the stretch that would change the answer sets it back.
#include "node/heat_guard.h"

#include <cmath>
#include <utility>

namespace shoal {

bool HeatGuard::Update(TimeUs now, const HeatReading& heat, double busy_s) {
  const DurationUs passed = now - std::exchange(last_, now);
  const double busy = busy_s - std::exchange(last_busy_s_, busy_s);  // negative where a stage ended
  const bool rests = busy <= kRestingShare * static_cast<double>(passed) / 1e6;
  if (passed > kGapMaxUs) since_ = 0;
  if (!reason_.empty()) {
    const bool cool = !heat.headroom || *heat.headroom >= kCooler;
    if (!cool) since_ = 0;
    if (cool && since_ == 0) since_ = now;
    if (!cool || now - since_ < kCoolUs) return false;
    since_ = 0;
    reason_.clear();
    return true;
  }
  if (heat.headroom && *heat.headroom > 0) was_below_ = true;
  if (!heat.headroom || *heat.headroom > 0 || !was_below_ || !rests) {
    since_ = 0;
    return false;
  }
  if (since_ == 0 || *heat.headroom > first_headroom_ + kCooling) {
    since_ = now;
    first_headroom_ = *heat.headroom;
  }
  if (now - since_ < kHotUs) return false;
  since_ = 0;
  reason_ = "it stays hot although it rests: " + std::to_string(std::lround(heat.celsius.value_or(0))) + " degrees";
  return true;
}

}  // namespace shoal
