// How fast bytes go over a stream: so many that mean nothing, and a byte back when all of them are there. Knows no
// peers and whose stream it is.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace shoal {

// Both take over `fd`, a connected blocking stream socket, and block. Any thread.

// Sends `bytes` or, on a slow way, as many as go in `send_max`; then waits for the other end's word. Bytes a second,
// the wait for it included: what was reached, at most what the way carries. Nothing: the other end says nothing in
// time.
std::optional<std::uint64_t> ProbeStream(int fd, std::size_t bytes, std::chrono::milliseconds send_max);

// The other end: takes at most `bytes_max` bytes, and says when they end.
void TakeProbe(int fd, std::size_t bytes_max);

}  // namespace shoal
