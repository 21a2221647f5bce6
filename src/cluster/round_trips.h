// The round trip of a link, from those of its heartbeats: what it takes while neither end is held up.
//
// A device that computes with all its cores, or is held back by the ration of its processor time, answers late; so does
// one that has just started. So the lower quartile of the latest ones counts, not their mean. Pure.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace shoal {

class RoundTrips {
 public:
  static constexpr std::size_t kKept = 16;

  void Add(std::uint32_t us) {
    latest_[next_] = us;
    next_ = (next_ + 1) % kKept;
    count_ = std::min(count_ + 1, kKept);
    const std::uint32_t quartile = LowerQuartile();
    smoothed_ = count_ == 1 ? us : static_cast<std::uint32_t>((4ULL * smoothed_ + quartile) / 5);
  }
  // Microseconds; 0: there is none yet.
  std::uint32_t smoothed() const { return smoothed_; }

 private:
  std::uint32_t LowerQuartile() const {
    std::array<std::uint32_t, kKept> sorted = latest_;
    const auto quarter = sorted.begin() + static_cast<std::ptrdiff_t>((count_ - 1) / 4);
    std::nth_element(sorted.begin(), quarter, sorted.begin() + static_cast<std::ptrdiff_t>(count_));
    return *quarter;
  }

  std::array<std::uint32_t, kKept> latest_{};
  std::size_t next_ = 0, count_ = 0;
  std::uint32_t smoothed_ = 0;
};

}  // namespace shoal
