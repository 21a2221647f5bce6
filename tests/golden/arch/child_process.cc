// fork, alarm, exec: the alarm lives on in the program. See child_process.h.
#include "child_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "base/check.h"

namespace shoal::golden {

ChildResult RunChild(const std::vector<std::string>& command, unsigned limit_seconds) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  int ends[2];
  SHOAL_CHECK(pipe2(ends, O_CLOEXEC) == 0);
  const pid_t child = fork();
  SHOAL_CHECK(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    if (const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) dup2(nowhere, STDERR_FILENO);
    alarm(limit_seconds);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  close(ends[1]);
  ChildResult result;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t n = read(ends[0], buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    result.output.append(buffer.data(), static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) SHOAL_CHECK(errno == EINTR);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    result.failure = signal == SIGALRM ? "timed out" : "signal " + std::to_string(signal);
  } else if (WEXITSTATUS(status) != 0) {
    result.failure = "exit code " + std::to_string(WEXITSTATUS(status));
  }
  result.ok = result.failure.empty();
  return result;
}

}  // namespace shoal::golden
