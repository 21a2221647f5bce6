// What this device is, as far as the system says. Knows no cluster.
#pragma once

#include <cstdint>
#include <string>

#include "base/ids.h"
#include "cluster/member.h"

namespace shoal {

// How a node is called that nobody named: `host`, what the system calls the device. Where a whole kind of devices has
// that name (every Android is "localhost", a new Raspberry Pi "raspberrypi") a few digits of `id` follow, and
// "localhost" gives way to `board`, what the device is ("Google Pixel 8").
std::string NodeName(const std::string& host, const std::string& board, const NodeId& id);
// Of this device. May run getprop, for some milliseconds.
std::string NodeName(const NodeId& id);

// Memory is as of now. `memory_bytes_max`: what stages may take; 0: most of what is free. Blocks for some small reads.
DeviceFacts MeasureDevice(std::uint64_t memory_bytes_max);

}  // namespace shoal
