// Prints the CPU backends (cmake/cpu_variants.txt) for this machine's CPU alone, the best first: name, and the compiler
// flags for one build that is for this CPU alone, as `shoal device` recommends them. The ones after it do without SME,
// for compilers that do not know it, and without vectors of any length, which are not on every CPU the faster ones;
// nothing if the instruction sets cannot be read. Run while CMake configures, with a few files of src/device.
#include <cstdio>
#include <string>

#include "device/topology.h"

int main() {
  const shoal::Topology topology = shoal::ReadTopology(shoal::SystemFiles());
  if (!topology.instruction_sets) return 0;
  shoal::InstructionSets sets = *topology.instruction_sets;
  std::string last;
  const auto print_best = [&] {
    const shoal::CpuVariant best = shoal::BestCpuVariant(topology.architecture, sets);
    if (best.name != last) std::printf("%s %s\n", best.name.c_str(), best.flags.c_str());
    last = best.name;
  };
  print_best();
  sets.erase("sme");
  print_best();
  for (const char* set : {"sve", "sve2"}) sets.erase(set);
  print_best();
  return 0;
}
