// How much memory this process may still take: the machine's, and that of the control groups it runs in.
//
// Knows nothing of models. An answer is a snapshot: another process may take the memory right after.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace shoal {

// Bytes that can be taken without swapping or being killed; empty if the system does not say.
// `root` is put before /proc and /sys (tests). Blocks for some small file reads.
std::optional<std::uint64_t> AvailableMemory(const std::string& root = "");
// How many bytes may be taken of which `allowed` are allowed (0: any number), and whether what is available is less.
struct MemoryRoom {
  std::uint64_t bytes = 0;  // the largest number there is where neither is known
  bool is_what_is_available = false;
};
MemoryRoom MemoryRoomOf(std::uint64_t allowed);
// The tightest memory limit of the control groups this process is in; empty if there is none, or none can be read.
std::optional<std::uint64_t> MemoryLimit(const std::string& root = "");

// Pure parts.
// A limit file of a control group: empty for "max" and for anything that is no plain number.
std::optional<std::uint64_t> ParseLimit(std::string_view text);
// The value of `key` in a memory.stat text; 0 if absent.
std::uint64_t ParseStat(std::string_view stat, std::string_view key);

}  // namespace shoal
