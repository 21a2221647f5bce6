// How much a device rests between micro-batches so that its system does not slow it down for its heat.
//
// A limiter that lowers the frequency by fine steps is hard to beat: rests only waste what it would have allowed. One
// that takes cores offline, or cuts deep and waits long, leaves a device far slower than its heat asks for. Which one a
// device has shows in what it yields: once it was limited for a while, it cools for some seconds, works at that same
// rate with rests, and faster as long as the limit stays away. If that yields no more, the device runs as its system
// lets it, and it is tried again later.
//
// Needs the frequency that the system allows; where that cannot be read it never rests. Temperatures, where they can be
// read, keep it below where it was limited before. Pure; one thread.
#pragma once

#include <optional>
#include <string>

#include "device/heat_sensors.h"
#include "runtime/clock.h"

namespace shoal {

class Pacer {
 public:
  static constexpr DurationUs kEveryUs = 2'000'000;  // how often Update is worth calling
  static constexpr double kRestMax = 4;              // seconds of rest for a second of computing
  static constexpr double kMargin = 2;               // degrees below where it was limited

  // What a device has shown, for its next start.
  struct Known {
    double limit_celsius = 0;  // of its hottest part when it was limited; 0: not known
    double limited_yield = 0;  // share of full speed under its limiter
    bool operator==(const Known&) const = default;
  };
  struct Seen {
    HeatReading heat;
    // Totals since start of all stages here: seconds of work at full speed that was done (may come late; 0 while that
    // is not known), spent with it, and rested.
    double work_s = 0, busy_s = 0, rest_s = 0;
  };

  Pacer() = default;
  // With what an earlier start has found to pay (known()): paced from the beginning.
  explicit Pacer(const Known& known);

  // True when rest() changed by something worth telling.
  bool Update(TimeUs now, const Seen& seen);

  // Seconds of rest for each second of computing at full speed.
  double rest() const { return rest_; }
  // Empty while pacing has not been found to pay.
  std::optional<Known> known() const;

 private:
  enum class Mode {
    kFree,     // no rests
    kCooling,  // until the limiter lets go
    kPaced,
  };
  // Work a second, of the last minutes.
  struct Yield {
    double work = 0, seconds = 0;
    void Add(double more_work, double more_seconds);
    double rate() const { return seconds > 0 ? work / seconds : 0; }
  };
  void Switch(Mode mode, TimeUs now);
  void GiveUp(TimeUs now);
  void Choose(TimeUs now, const HeatReading& heat);
  void Control(double seconds, const HeatReading& heat);

  Mode mode_ = Mode::kFree;
  TimeUs last_ = 0, since_ = 0, not_before_ = 0;  // `since_`: of the mode
  DurationUs wait_ = 0;
  Seen before_;
  bool limited_ = false, was_limited_ = false;  // now; since it was last given up
  bool is_deep_ = false;                        // the limit at which it began to cool
  double best_cap_ = 0;                         // the most that was ever allowed
  double speed_ = 1;                            // share of full speed that rests allow
  double ceiling_ = 0;                          // of it, where it was limited again; 0: it was not
  double rest_ = 0;
  double limit_celsius_ = 0, last_celsius_ = 0;
  Yield paced_, unpaced_;
};

// As text, to keep it, and back; empty for anything else.
std::string PacingText(const Pacer::Known& known);
std::optional<Pacer::Known> ParsePacing(const std::string& text);

}  // namespace shoal
