// How much of something has come, how fast, and how long still: one line on stderr that is drawn anew. Where nobody
// watches (stderr is no terminal) a plain line every few seconds. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace shoal::cli {

class TransferBar {
 public:
  explicit TransferBar(bool enabled);
  ~TransferBar();
  TransferBar(const TransferBar&) = delete;
  TransferBar& operator=(const TransferBar&) = delete;

  // `what`: "fetching", "verifying"; the speed is counted anew when it changes. `more`: shown at the end.
  void Update(const std::string& what, std::uint64_t bytes_done, std::uint64_t bytes_total,
              const std::string& more = "");
  // A line of its own.
  void Say(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(const std::string& line, int percent);

  const bool enabled_, draws_;
  bool drawn_ = false;
  std::string what_;
  std::uint64_t start_bytes_ = 0;
  Clock::time_point started_{}, last_{};
};

}  // namespace shoal::cli
