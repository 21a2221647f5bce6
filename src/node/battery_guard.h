// Whether a device is so low on battery that it should give its layers to others: below a floor and not charging.
//
// It takes stages again when it is charged, or well above the floor. What is not known never drains a device. Pure.
#pragma once

#include <optional>
#include <string>

#include "device/power_facts.h"

namespace shoal {

class BatteryGuard {
 public:
  static constexpr int kFloorPercent = 15;  // the default
  static constexpr int kAbovePercent = 5;   // above the floor: enough, also without a charger
  static constexpr int kReadings = 2;       // in a row that say so

  // `floor_percent`: 0 never drains.
  explicit BatteryGuard(int floor_percent) : floor_percent_(floor_percent) {}

  // Below the floor and not charging, by one reading.
  static bool IsLow(const PowerFacts& facts, int floor_percent);

  // True when reason() changed.
  bool Update(const PowerFacts& facts);

  // One more reading like the last would change reason(): look again soon.
  bool in_doubt() const { return reason_.empty() && low_ > 0; }
  // Why this device should rest, for people; empty: it need not.
  const std::string& reason() const { return reason_; }
  // Of the battery that is the emptiest; empty: none, or unknown.
  std::optional<int> percent() const { return percent_; }

 private:
  const int floor_percent_;
  int low_ = 0;
  std::string reason_;
  std::optional<int> percent_;
};

}  // namespace shoal
