// Free, cooling, paced. While paced: a controller in velocity form on the distance to where it was limited, and a ramp
// up to where it was limited again, very slow beyond.
#include "node/pacer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace shoal {
namespace {

constexpr double kUpdateMax_s = 20;     // between updates; after longer ones nothing is compared
constexpr double kOccupiedMin = 0.7;    // share of the time with work: below, a device rests by itself
constexpr double kLimitedShare = 0.95;  // of the best frequency ever allowed
constexpr double kForget_s = 300;       // what was longer ago hardly counts
constexpr double kKnown_s = 120;        // of work since it was limited before its yield is known
constexpr double kDeepCap = 0.5;        // a limit so deep has much to win, and little to lose:
constexpr double kDeepKnown_s = 30;     // it is tried sooner, and longer
constexpr double kPaced_s = 120;        // of paced work before that is
constexpr double kPays = 1.03;
constexpr double kCoolAt = 0.5;  // of the limiter's yield: many let go far below where they set in
constexpr double kTryAt = 1.05;  // of it, once it has let go
constexpr DurationUs kCoolMaxUs = 30'000'000, kDeepCoolMaxUs = 90'000'000;
constexpr DurationUs kWaitMinUs = 1'200'000'000, kWaitMaxUs = 9'600'000'000;
constexpr double kPerDegree = 0.02;  // of speed for each degree that it got warmer or colder
constexpr double kPerDegreeSecond = 0.003;
constexpr double kRamp = 0.003;        // of speed a second, while it is not limited
constexpr double kRampAbove = 0.0003;  // above where it was limited again
constexpr double kSetBack = 0.85;      // to this of the speed at which it was limited again
constexpr double kWorthwhile = 1.2;    // of the limiter's yield: limited again below that, there is nothing to win
constexpr double kNews = 0.01;         // of speed
constexpr double kKnownCelsiusMax = 150;
constexpr double kSpeedMin = 1 / (1 + Pacer::kRestMax);

}  // namespace

void Pacer::Yield::Add(double more_work, double more_seconds) {
  const double kept = std::exp(-more_seconds / kForget_s);
  work = work * kept + more_work;
  seconds = seconds * kept + more_seconds;
}

Pacer::Pacer(const Known& known) : limit_celsius_(known.limit_celsius) {
  if (known.limited_yield <= 0 || known.limited_yield >= 1) return;
  mode_ = Mode::kPaced;
  unpaced_ = {known.limited_yield * kKnown_s, kKnown_s};
  was_limited_ = true;
}

std::optional<Pacer::Known> Pacer::known() const {
  const bool pays = mode_ == Mode::kPaced && paced_.seconds >= kPaced_s;
  return pays ? std::optional(Known{std::round(limit_celsius_), std::round(unpaced_.rate() * 100) / 100})
              : std::nullopt;
}

void Pacer::Switch(Mode mode, TimeUs now) {
  mode_ = mode;
  since_ = now;
}

void Pacer::GiveUp(TimeUs now) {
  wait_ = std::clamp(2 * wait_, kWaitMinUs, kWaitMaxUs);
  not_before_ = now + wait_;
  speed_ = 1;
  ceiling_ = 0;
  paced_ = unpaced_ = {};
  was_limited_ = false;  // what the limiter yields is seen anew from the next time on
  Switch(Mode::kFree, now);
}

void Pacer::Choose(TimeUs now, const HeatReading& heat) {
  switch (mode_) {
    case Mode::kFree:
      if (limited_ && !was_limited_) {
        was_limited_ = true;
        limit_celsius_ = heat.celsius.value_or(0);
      }
      is_deep_ = limited_ && heat.cap.value_or(1) < kDeepCap * best_cap_;
      if (unpaced_.seconds < (is_deep_ ? kDeepKnown_s : kKnown_s) || now < not_before_) return;
      if (unpaced_.rate() <= 0) return;  // a device that was not measured: nothing could be compared
      speed_ = kCoolAt * unpaced_.rate();
      return Switch(Mode::kCooling, now);
    case Mode::kCooling:
      if (!limited_) {
        speed_ = std::max(kTryAt * unpaced_.rate(), ceiling_);
        return Switch(Mode::kPaced, now);
      }
      if (now - since_ > (is_deep_ ? kDeepCoolMaxUs : kCoolMaxUs)) GiveUp(now);
      return;
    case Mode::kPaced:
      if (limited_) {
        if (speed_ < kWorthwhile * unpaced_.rate()) return GiveUp(now);
        ceiling_ = kSetBack * speed_;
        speed_ = kCoolAt * unpaced_.rate();
        return Switch(Mode::kCooling, now);
      }
      if (paced_.seconds >= kPaced_s && paced_.rate() < kPays * unpaced_.rate()) GiveUp(now);
      return;
  }
}

void Pacer::Control(double seconds, const HeatReading& heat) {
  if (mode_ != Mode::kPaced) return;
  const double celsius = heat.celsius.value_or(0), before = std::exchange(last_celsius_, celsius);
  double more = (ceiling_ > 0 && speed_ >= ceiling_ ? kRampAbove : kRamp) * seconds;
  if (celsius > 0 && before > 0 && limit_celsius_ > 0) {
    const double room = limit_celsius_ - kMargin - celsius;
    more = std::min(more, kPerDegree * (before - celsius) + kPerDegreeSecond * room * seconds);
  }
  speed_ += more;
}

bool Pacer::Update(TimeUs now, const Seen& seen) {
  const double seconds = static_cast<double>(now - last_) / 1e6;
  const Seen before = std::exchange(before_, seen);
  const bool first = std::exchange(last_, now) == 0 || seconds <= 0 || seconds > kUpdateMax_s;
  best_cap_ = std::max(best_cap_, seen.heat.cap.value_or(0));
  limited_ = seen.heat.cap && *seen.heat.cap < kLimitedShare * best_cap_;
  if (first) return false;
  const double work = seen.work_s - before.work_s;
  const bool busy = seen.busy_s - before.busy_s + seen.rest_s - before.rest_s > kOccupiedMin * seconds;
  if (busy && mode_ == Mode::kFree && was_limited_) unpaced_.Add(work, seconds);
  // Cooling again in between is part of what pacing yields.
  if (busy && (mode_ == Mode::kPaced || (mode_ == Mode::kCooling && paced_.seconds > 0))) paced_.Add(work, seconds);
  if (busy || mode_ != Mode::kFree) {
    Choose(now, seen.heat);
    Control(seconds, seen.heat);
  }
  speed_ = std::clamp(speed_, kSpeedMin, 1.0);
  if (std::abs(speed_ - 1 / (1 + rest_)) < kNews && (speed_ < 1 || rest_ == 0)) return false;
  rest_ = 1 / speed_ - 1;
  return true;
}

std::string PacingText(const Pacer::Known& known) {
  char text[64];
  std::snprintf(text, sizeof text, "limit_celsius %.0f limited_yield %.2f\n", known.limit_celsius, known.limited_yield);
  return text;
}

std::optional<Pacer::Known> ParsePacing(const std::string& text) {
  Pacer::Known known;
  if (std::sscanf(text.c_str(), "limit_celsius %lf limited_yield %lf", &known.limit_celsius, &known.limited_yield) != 2)
    return std::nullopt;
  const bool is_sane = known.limit_celsius >= 0 && known.limit_celsius <= kKnownCelsiusMax && known.limited_yield > 0 &&
                       known.limited_yield < 1;
  return is_sane ? std::optional(known) : std::nullopt;
}

}  // namespace shoal
