// What share of its measured speed this device reaches of late: what its stages took against what they should have.
//
// A share is told when it differs for some windows in a row, so that noise and single hiccups are not; a device that
// has nothing to run is slowly trusted again, for nobody would find out that it has cooled. Pure; one thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runtime/clock.h"

namespace shoal {

class PaceKeeper {
 public:
  static constexpr DurationUs kWindowUs = 2'000'000;
  static constexpr double kWindowWorkMin_s = 0.03;      // expected seconds of work that make a window count
  static constexpr double kNews = 1.15;                 // factor that is worth telling
  static constexpr int kWindows = 2;                    // in a row
  static constexpr DurationUs kForgetUs = 120'000'000;  // without work; then kForgiven a minute
  static constexpr double kForgiven = 1.25;

  // Totals since its start of one stage, named by `stage`: seconds that its work should have taken at full speed, and
  // that it took.
  void Observe(const std::string& stage, double expected_s, double measured_s);
  // Call often; closes the window when it is time. True when pace() changed.
  bool Tick(TimeUs now);

  double pace() const { return pace_; }

 private:
  struct Seconds {
    double expected = 0, measured = 0;
  };
  bool Close(TimeUs now);

  std::map<std::string, Seconds> totals_;  // of the stages seen in this window
  std::map<std::string, Seconds> before_;
  TimeUs due_ = 0, worked_ = 0, forgiven_ = 0;
  double pace_ = 1;
  double recent_ = 1;  // smoothed
  int differing_ = 0;  // windows in a row
};

}  // namespace shoal
