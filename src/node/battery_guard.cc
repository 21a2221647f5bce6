// Two readings in a row below the floor; one above it, or a charger, ends it.
#include "node/battery_guard.h"

namespace shoal {

bool BatteryGuard::Update(const PowerFacts& facts) {
  percent_.reset();
  std::optional<bool> charging = facts.on_mains;
  for (const Battery& battery : facts.batteries) {
    if (battery.percent && (!percent_ || *battery.percent < *percent_)) percent_ = battery.percent;
    if (battery.charging) charging = charging.value_or(false) || *battery.charging;
  }
  const bool low = percent_ && *percent_ <= floor_percent_ && floor_percent_ > 0 && charging == false;
  const bool fine = charging == true || (percent_ && *percent_ >= floor_percent_ + kAbovePercent);
  low_ = low ? low_ + 1 : 0;
  const bool was = !reason_.empty();
  if (!was && low_ >= kReadings) {
    reason_ = "its battery is at " + std::to_string(*percent_) + " % and not charging";
    return true;
  }
  if (was && fine) {
    reason_.clear();
    return true;
  }
  return false;
}

}  // namespace shoal
