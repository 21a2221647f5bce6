// Two states: settled, and a survey of the candidates that do not compute. What the one that does takes is known from
// the window before.
#include "engine/contention_guard.h"

#include <algorithm>

namespace shoal {
namespace {

std::vector<int> Candidates(int threads) {
  std::vector<int> candidates;
  for (const int candidate : {threads, threads - 1, threads / 2, 1}) {
    if (candidate >= 1 && (candidates.empty() || candidate < candidates.back())) candidates.push_back(candidate);
  }
  return candidates;
}

}  // namespace

ContentionGuard::ContentionGuard(int threads) : candidates_(Candidates(threads)), timed_(candidates_.size()) {}

void ContentionGuard::Passed(const Pass& pass) {
  if (candidates_.size() < 2) return;
  if (surveying_) {
    Time(pass);
  } else {
    Watch(pass);
  }
}

void ContentionGuard::Watch(const Pass& pass) {
  if (pass.rows != rows_) timed_[current_] = {};
  rows_ = pass.rows;
  ++timed_[current_].passes;
  timed_[current_].seconds += pass.seconds;
  rest_s_ -= pass.seconds;
  window_s_ += pass.seconds;
  own_lost_s_ += pass.own_lost_s;
  lost_s_ += pass.lost_s;
  if (window_s_ < kWindowS) return;
  const bool contended = std::max(own_lost_s_, lost_s_) >= kLostShare * window_s_;
  window_s_ = own_lost_s_ = lost_s_ = 0;
  // Where fewer threads lose nothing, more might not either; where they do, more would.
  const bool ask = current_ == 0 ? contended : !contended || rest_s_ <= -kCrowdedRestS;
  if (rest_s_ > 0 || !ask) {
    timed_[current_] = {};
    return;
  }
  surveying_ = true;
  chosen_ = current_;
  survey_s_ = 0;
  row_changes_ = 0;
  TryNext();
}

void ContentionGuard::TryNext() {
  for (current_ = 0; current_ < candidates_.size(); ++current_) {
    if (timed_[current_].passes > 0) continue;
    first_pass_ = true;
    return;
  }
  Choose();
}

void ContentionGuard::Time(const Pass& pass) {
  survey_s_ += pass.seconds;
  if (pass.rows != rows_) {
    if (++row_changes_ > kRowChangesMax) return Rest(chosen_);
    rows_ = pass.rows;
    std::fill(timed_.begin(), timed_.end(), Timed{});
  }
  const bool slow = std::any_of(timed_.begin(), timed_.end(), [&](const Timed& other) {
    return &other != &timed_[current_] && other.passes > 0 && pass.seconds > kClearlySlower * other.pass_s();
  });
  const bool waking = first_pass_ && !slow && pass.seconds < kStepEnoughS;
  first_pass_ = false;
  if (waking) return;
  Timed& timed = timed_[current_];
  ++timed.passes;
  timed.seconds += pass.seconds;
  const bool enough = timed.passes >= kStepPasses && timed.seconds >= kStepS;
  if (enough || slow || timed.seconds >= kStepEnoughS) TryNext();
}

void ContentionGuard::Choose() {
  std::size_t best = 0;
  for (std::size_t i = 1; i < candidates_.size(); ++i) {
    if (timed_[i].pass_s() * kWorthIt < timed_[best].pass_s()) best = i;
  }
  fruitless_ = best > 0 ? 0 : std::min(fruitless_ + 1, kFruitlessMax);
  Rest(best);
}

void ContentionGuard::Rest(std::size_t candidate) {
  surveying_ = false;
  current_ = candidate;
  rest_s_ = std::clamp(kRestPerSurvey * survey_s_, kRestMinS, kRestMaxS);
  if (candidate == 0) rest_s_ *= 1 << fruitless_;
  std::fill(timed_.begin(), timed_.end(), Timed{});
}

}  // namespace shoal
