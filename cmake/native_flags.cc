// Prints the compiler flags for one build that is for this machine's CPU alone, as `shoal device` recommends them, and
// on a second line those without SME, for compilers that do not know it; nothing if the instruction sets cannot be
// read. Run while CMake configures, with a few files of src/device.
#include <cstdio>

#include "device/topology.h"

int main() {
  const shoal::Topology topology = shoal::ReadTopology(shoal::SystemFiles());
  if (!topology.instruction_sets) return 0;
  shoal::InstructionSets sets = *topology.instruction_sets;
  std::puts(shoal::BestCpuVariant(topology.architecture, sets).flags.c_str());
  sets.erase("sme");
  std::puts(shoal::BestCpuVariant(topology.architecture, sets).flags.c_str());
  return 0;
}
