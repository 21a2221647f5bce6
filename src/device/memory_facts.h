// A device's memory: what is built in, what may still be taken, swap, and the limits of control groups.
//
// Snapshots: another process may take what is free right after. Knows nothing of models.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "device/system_files.h"

namespace shoal {

struct MemoryFacts {
  std::optional<std::uint64_t> total_bytes;
  std::optional<std::uint64_t> available_bytes;  // without swapping, within every limit (device/available_memory.h)
  std::optional<std::uint64_t> limit_bytes;      // the tightest of the control groups this process is in
  std::optional<std::uint64_t> swap_total_bytes, swap_free_bytes;
};

MemoryFacts ReadMemoryFacts(const SystemFiles& files);

// `key` of a /proc/meminfo text ("MemTotal"), in bytes; pure.
std::optional<std::uint64_t> ParseMeminfo(std::string_view meminfo, std::string_view key);

}  // namespace shoal
