// What is typical of a link, whoever was held up meanwhile.
#include "cluster/round_trips.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

TEST(RoundTrips, ABusyEndIsNotTheLink) {
  RoundTrips trips;
  EXPECT_EQ(trips.smoothed(), 0U);
  trips.Add(9'000);  // it has just started
  EXPECT_EQ(trips.smoothed(), 9'000U);
  trips.Add(2'000);
  EXPECT_LT(trips.smoothed(), 8'000U);
  for (int i = 0; i < 40; ++i) {
    trips.Add(i % 5 < 3 ? 5'000U + static_cast<std::uint32_t>(i) * 100U : 2'000U);
    if (i >= 16) EXPECT_LE(trips.smoothed(), 2'300U) << i;
  }
  EXPECT_LE(trips.smoothed(), 2'010U);
}

TEST(RoundTrips, ALinkThatBecomesSlowerIsSeen) {
  RoundTrips trips;
  for (std::size_t i = 0; i < 2 * RoundTrips::kKept; ++i) trips.Add(1'000);
  for (std::size_t i = 0; i < 2 * RoundTrips::kKept; ++i) trips.Add(30'000);
  EXPECT_GT(trips.smoothed(), 28'000U);
}

}  // namespace
}  // namespace shoal
