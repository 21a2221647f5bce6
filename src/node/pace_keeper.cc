// Windows of work, smoothed geometrically.
#include "node/pace_keeper.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cluster/member.h"

namespace shoal {

void PaceKeeper::Observe(const std::string& stage, double expected_s, double measured_s) {
  totals_[stage] = {expected_s, measured_s};
}

void PaceKeeper::SetRation(double ration) {
  if (ration == std::exchange(ration_, ration)) return;
  before_.clear();
  differing_ = 0;
}

bool PaceKeeper::Tick(TimeUs now) {
  if (due_ == 0) {
    due_ = now + kWindowUs;
    worked_ = forgiven_ = now;
  }
  if (now < due_) return false;
  due_ = now + kWindowUs;
  return Close(now);
}

bool PaceKeeper::Cap(double share) {
  // A return is measured: a core that may be fast again is hot yet.
  if (cap_ == 0 || share > cap_) cap_ = share;
  if (share <= 0 || share > cap_ / kNews) return false;
  pace_ = recent_ = std::clamp(pace_ * share / std::exchange(cap_, share), kPaceMin, kPaceMax);
  differing_ = 0;
  return true;
}

bool PaceKeeper::Close(TimeUs now) {
  Seconds window;
  for (const auto& [stage, total] : totals_) {
    const auto known = before_.find(stage);
    // The first window of a stage has what it did before it was seen, warming up among it.
    if (known == before_.end() || total.expected < known->second.expected) continue;
    window.expected += total.expected - known->second.expected;
    window.measured += total.measured - known->second.measured;
  }
  if (window.expected >= kWindowWorkMin_s || before_.empty() || totals_.empty()) {
    before_ = std::move(totals_);  // what was too little goes on into the next window
  }
  totals_.clear();
  if (window.expected < kWindowWorkMin_s || window.measured <= 0) {
    if (now - worked_ < kForgetUs || now - forgiven_ < 60'000'000 || pace_ >= 1) return false;
    forgiven_ = now;
    pace_ = recent_ = std::min(1.0, pace_ * kForgiven);
    return true;
  }
  worked_ = now;
  work_s_ += window.expected;
  const double slowest = window.expected / ration_;  // at full speed, held back all the time
  const double share = std::clamp(
      window.measured <= window.expected ? window.expected / window.measured : std::min(slowest / window.measured, 1.0),
      kPaceMin, kPaceMax);
  // A sudden change is followed at once once it is sure; small ones are smoothed.
  const bool differs = std::abs(std::log(share / pace_)) > std::log(kNews);
  recent_ = differs && differing_ == 0 ? share : std::sqrt(recent_ * share);
  differing_ = differs ? differing_ + 1 : 0;
  if (differing_ < kWindows) return false;
  differing_ = 0;
  pace_ = std::clamp(std::round(recent_ * 100) / 100, kPaceMin, kPaceMax);
  return true;
}

}  // namespace shoal
