// Prints the compiler flags for one build that is for this machine's CPU alone, as `shoal device` recommends them;
// nothing if its instruction sets cannot be read. Run while CMake configures, with a few files of src/device.
#include <cstdio>

#include "device/topology.h"

int main() {
  const shoal::Topology topology = shoal::ReadTopology(shoal::SystemFiles());
  if (topology.instruction_sets) {
    std::puts(shoal::BestCpuVariant(topology.architecture, *topology.instruction_sets).flags.c_str());
  }
  return 0;
}
