// posix_spawn and a pipe with a deadline.
#include "device/command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

extern char** environ;

namespace shoal {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Reads to the end, the limit or the deadline, or until it is cancelled; says whether the end came.
bool ReadAll(int fd, SteadyClock::time_point deadline, const std::function<bool()>& cancelled, std::string& output) {
  char piece[4096];
  while (output.size() < kCommandOutputBytesMax) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0 || (cancelled && cancelled())) return false;
    if (cancelled) left = std::min(left, kCancelLook);
    pollfd wait{fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;  // a signal, or time to look again
    const ssize_t n = ::read(fd, piece, sizeof piece);
    if (n == 0) return true;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    output.append(piece, static_cast<std::size_t>(n));
  }
  return false;
}

// In a process group of its own: a script's programs are killed with it.
std::optional<pid_t> Spawn(const std::vector<std::string>& command, int out) {
  posix_spawn_file_actions_t actions;
  if (posix_spawn_file_actions_init(&actions) != 0) return std::nullopt;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t group_of_its_own;
  if (posix_spawnattr_init(&group_of_its_own) != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return std::nullopt;
  }
  posix_spawnattr_setflags(&group_of_its_own, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&group_of_its_own, 0);
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t pid = 0;
  const int failed = posix_spawnp(&pid, words[0], &actions, &group_of_its_own, words.data(), environ);
  posix_spawnattr_destroy(&group_of_its_own);
  posix_spawn_file_actions_destroy(&actions);
  return failed == 0 ? std::optional(pid) : std::nullopt;
}

}  // namespace

std::optional<std::string> RunCommand(const std::vector<std::string>& command) {
  return RunCommandFor(command, kCommandTimeMax);
}

std::optional<std::string> RunCommandFor(const std::vector<std::string>& command, std::chrono::milliseconds time_max,
                                         const std::function<bool()>& cancelled) {
  if (command.empty()) return std::nullopt;
  int ends[2];
#ifdef __linux__  // at once: a process that another thread starts meanwhile must not have them
  if (::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
#else
  if (::pipe(ends) != 0) return std::nullopt;
  ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#endif
  const auto pid = Spawn(command, ends[1]);
  ::close(ends[1]);
  std::string output;
  const bool ended = pid && ReadAll(ends[0], SteadyClock::now() + time_max, cancelled, output);
  ::close(ends[0]);
  if (!pid) return std::nullopt;
  if (!ended) ::kill(-*pid, SIGKILL);
  int status = 0;
  while (::waitpid(*pid, &status, 0) < 0 && errno == EINTR) {}
  if (!ended || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
  return output;
}

}  // namespace shoal
