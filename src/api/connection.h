// One client's TCP connection under a clock: bounded time for each request's headers and body, bounded waits on writes.
//
// Knows bytes and deadlines, no HTTP beyond "headers, then body": cpp-httplib parses over it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <cpp-httplib/httplib.h>

namespace shoal {

struct ConnectionLimits {
  std::chrono::milliseconds read_timeout{10'000};   // for all headers of a request; then for its body, see below
  std::chrono::milliseconds write_timeout{10'000};  // for a client to take anything at all
  std::chrono::milliseconds idle_timeout{15'000};   // between requests
  std::size_t header_bytes_max = 64U << 10;
};

// A body may take read_timeout, and a second more for each of these many bytes that came.
inline constexpr std::size_t kBodyBytesPerSecondMin = 64U << 10;

class Connection final : public httplib::Stream {
 public:
  // `sock` stays the caller's to close.
  Connection(socket_t sock, const ConnectionLimits& limits);

  // Waits for the first byte of a request up to `timeout`. False: none came, or the peer or Shutdown() closed.
  bool AwaitRequest(std::chrono::milliseconds timeout);
  // A request begins: its headers are due.
  void BeginHeaders();
  // The headers are complete: the body is due.
  void BeginBody();
  bool in_body() const { return in_body_; }
  bool timed_out() const { return timed_out_; }
  std::size_t header_bytes() const { return in_body_ ? 0 : phase_bytes_; }
  bool close_after_response = false;

  // The connection that the calling thread serves, or null.
  static Connection* Current();
  // Marks `connection` as the calling thread's while alive.
  class Scope {
   public:
    explicit Scope(Connection* connection);
    ~Scope();
  };

  bool is_readable() const override { return begin_ < end_; }
  bool wait_readable() const override;
  bool wait_writable() const override;
  bool is_peer_alive() const override;
  ssize_t read(char* ptr, size_t size) override;
  ssize_t write(const char* ptr, size_t size) override;
  using httplib::Stream::write;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return sock_; }
  time_t duration() const override;
  const char* buffered_data(size_t& size) const override;
  void consume_buffered(size_t size) override;

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point Deadline() const;

  socket_t sock_;
  const ConnectionLimits limits_;
  const Clock::time_point opened_ = Clock::now();
  Clock::time_point phase_start_ = Clock::now();
  std::size_t phase_bytes_ = 0;  // read from the socket since phase_start_
  bool in_body_ = false;
  bool timed_out_ = false;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // what of buffer_ was read and not yet consumed
};

// Address and port of either end; empty and 0 when unknown.
void PeerAddress(socket_t sock, std::string& ip, int& port);
void LocalAddress(socket_t sock, std::string& ip, int& port);

// Says that nothing more will be written, discards what the client still sends until it closes, is silent for 100 ms or
// `limit` has passed, then closes. Without it the last answer can be lost to a reset.
void LingerAndClose(socket_t sock, std::chrono::milliseconds limit);

}  // namespace shoal
