// Places threads on CPUs by number. Where a system has no such call (macOS), placing does nothing.
//
// Knows nothing of which CPUs are big or little; the caller chooses.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"

namespace shoal {

inline constexpr int kCpusMax = 512;  // CPU numbers are below this

// CPUs the calling thread may run on, ascending; empty if the system does not say.
std::vector<int> AllowedCpus();

// Errors: kInvalidArgument, for a CPU that is negative, too large, or named twice.
Status CheckCpus(std::span<const int> cpus);

// The calling thread runs on `cpus` only from now on. Errors: kInvalidArgument (none of them is there or allowed).
Status PinThisThread(std::span<const int> cpus);

}  // namespace shoal
