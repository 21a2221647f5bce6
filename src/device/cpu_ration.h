// How much processor time control groups grant this process: a container's or a service's CPU quota.
#pragma once

#include <optional>
#include <string>

namespace shoal {

// Processors' worth of time, the least of all groups this process is in: 0.5 is half of one core. Empty: no quota, or
// none that can be read. `root` is put before /proc and /sys (tests). Blocks for some small file reads.
std::optional<double> CpuQuota(const std::string& root = "");

}  // namespace shoal
