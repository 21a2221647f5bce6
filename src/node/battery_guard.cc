// Two readings in a row below the floor; one above it, or a charger, ends it.
#include "node/battery_guard.h"

namespace shoal {

namespace {

std::optional<int> EmptiestPercent(const PowerFacts& facts) {
  std::optional<int> percent;
  for (const Battery& battery : facts.batteries) {
    if (battery.percent && (!percent || *battery.percent < *percent)) percent = battery.percent;
  }
  return percent;
}

std::optional<bool> Charges(const PowerFacts& facts) {
  std::optional<bool> charging = facts.on_mains;
  for (const Battery& battery : facts.batteries) {
    if (battery.charging) charging = charging.value_or(false) || *battery.charging;
  }
  return charging;
}

}  // namespace

bool BatteryGuard::IsLow(const PowerFacts& facts, int floor_percent) {
  const std::optional<int> percent = EmptiestPercent(facts);
  return percent && *percent <= floor_percent && floor_percent > 0 && Charges(facts) == false;
}

bool BatteryGuard::Update(const PowerFacts& facts) {
  percent_ = EmptiestPercent(facts);
  const std::optional<bool> charging = Charges(facts);
  const bool low = IsLow(facts, floor_percent_);
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
