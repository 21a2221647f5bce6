// What this device is, as far as the system says. Knows no cluster.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/member.h"

namespace shoal {

// What the system calls this device; "node" when it says nothing.
std::string HostName();

// Memory is as of now. `memory_bytes_max`: what stages may take; 0: most of what is free. Blocks for some small reads.
DeviceFacts MeasureDevice(std::uint64_t memory_bytes_max);

}  // namespace shoal
