// Linux: /proc/meminfo and memory controllers of cgroup v2 and v1. Elsewhere: free physical pages.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
#include "device/available_memory.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "device/control_groups.h"
#include "device/memory_facts.h"
#include "device/system_files.h"

#if defined(__APPLE__)
#include <mach/mach.h>
#endif

namespace shoal {
namespace {

constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;

std::string_view FirstLine(std::string_view text) { return text.substr(0, text.find('\n')); }

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// One control group's files.
struct Group {
  const SystemFiles& files;
  std::string folder;
  bool v2;

  std::string Text(const char* file) const { return files.Read(folder + file).value_or(""); }
  // Without a limit, version 1 has a number close to 2^63.
  std::optional<std::uint64_t> Limit() const {
    const auto limit = ParseLimit(Text(v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    return limit && *limit < kNoLimit ? limit : std::nullopt;
  }
  // What is left. File pages that the kernel would drop first do not count as taken.
  std::optional<std::uint64_t> Left() const {
    const auto limit = Limit();
    const auto usage = ParseLimit(Text(v2 ? "/memory.current" : "/memory.usage_in_bytes"));
    if (!limit || !usage) return std::nullopt;
    const std::uint64_t cache = ParseStat(Text("/memory.stat"), v2 ? "inactive_file" : "total_inactive_file");
    const std::uint64_t taken = *usage - std::min(*usage, cache);
    return *limit - std::min(*limit, taken);
  }
};

using Measure = std::optional<std::uint64_t> (Group::*)() const;

void TakeLess(std::optional<std::uint64_t>& least, std::optional<std::uint64_t> value) {
  if (value && (!least || *value < *least)) least = value;
}

// The least that `measure` finds in any group of this process.
void LookAtGroups(std::optional<std::uint64_t>& least, const std::string& root, Measure measure) {
  const SystemFiles files(root);
  ForEachControlGroup(files, "memory", [&](const std::string& folder, bool v2) {
    TakeLess(least, (Group{files, folder, v2}.*measure)());
  });
}

}  // namespace

std::optional<std::uint64_t> ParseLimit(std::string_view text) { return ParseNumber(FirstLine(text)); }

std::uint64_t ParseStat(std::string_view stat, std::string_view key) {
  while (!stat.empty()) {
    const std::string_view line = FirstLine(stat);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      return ParseNumber(line.substr(key.size() + 1)).value_or(0);
    }
    stat.remove_prefix(std::min(stat.size(), line.size() + 1));
  }
  return 0;
}

std::optional<std::uint64_t> AvailableMemory(const std::string& root) {
  std::optional<std::uint64_t> least;
#if defined(__linux__)
  TakeLess(least, ParseMeminfo(SystemFiles(root).Read("/proc/meminfo").value_or(""), "MemAvailable"));
  LookAtGroups(least, root, &Group::Left);
#elif defined(__APPLE__)
  (void)root;
  vm_statistics64_data_t facts{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&facts), &count) ==
      KERN_SUCCESS) {
    const std::uint64_t pages = facts.free_count + facts.inactive_count + facts.purgeable_count;
    least = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  }
#else
  (void)root;
#endif
  return least;
}

MemoryRoom MemoryRoomOf(std::uint64_t allowed) {
  MemoryRoom room{allowed != 0 ? allowed : std::numeric_limits<std::uint64_t>::max(), false};
  const auto available = AvailableMemory();
  if (available && *available < room.bytes) room = {*available, true};
  return room;
}

std::optional<std::uint64_t> MemoryLimit(const std::string& root) {
  std::optional<std::uint64_t> least;
  LookAtGroups(least, root, &Group::Limit);
  return least;
}

}  // namespace shoal
