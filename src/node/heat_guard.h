// Whether a device stays so hot that it should give its layers to others: at or beyond a trip point of its system for
// half a minute in which it computed little, and not cooling.
//
// One that works hard at a trip point is in its system's hands, and in Pacer's: many are held right there. It takes
// stages again when it is clearly cooler. What is not known never drains a device, nor does a trip point that it was
// never seen below, which says nothing. Pure.
#pragma once

#include <optional>
#include <string>

#include "device/heat_sensors.h"
#include "runtime/clock.h"

namespace shoal {

class HeatGuard {
 public:
  static constexpr DurationUs kHotUs = 30'000'000;     // beyond the trip point at rest, before it drains
  static constexpr DurationUs kCoolUs = 10'000'000;    // cooler, before that ends
  static constexpr DurationUs kGapMaxUs = 60'000'000;  // between readings: after a longer one nothing is compared
  static constexpr double kCooler = 5;                 // degrees below the trip point: clearly cooler
  static constexpr double kCooling = 0.5;              // degrees less than at first: it cools, so it is left alone
  static constexpr double kRestingShare = 0.25;        // of the time in which it computes, at most: it rests

  // `busy_s`: seconds that all stages here computed since start. True when reason() changed.
  bool Update(TimeUs now, const HeatReading& heat, double busy_s);

  // It may drain, or may be ready to come back: look again soon.
  bool in_doubt() const { return since_ > 0; }
  // Why this device should take no stages, for people; empty: it may.
  const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
  TimeUs last_ = 0, since_ = 0;  // `since_`: hot at rest; or cooler, while it drains; 0: neither
  double first_headroom_ = 0, last_busy_s_ = 0;
  bool was_below_ = false;
};

}  // namespace shoal
