// Places threads on CPUs by number. Where a system has no such call (macOS), placing does nothing.
//
// Knows nothing of which CPUs are big or little; the caller chooses.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"

namespace shoal {

inline constexpr int kCpusMax = 512;  // CPU numbers are below this

// CPUs the calling thread may run on, ascending; empty if the system does not say.
std::vector<int> AllowedCpus();

// How many those are; where the system does not say, how many there are. At least 1.
int AllowedCpuCount();

// CPUs that the process may run on, by its first thread, which is never placed; ascending; empty if unknown.
std::vector<int> ProcessCpus();

// Errors: kInvalidArgument, for a CPU that is negative, too large, or named twice.
Status CheckCpus(std::span<const int> cpus);

// The calling thread runs on `cpus` only from now on. Errors: kInvalidArgument (none of them is there or allowed).
Status PinThisThread(std::span<const int> cpus);

// The calling thread runs where the process may, wherever its creator was placed.
void UseProcessCpus();

// Runs `work` once on the calling thread and once on each of new ones called `name` (at most 15 bytes): as many in all
// as there are CPUs for the calling one, at most `most`; fewer where the system has no more threads. Returns when all
// have ended. `work` must not throw.
void OnAllCpus(const char* name, std::size_t most, const std::function<void(bool is_caller)>& work);

// Threads made while it lives run on `cpus` only (with none given, anywhere): a new thread begins where its creator is.
// The calling thread is where it was when it ends. What the system refuses is not done.
class PlacedWhile {
 public:
  explicit PlacedWhile(const std::vector<int>& cpus);
  ~PlacedWhile();
  PlacedWhile(const PlacedWhile&) = delete;
  PlacedWhile& operator=(const PlacedWhile&) = delete;

 private:
  std::vector<int> before_;  // empty: nothing to restore
};

}  // namespace shoal
