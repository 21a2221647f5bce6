// Linux: /proc/meminfo and control groups. macOS: sysctl.
#include "device/memory_facts.h"

#include <algorithm>
#include <string>

#include "device/available_memory.h"
#include "device/system_values.h"

namespace shoal {

std::optional<std::uint64_t> ParseMeminfo(std::string_view meminfo, std::string_view key) {
  while (!meminfo.empty()) {
    const std::string_view line = meminfo.substr(0, meminfo.find('\n'));
    meminfo.remove_prefix(std::min(meminfo.size(), line.size() + 1));
    if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ':') continue;
    std::string_view value = Trim(line.substr(key.size() + 1));
    if (value.ends_with("kB")) value.remove_suffix(2);
    const auto kib = ParseSystemNumber(value);
    if (!kib || *kib > (UINT64_MAX >> 10)) return std::nullopt;
    return *kib << 10;
  }
  return std::nullopt;
}

MemoryFacts ReadMemoryFacts(const SystemFiles& files) {
  MemoryFacts facts;
  facts.available_bytes = AvailableMemory(files.root());
  facts.limit_bytes = MemoryLimit(files.root());
  if (const auto meminfo = files.Read("/proc/meminfo")) {
    facts.total_bytes = ParseMeminfo(*meminfo, "MemTotal");
    facts.swap_total_bytes = ParseMeminfo(*meminfo, "SwapTotal");
    facts.swap_free_bytes = ParseMeminfo(*meminfo, "SwapFree");
  } else if (files.is_live()) {
    facts.total_bytes = SystemValue("hw.memsize");
  }
  return facts;
}

}  // namespace shoal
