// Fuzz target: the texts a system or its programs may hand out. The first byte chooses which; what is read keeps its
// limits, and a list of CPUs is written again as it was read.
#include <cstdint>
#include <cstdlib>

#include "device/available_memory.h"
#include "device/cpu_affinity.h"
#include "device/cpuinfo.h"
#include "device/instruction_sets.h"
#include "device/known_chips.h"
#include "device/memory_facts.h"
#include "device/power_facts.h"
#include "device/system_files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: {
      const shoal::CpuInfo info = shoal::ParseCpuInfo(text);
      if (info.cpus.size() > shoal::kCpusMax) std::abort();
      for (const shoal::CpuInfoEntry& entry : info.cpus) {
        if (entry.cpu < 0 || entry.cpu >= shoal::kCpusMax) std::abort();
        shoal::InstructionSetsOf(shoal::CpuArchitecture::kArm64, entry.features);
      }
      break;
    }
    case 1: {
      const auto cpus = shoal::ParseCpuList(text);
      if (cpus && shoal::ParseCpuList(shoal::CpuListText(*cpus)) != cpus) std::abort();
      break;
    }
    case 2: {
      const auto battery = shoal::ParseTermuxBattery(text);
      if (battery && battery->battery.percent && *battery->battery.percent > 100) std::abort();
      break;
    }
    case 3:
      shoal::ParseMeminfo(text, "MemAvailable");
      shoal::ParseLimit(text);
      shoal::ParseStat(text, "inactive_file");
      shoal::ParseCacheSize(text);
      break;
    default: shoal::ParseAuxv(text); shoal::FindChip(text);
  }
  return 0;
}
