// Which devices ggml's backends see on this machine: each asked in a process of its own, which its driver may crash or
// hang. Knows no models.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "engine/ggml_device.h"

namespace shoal {

struct BackendDevices {
  std::string backend;  // as `--device` names it; empty: those that are linked into the program
  std::vector<SeenDevice> devices;
  std::string unknown;  // why nothing is known of it: how its process ended, what it said; empty: it answered
};

inline constexpr std::chrono::milliseconds kSeeMax{20'000};  // for all of them: drivers start

// Of every backend beside the program, and of what is linked in where that sees any. All are asked at once; blocks
// until they have answered, at most `time_max` and what ends those that have not. `command`: as of OffloadOptions;
// empty: this program's.
std::vector<BackendDevices> SeeDevices(const std::vector<std::string>& command = {},
                                       std::chrono::milliseconds time_max = kSeeMax);

}  // namespace shoal
