// Whole messages over a socket pair between a node and a process made for a device: kind, length, bytes.
//
// Knows no message's meaning. Sending and receiving may be on two threads; several may send.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "base/result.h"
#include "offload/messages.h"

namespace shoal {

class OffloadChannel {
 public:
  explicit OffloadChannel(int fd);  // takes it over
  ~OffloadChannel();
  OffloadChannel(const OffloadChannel&) = delete;
  OffloadChannel& operator=(const OffloadChannel&) = delete;

  // Blocks while the other end does not read. Errors: kUnavailable (it is gone).
  Status Send(OffloadKind kind, std::span<const std::uint8_t> bytes);

  struct Message {
    OffloadKind kind = OffloadKind::kReply;
    OffloadBytes bytes;
  };
  // Blocks at most `time_max` for the next bytes. Errors: kUnavailable (it is gone), kCancelled (nothing came),
  // kCorrupt (longer than `bytes_max`: nothing after it can be read).
  Result<Message> Receive(std::uint64_t bytes_max, std::chrono::milliseconds time_max);

  // Waits at most `time_max` until Receive would find something, be it the end; whether it would.
  bool Await(std::chrono::milliseconds time_max);

  void Shutdown();  // wakes whoever sends or receives; any thread

 private:
  Status ReadAll(std::span<std::uint8_t> bytes, std::chrono::milliseconds time_max);
  Status WriteAll(std::span<const std::uint8_t> bytes);

  const int fd_;
  std::mutex sending_;
};

}  // namespace shoal
