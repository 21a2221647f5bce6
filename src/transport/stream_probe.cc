// One direction ends with a half-close, the other with one byte.
#include "transport/stream_probe.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/socket.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kPieceBytes = 64 << 10;
constexpr milliseconds kSilenceMax{5'000};  // of the other end, at any time

void SetTimeout(int fd, int option, milliseconds limit) {
  timeval value{};
  value.tv_sec = static_cast<decltype(value.tv_sec)>(limit.count() / 1'000);
  value.tv_usec = static_cast<decltype(value.tv_usec)>(limit.count() % 1'000 * 1'000);
  ::setsockopt(fd, SOL_SOCKET, option, &value, sizeof value);
}

ssize_t ReadSome(int fd, std::uint8_t* into, std::size_t bytes) {
  for (;;) {
    const ssize_t n = ::recv(fd, into, bytes, 0);
    if (n >= 0 || errno != EINTR) return n;
  }
}

}  // namespace

std::optional<std::uint64_t> ProbeStream(int fd, std::size_t bytes, milliseconds send_max) {
  SetTimeout(fd, SO_SNDTIMEO, send_max);
  SetTimeout(fd, SO_RCVTIMEO, kSilenceMax);
  const std::vector<std::uint8_t> piece(std::min(bytes, kPieceBytes));
  const auto begin = steady_clock::now();
  std::size_t sent = 0;
  while (sent < bytes && steady_clock::now() - begin < send_max) {
    const ssize_t n = ::send(fd, piece.data(), std::min(piece.size(), bytes - sent), kNoSignal);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    sent += static_cast<std::size_t>(n);
  }
  std::uint8_t word = 0;
  const bool arrived = sent > 0 && ::shutdown(fd, SHUT_WR) == 0 && ReadSome(fd, &word, 1) == 1;
  const std::chrono::duration<double> took = steady_clock::now() - begin;
  ::close(fd);
  if (!arrived) return std::nullopt;
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(static_cast<double>(sent) / took.count()));
}

void TakeProbe(int fd, std::size_t bytes_max) {
  SetTimeout(fd, SO_RCVTIMEO, kSilenceMax);
  std::vector<std::uint8_t> piece(kPieceBytes);
  ssize_t n = 1;
  for (std::size_t taken = 0; n > 0 && taken <= bytes_max; taken += static_cast<std::size_t>(std::max<ssize_t>(n, 0))) {
    n = ReadSome(fd, piece.data(), piece.size());
  }
  const std::uint8_t word = 1;
  if (n == 0) (void)::send(fd, &word, 1, kNoSignal);
  ::close(fd);
}

}  // namespace shoal
