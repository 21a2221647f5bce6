// A process of the same program, made for one device: started, told apart from a living one, ended.
//
// Knows no messages. It ends by itself when the other end of its socket is closed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace shoal {

// The descriptor that the process has its end of the socket pair at.
inline constexpr int kOffloadDescriptor = 3;
// The word of the command line that makes the program such a process.
inline constexpr const char* kOffloadCommand = "offload-process";
inline constexpr std::chrono::milliseconds kOffloadEndMax{1000};  // from its socket's end to its own

class OffloadProcess {
 public:
  struct Started {
    std::unique_ptr<OffloadProcess> process;
    int socket = -1;  // the caller's
  };
  // `command`: the program and its words. Its standard output goes where ours for errors goes. Errors: kIo.
  static Result<Started> Start(const std::vector<std::string>& command);
  ~OffloadProcess();  // End
  OffloadProcess(const OffloadProcess&) = delete;
  OffloadProcess& operator=(const OffloadProcess&) = delete;

  // Ends it for good, and says how it had ended if it had by itself: "was ended by signal 11 (Segmentation fault)",
  // "ended with code 1"; else "was ended". Blocks at most kOffloadEndMax for one that is about to end. Idempotent.
  std::string End();

 private:
  explicit OffloadProcess(pid_t pid) : pid_(pid) {}

  pid_t pid_;
  std::string how_;
};

}  // namespace shoal
