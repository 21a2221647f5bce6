// Runs a program with a time limit and takes its standard output. For libllama, which aborts on what it cannot do.
#pragma once

#include <string>
#include <vector>

namespace shoal::golden {

struct ChildResult {
  bool ok = false;      // exited with 0
  std::string output;   // of stdout
  std::string failure;  // "exit code 2", "signal 6", "timed out"; empty if ok
};

// Blocks until the program ends; it gets SIGALRM after `limit_seconds`. stderr is dropped. Any thread.
ChildResult RunChild(const std::vector<std::string>& command, unsigned limit_seconds);

}  // namespace shoal::golden
