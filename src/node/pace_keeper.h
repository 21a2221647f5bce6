// What share of its measured speed this device reaches of late: what its stages took against what they should have.
//
// A share is told when it differs for some windows in a row, so that noise and single hiccups are not; a device that
// has nothing to run is slowly trusted again, for nobody would find out that it has cooled. When the system lowers the
// cores' frequency that is told at once, as much slower; what stages take from then on corrects it. Pure; one thread.
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

  // Share of the time in which the cores may compute: a stage that takes up to so much longer is held back by that, and
  // no slower. The window in which it changes does not count.
  void SetRation(double ration);

  // Totals since its start of one stage, named by `stage`: seconds that its work should have taken at full speed, and
  // that it took.
  void Observe(const std::string& stage, double expected_s, double measured_s);
  // Call often; closes the window when it is time. True when pace() changed.
  bool Tick(TimeUs now);

  // Share of their highest frequency that the system allows the cores. True when pace() changed.
  bool Cap(double share);

  double pace() const { return pace_; }
  // Seconds of work at full speed that all stages have done since start, as far as windows counted.
  double work_s() const { return work_s_; }

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
  double cap_ = 0;     // 0: not known
  double ration_ = 1;
  double work_s_ = 0;
  int differing_ = 0;  // windows in a row
};

}  // namespace shoal
