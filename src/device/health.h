// What commonly goes wrong on a device that should stay up: killed in the background, asleep, throttled, walled off.
//
// Each check says ok, problem or unknown, what it found, and what to do. Without root much is unknown on Android; then
// the advice says where to look. Blocks for some small reads and programs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "device/command.h"
#include "device/profile.h"
#include "device/system_files.h"

namespace shoal {

enum class HealthState { kOk, kProblem, kUnknown };
const char* HealthStateName(HealthState state);  // "ok", "problem", "unknown"

struct HealthCheck {
  std::string name;  // "wake lock"
  HealthState state = HealthState::kUnknown;
  std::string found;
  std::string advice;  // empty when there is nothing to do
};

// Whether the system's clock follows a time server; empty if the kernel does not say.
std::optional<bool> ClockIsSynchronized();

std::vector<HealthCheck> CheckHealth(const DeviceProfile& profile, const SystemFiles& files, const CommandRunner& run,
                                     std::optional<bool> clock_synchronized);

}  // namespace shoal
