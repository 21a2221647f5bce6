// How long a silence on one link has to be before it means something: phi accrual (Hayashibara et al., SRDS 2004).
//
// Learns mean and deviation of the time between heartbeats, so that a jittery link is given more time than a calm one.
// Pure.
#pragma once

#include "runtime/clock.h"

namespace shoal {

class Detector {
 public:
  // `interval_us`: how often the peer says that it speaks.
  explicit Detector(DurationUs interval_us) : interval_us_(interval_us) {}

  void SetInterval(DurationUs interval_us) { interval_us_ = interval_us; }
  // Something came, `gap_us` after what came before.
  void Heard(DurationUs gap_us);
  // -log10 of how likely such a silence is on a link that works.
  double Phi(DurationUs silent_us) const;

 private:
  DurationUs interval_us_;
  double late_us_ = 0;       // mean of the gaps' excess over the interval
  double deviation_us_ = 0;  // mean absolute deviation of it
};

}  // namespace shoal
