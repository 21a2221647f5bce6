// What a person sees and presses: progress bars, tables, colours when stderr is a terminal, and Ctrl-C.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "node/placement.h"

namespace shoal::cli {

bool StdinIsTerminal();
bool StdoutIsTerminal();
bool StderrIsTerminal();

// From now on: the first Ctrl-C (SIGINT) sets Interrupted, a second one before ClearInterrupt ends the program at once
// with kExitInterrupted; SIGTERM and SIGHUP set both Interrupted and Terminating.
void WatchSignals();
bool Interrupted();
bool Terminating();
void ClearInterrupt();  // after an answer was stopped: the next Ctrl-C is a first one again

// A line from stdin, without its end. Empty optional at the end of input or when interrupted.
std::optional<std::string> ReadLine(const std::string& prompt);
// All of stdin. Errors: kInvalidArgument over `bytes_max`.
Result<std::string> ReadAllOfStdin(std::size_t bytes_max);

// One line on stderr that fills as a model loads, stage by stage. Silent when stderr is no terminal.
class LoadProgress {
 public:
  explicit LoadProgress(bool enabled) : enabled_(enabled && StderrIsTerminal()) {}
  ~LoadProgress();
  // False once interrupted: the load is then cancelled.
  bool Update(std::size_t stage, float fraction);

 private:
  const bool enabled_;
  bool drawn_ = false;
  int last_permille_ = -1;
};

// The stages of a placement: layers, memory, and where their time went.
std::string StageTable(const std::vector<StageReport>& stages);

// Columns aligned by width; the first row is the heading. Numbers (cells that start with a digit) align right.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

std::string Joined(const std::vector<std::string>& names);  // by commas

// "shoal: message" on stderr; returns the exit code that fits.
int Fail(const Error& error);

}  // namespace shoal::cli
