// A phone's cores for tests.
#pragma once

#include "device/topology.h"

namespace shoal {

// Two Cortex-A520, five Cortex-A720, one Cortex-X4, cpu0 to cpu7 in this order; those below `allowed_below` are
// granted.
inline Topology PhoneTopology(int allowed_below = 8) {
  Topology topology;
  for (int cpu = 0; cpu < 8; ++cpu) {
    Core core;
    core.cpu = cpu;
    core.allowed = cpu < allowed_below;
    core.id = CoreId{0x41, 0, cpu < 2 ? 0xd80U : cpu < 7 ? 0xd81U : 0xd82U, 0};
    topology.cores.push_back(core);
  }
  topology.groups = GroupCores(topology.cores, {});
  return topology;
}

}  // namespace shoal
