// Terminal output and signals. The signal handlers touch only atomics and _exit.
#include "apps/cli/terminal.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstdio>

#include "apps/cli/exit_code.h"
#include "base/units.h"

namespace shoal::cli {
namespace {

std::atomic<int> g_interrupts{0};
std::atomic<bool> g_terminating{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

extern "C" void OnSignal(int signal_number) {
  if (signal_number != SIGINT) g_terminating.store(true);
  // A supervisor may say SIGTERM twice (timeout(1) does), and what ends in order is bounded in time.
  if (g_interrupts.fetch_add(1) >= 1 && signal_number == SIGINT) _exit(kExitInterrupted);
}

std::string Seconds(std::uint64_t us) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f s", static_cast<double>(us) / 1e6);
  return text;
}

}  // namespace

bool StdinIsTerminal() { return isatty(STDIN_FILENO) == 1; }
bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) == 1; }
bool StderrIsTerminal() { return isatty(STDERR_FILENO) == 1; }

void WatchSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  for (const int signal_number : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal_number, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

bool Interrupted() { return g_interrupts.load() > 0; }
bool Terminating() { return g_terminating.load(); }
void ClearInterrupt() {
  if (!Terminating()) g_interrupts.store(0);
}

std::optional<std::string> ReadLine(const std::string& prompt) {
  std::fputs(prompt.c_str(), stdout);
  std::fflush(stdout);
  std::string line;
  while (true) {
    char c = 0;
    const ssize_t n = read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR && !Interrupted()) continue;
    if (n <= 0) return n == 0 && !line.empty() ? std::optional(line) : std::nullopt;
    if (c == '\n') return line;
    line.push_back(c);
  }
}

Result<std::string> ReadAllOfStdin(std::size_t bytes_max) {
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR && !Interrupted()) continue;
    if (n < 0 && errno == EINTR) return Error{ErrorCode::kCancelled, "interrupted"};
    if (n < 0) return Error{ErrorCode::kIo, "stdin cannot be read"};
    if (n == 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > bytes_max) {
      return Error{ErrorCode::kInvalidArgument, "the prompt on stdin is longer than " + FormatBytes(bytes_max)};
    }
  }
}

LoadProgress::~LoadProgress() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

bool LoadProgress::Update(std::size_t stage, float fraction) {
  if (Interrupted()) return false;
  if (!enabled_) return true;
  const int permille = static_cast<int>(stage * 1000) + static_cast<int>(fraction * 1000);
  if (permille == last_permille_) return true;
  last_permille_ = permille;
  drawn_ = true;
  constexpr int kWidth = 30;
  const int filled = std::clamp(static_cast<int>(fraction * kWidth), 0, kWidth);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(kWidth, '.');
  std::fprintf(stderr, "\r\033[Kloading stage %zu [%s] %3d %%", stage, bar.c_str(), static_cast<int>(fraction * 100));
  std::fflush(stderr);
  return true;
}

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      const bool right = !row[i].empty() && std::isdigit(static_cast<unsigned char>(row[i][0])) != 0;
      line += (i == 0 ? "" : "  ") + (right ? pad + row[i] : row[i] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string StageTable(const std::vector<StageReport>& stages) {
  std::vector<std::vector<std::string>> rows{
      {"stage", "layers", "weights", "KV cache", "buffers", "batches", "compute", "wait", "wire"}};
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const StageReport& s = stages[i];
    rows.push_back({std::to_string(i), std::to_string(s.layers.first) + "-" + std::to_string(s.layers.last - 1),
                    FormatBytes(s.memory.weight_bytes), FormatBytes(s.memory.kv_bytes),
                    FormatBytes(s.memory.compute_bytes), std::to_string(s.stats.batches), Seconds(s.stats.compute_us),
                    Seconds(s.stats.wait_us), Seconds(s.stats.wire_us)});
  }
  return FormatTable(rows);
}

int Fail(const Error& error) {
  std::fprintf(stderr, "shoal: %s\n", error.message.c_str());
  return ExitCodeFor(error.code);
}

}  // namespace shoal::cli
