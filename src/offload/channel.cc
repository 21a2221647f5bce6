// Blocking socket calls; poll() in front of what has a limit.
#include "offload/channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/socket.h"

namespace shoal {
namespace {

struct Header {
  std::uint32_t kind = 0;
  std::uint32_t zero = 0;
  std::uint64_t bytes = 0;
};

Error Gone() { return {ErrorCode::kUnavailable, "the other process is gone"}; }

}  // namespace

OffloadChannel::OffloadChannel(int fd) : fd_(fd) {
#ifdef SO_NOSIGPIPE
  const int on = 1;
  ::setsockopt(fd_, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
}

OffloadChannel::~OffloadChannel() { ::close(fd_); }

void OffloadChannel::Shutdown() { ::shutdown(fd_, SHUT_RDWR); }

Status OffloadChannel::WriteAll(std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), kNoSignal);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Gone();
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status OffloadChannel::Send(OffloadKind kind, std::span<const std::uint8_t> bytes) {
  const Header header{static_cast<std::uint32_t>(kind), 0, bytes.size()};
  std::uint8_t head[sizeof header];
  std::memcpy(head, &header, sizeof header);
  const std::lock_guard lock(sending_);
  SHOAL_RETURN_IF_ERROR(WriteAll(head));
  return WriteAll(bytes);
}

bool OffloadChannel::Await(std::chrono::milliseconds time_max) {
  pollfd wait{fd_, POLLIN, 0};
  return ::poll(&wait, 1, static_cast<int>(time_max.count())) > 0;
}

Status OffloadChannel::ReadAll(std::span<std::uint8_t> bytes, std::chrono::milliseconds time_max) {
  while (!bytes.empty()) {
    pollfd wait{fd_, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(time_max.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return Error{ErrorCode::kCancelled, "no answer within " + std::to_string(time_max.count()) + " ms"};
    if (ready < 0) return Gone();
    const ssize_t n = ::recv(fd_, bytes.data(), bytes.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Gone();
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<OffloadChannel::Message> OffloadChannel::Receive(std::uint64_t bytes_max, std::chrono::milliseconds time_max) {
  std::uint8_t head[sizeof(Header)];
  SHOAL_RETURN_IF_ERROR(ReadAll(head, time_max));
  Header header;
  std::memcpy(&header, head, sizeof header);
  if (header.zero != 0 || header.bytes > bytes_max) {
    return Error{ErrorCode::kCorrupt, "a message of " + std::to_string(header.bytes) + " bytes, at most " +
                                          std::to_string(bytes_max) + " are expected"};
  }
  Message message{static_cast<OffloadKind>(header.kind), OffloadBytes(header.bytes)};
  SHOAL_RETURN_IF_ERROR(ReadAll(message.bytes, time_max));
  return message;
}

}  // namespace shoal
