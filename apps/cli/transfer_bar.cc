// Lines for people only: nothing reads them.
#include "apps/cli/transfer_bar.h"

#include <algorithm>
#include <cstdio>

#include "apps/cli/terminal.h"
#include "base/units.h"

namespace shoal::cli {
namespace {

constexpr int kBarCells = 24;
constexpr std::chrono::milliseconds kRedraw{100}, kPlainLine{5000};

std::string TimeText(std::uint64_t seconds) {
  return std::to_string(seconds / 60) + (seconds % 60 < 10 ? ":0" : ":") + std::to_string(seconds % 60);
}

}  // namespace

TransferBar::TransferBar(bool enabled) : enabled_(enabled), draws_(StderrIsTerminal()) {}

TransferBar::~TransferBar() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void TransferBar::Update(const std::string& what, std::uint64_t bytes_done, std::uint64_t bytes_total,
                         const std::string& more) {
  if (!enabled_ || bytes_total == 0) return;
  const auto now = Clock::now();
  if (what != what_) {
    what_ = what;
    started_ = now;
    start_bytes_ = bytes_done;
  }
  if (now - last_ < (draws_ ? kRedraw : kPlainLine)) return;
  last_ = now;
  bytes_done = std::min(bytes_done, bytes_total);
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const double came = static_cast<double>(bytes_done - std::min(bytes_done, start_bytes_));
  const double rate = seconds > 0 ? came / seconds : 0;
  const auto percent = static_cast<int>(100 * static_cast<double>(bytes_done) / static_cast<double>(bytes_total));
  std::string line = what + " " + std::to_string(percent) + " %, " + FormatBytes(bytes_done) + " of " +
                     FormatBytes(bytes_total) + ", " + FormatBytes(static_cast<std::uint64_t>(rate)) + "/s";
  if (rate > 0) {
    line += ", " + TimeText(static_cast<std::uint64_t>(static_cast<double>(bytes_total - bytes_done) / rate)) + " left";
  }
  Draw(line + more, percent);
}

void TransferBar::Say(const std::string& text) {
  if (!enabled_) return;
  std::fprintf(stderr, "%s%s\n", drawn_ ? "\r\033[K" : "", text.c_str());
  drawn_ = false;
}

void TransferBar::Draw(const std::string& line, int percent) {
  if (!draws_) {
    std::fprintf(stderr, "%s\n", line.c_str());
    return;
  }
  std::string bar;
  for (int i = 0; i < kBarCells; ++i) bar += i * 100 < percent * kBarCells ? "\u2588" : "\u2591";
  std::fprintf(stderr, "\r\033[K%s %s", bar.c_str(), line.c_str());
  drawn_ = true;
}

}  // namespace shoal::cli
