// A probe over a socket pair: what it measures, and ends that say nothing.
#include "transport/stream_probe.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <vector>

namespace shoal {
namespace {

using std::chrono::milliseconds;

std::array<int, 2> Pair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  return ends;
}

TEST(StreamProbe, BothEndsAgreeThatAllIsThere) {
  const auto [here, there] = Pair();
  std::thread other([there = there] { TakeProbe(there, 1 << 20); });
  const std::optional<std::uint64_t> rate = ProbeStream(here, 1 << 20, milliseconds(30'000));
  other.join();
  ASSERT_TRUE(rate.has_value());
  EXPECT_GT(*rate, 0U);
}

TEST(StreamProbe, CountsTheTimeOfASlowReader) {
  const auto [here, there] = Pair();
  std::thread other([there = there] {
    std::vector<char> piece(64 << 10);
    while (::read(there, piece.data(), piece.size()) > 0) std::this_thread::sleep_for(milliseconds(5));
    EXPECT_EQ(::write(there, "1", 1), 1);
    ::close(there);
  });
  const std::optional<std::uint64_t> rate = ProbeStream(here, 1 << 20, milliseconds(30'000));
  other.join();
  ASSERT_TRUE(rate.has_value());
  EXPECT_LT(*rate, 64U << 20) << "sixteen reads of five milliseconds";
}

TEST(StreamProbe, AnEndThatIsGoneMeasuresNothing) {
  const auto [here, there] = Pair();
  ::close(there);
  EXPECT_EQ(ProbeStream(here, 1 << 20, milliseconds(30'000)), std::nullopt);
}

TEST(StreamProbe, MoreThanAProbeIsNotTaken) {
  const auto [here, there] = Pair();
  std::thread other([there = there] { TakeProbe(there, 64 << 10); });
  EXPECT_EQ(ProbeStream(here, 8 << 20, milliseconds(30'000)), std::nullopt);
  other.join();
}

}  // namespace
}  // namespace shoal
