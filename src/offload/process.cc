// posix_spawn: nothing of this process but the socket, its environment and where errors are written goes along.
#include "offload/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

extern char** environ;

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kLookEvery{5};

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return "was ended by signal " + std::to_string(signal) + " (" + ::strsignal(signal) + ")";
  }
  return "ended with code " + std::to_string(WEXITSTATUS(status));
}

int Spawn(const std::vector<std::string>& command, int socket, pid_t& pid) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  if (const int failed = ::posix_spawn_file_actions_init(&actions); failed != 0) return failed;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, socket, kOffloadDescriptor);
  const int failed = ::posix_spawnp(&pid, words[0], &actions, nullptr, words.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  return failed;
}

}  // namespace

Result<OffloadProcess::Started> OffloadProcess::Start(const std::vector<std::string>& command) {
  SHOAL_CHECK(!command.empty());
  int ends[2];
#ifdef SOCK_CLOEXEC
  constexpr int kKind = SOCK_STREAM | SOCK_CLOEXEC;
#else
  constexpr int kKind = SOCK_STREAM;
#endif
  if (::socketpair(AF_UNIX, kKind, 0, ends) != 0) {
    return Error{ErrorCode::kIo, std::string("no socket pair: ") + std::strerror(errno)};
  }
  // A duplicate onto its own number would keep this flag: then the other end takes that number.
  if (ends[1] == kOffloadDescriptor) std::swap(ends[0], ends[1]);
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  pid_t pid = 0;
  const int failed = Spawn(command, ends[1], pid);
  ::close(ends[1]);
  if (failed != 0) {
    ::close(ends[0]);
    return Error{ErrorCode::kIo, command[0] + " cannot be started: " + std::strerror(failed)};
  }
  return Started{std::unique_ptr<OffloadProcess>(new OffloadProcess(pid)), ends[0]};
}

OffloadProcess::~OffloadProcess() { (void)End(); }

std::string OffloadProcess::End() {
  if (!how_.empty()) return how_;
  int status = 0;
  pid_t ended = 0;
  const auto until = std::chrono::steady_clock::now() + kOffloadEndMax;
  while ((ended = ::waitpid(pid_, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(kLookEvery);
  }
  how_ = ended == pid_ ? HowItEnded(status) : "was ended";
  if (ended == pid_) return how_;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
  return how_;
}

}  // namespace shoal
