// poll(2) with a deadline before every read and write.
#include "api/connection.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>

#include <algorithm>

#include "base/socket.h"

namespace shoal {
namespace {

constexpr std::size_t kBufferBytes = 16U << 10;

thread_local Connection* current_connection = nullptr;

// True when `events` came within `timeout`.
bool Poll(socket_t sock, short events, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd entry{sock, events, 0};
    const int n = ::poll(&entry, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000)));
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

void AddressText(const sockaddr_storage& address, socklen_t length, std::string& ip, int& port) {
  char text[NI_MAXHOST];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) !=
      0) {
    return;
  }
  ip = text;
  if (address.ss_family == AF_INET) port = ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) port = ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

}  // namespace

Connection::Connection(socket_t sock, const ConnectionLimits& limits)
    : sock_(sock), limits_(limits), buffer_(kBufferBytes) {}

Connection* Connection::Current() { return current_connection; }
Connection::Scope::Scope(Connection* connection) { current_connection = connection; }
Connection::Scope::~Scope() { current_connection = nullptr; }

bool Connection::AwaitRequest(std::chrono::milliseconds timeout) {
  return is_readable() || (Poll(sock_, POLLIN, timeout) && is_peer_alive());
}

void Connection::BeginHeaders() {
  phase_start_ = Clock::now();
  phase_bytes_ = 0;
  in_body_ = timed_out_ = close_after_response = false;
}

void Connection::BeginBody() {
  phase_start_ = Clock::now();
  phase_bytes_ = 0;
  in_body_ = true;
}

Connection::Clock::time_point Connection::Deadline() const {
  auto deadline = phase_start_ + limits_.read_timeout;
  if (in_body_) deadline += std::chrono::milliseconds(phase_bytes_ * 1000 / kBodyBytesPerSecondMin);
  return deadline;
}

bool Connection::wait_readable() const {
  if (is_readable()) return true;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(Deadline() - Clock::now());
  if (left.count() <= 0) return false;
  return Poll(sock_, POLLIN, std::min(left, limits_.read_timeout));
}

bool Connection::wait_writable() const { return Poll(sock_, POLLOUT, limits_.write_timeout); }

bool Connection::is_peer_alive() const {
  if (is_readable()) return true;
  char byte;
  const ssize_t n = ::recv(sock_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}

ssize_t Connection::read(char* ptr, size_t size) {
  if (!is_readable()) {
    if (!in_body_ && phase_bytes_ > limits_.header_bytes_max) return -1;
    if (!wait_readable()) {
      timed_out_ = true;
      error_ = httplib::Error::Timeout;
      return -1;
    }
    ssize_t n = 0;
    do n = ::recv(sock_, buffer_.data(), buffer_.size(), 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0) {
      error_ = n == 0 ? httplib::Error::ConnectionClosed : httplib::Error::Read;
      return n;
    }
    begin_ = 0;
    end_ = static_cast<std::size_t>(n);
    phase_bytes_ += end_;
  }
  const std::size_t n = std::min<std::size_t>(size, end_ - begin_);
  std::copy_n(buffer_.data() + begin_, n, ptr);
  begin_ += n;
  return static_cast<ssize_t>(n);
}

ssize_t Connection::write(const char* ptr, size_t size) {
  while (true) {
    if (!wait_writable()) return -1;
    const ssize_t n = ::send(sock_, ptr, size, kNoSignal | MSG_DONTWAIT);
    if (n >= 0) return n;
    if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) return -1;
  }
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const { PeerAddress(sock_, ip, port); }
void Connection::get_local_ip_and_port(std::string& ip, int& port) const { LocalAddress(sock_, ip, port); }

time_t Connection::duration() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - opened_).count();
}

const char* Connection::buffered_data(size_t& size) const {
  size = end_ - begin_;
  return size > 0 ? buffer_.data() + begin_ : nullptr;
}

void Connection::consume_buffered(size_t size) { begin_ = std::min(begin_ + size, end_); }

void PeerAddress(socket_t sock, std::string& ip, int& port) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(sock, reinterpret_cast<sockaddr*>(&address), &length) == 0) AddressText(address, length, ip, port);
}

void LocalAddress(socket_t sock, std::string& ip, int& port) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(sock, reinterpret_cast<sockaddr*>(&address), &length) == 0) AddressText(address, length, ip, port);
}

void LingerAndClose(socket_t sock, std::chrono::milliseconds limit) {
  constexpr std::chrono::milliseconds kSilence{100};
  ::shutdown(sock, SHUT_WR);
  const auto deadline = std::chrono::steady_clock::now() + limit;
  char discarded[kBufferBytes];
  while (std::chrono::steady_clock::now() < deadline && Poll(sock, POLLIN, kSilence)) {
    const ssize_t n = ::recv(sock, discarded, sizeof discarded, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) break;
  }
  ::close(sock);
}

}  // namespace shoal
