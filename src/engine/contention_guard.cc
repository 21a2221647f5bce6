// Two states: settled, and a survey of the candidates that do not compute. What the one that does takes is known from
// the window before.
#include "engine/contention_guard.h"

#include <algorithm>
#include <bit>

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
  rest_s_ -= pass.idle_s + pass.seconds;
  if (pass.idle_s > kGapS) {
    if (surveying_) GiveUp();
    Forget();
    return;
  }
  // Groups of answers that are decoded in turns differ by a row.
  const int row_class = std::bit_width(pass.rows);
  if (surveying_) {
    Time(pass, row_class);
  } else {
    Watch(pass, row_class);
  }
}

void ContentionGuard::Watch(const Pass& pass, int row_class) {
  if (row_class != row_class_) timed_[current_] = {};
  row_class_ = row_class;
  ++timed_[current_].passes;
  timed_[current_].seconds += pass.seconds;
  window_s_ += pass.seconds;
  own_lost_s_ += pass.own_lost_s;
  lost_s_ += pass.lost_s;
  if (window_s_ < std::max(kWindowS, kWindowPerThreadS * candidates_.front())) return;
  contended_ = std::max(own_lost_s_, lost_s_) >= kLostShare * window_s_;
  // Where fewer threads lose nothing, more might not either; where they do, more would.
  const bool ask = current_ == 0 ? contended_ : !contended_ || rest_s_ <= -kCrowdedRestS;
  if (rest_s_ > 0 || !ask) return Forget();
  surveying_ = true;
  chosen_ = current_;
  survey_s_ = 0;
  row_changes_ = 0;
  TryNext();
}

void ContentionGuard::TryNext() {
  for (current_ = 0; current_ < candidates_.size(); ++current_) {
    if (timed_[current_].passes > 0) continue;
    if (current_ > 1 && Slower(timed_[current_ - 1].pass_s(), kPastTheBest, current_ - 1)) {
      // Taken to be no faster.
      timed_[current_] = timed_[current_ - 1];
      continue;
    }
    first_pass_ = true;
    return;
  }
  Choose();
}

// So many times as slow as a pass with one of the first `candidates`, of those that were timed.
bool ContentionGuard::Slower(double seconds, double times, std::size_t candidates) const {
  return std::any_of(timed_.begin(), timed_.begin() + static_cast<std::ptrdiff_t>(candidates),
                     [&](const Timed& other) { return other.passes > 0 && seconds > times * other.pass_s(); });
}

void ContentionGuard::Time(const Pass& pass, int row_class) {
  survey_s_ += pass.seconds;
  if (row_class != row_class_) {
    if (++row_changes_ > kRowChangesMax) return GiveUp();
    row_class_ = row_class;
    std::fill(timed_.begin(), timed_.end(), Timed{});
  }
  const bool waking = first_pass_ && pass.seconds < kStepEnoughS;
  first_pass_ = false;
  if (waking) return;
  Timed& timed = timed_[current_];
  ++timed.passes;
  timed.seconds += pass.seconds;
  const bool slow = Slower(timed.pass_s(), kClearlySlower, candidates_.size());
  if (slow || timed.seconds >= kStepEnoughS || (timed.passes >= kStepPasses && timed.seconds >= kStepS)) TryNext();
}

void ContentionGuard::Choose() {
  std::size_t best = 0;
  for (std::size_t i = 1; i < candidates_.size(); ++i) {
    if (timed_[i].pass_s() * kWorthIt < timed_[best].pass_s()) best = i;
  }
  fruitless_ = best > 0 ? 0 : std::min(fruitless_ + 1, kFruitlessMax);
  Rest(best);
}

void ContentionGuard::GiveUp() { Rest(contended_ ? chosen_ : 0); }

void ContentionGuard::Rest(std::size_t candidate) {
  surveying_ = false;
  current_ = candidate;
  rest_s_ = std::max(std::clamp(kRestPerSurvey * survey_s_, kRestMinS, kRestMaxS), kRestPerSurveyMin * survey_s_);
  if (candidate == 0) rest_s_ *= 1 << fruitless_;
  Forget();
}

void ContentionGuard::Forget() {
  window_s_ = own_lost_s_ = lost_s_ = 0;
  std::fill(timed_.begin(), timed_.end(), Timed{});
}

}  // namespace shoal
