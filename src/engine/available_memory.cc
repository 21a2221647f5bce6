// Linux: /proc/meminfo and memory controllers of cgroup v2 and v1. Elsewhere: free physical pages.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
#include "engine/available_memory.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#if defined(__APPLE__)
#include <mach/mach.h>
#endif

namespace shoal {
namespace {

constexpr std::size_t kFileBytesMax = 64U << 10;
constexpr int kGroupDepthMax = 64;

std::string ReadSmallFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kFileBytesMax, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return text;
}

std::string_view FirstLine(std::string_view text) { return text.substr(0, text.find('\n')); }

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// What is left in one group. File pages that the kernel would drop first do not count as taken.
std::optional<std::uint64_t> LeftIn(const std::string& folder, const char* limit_file, const char* usage_file,
                                    std::string_view cache_key) {
  const auto limit = ParseLimit(ReadSmallFile(folder + limit_file));
  const auto usage = ParseLimit(ReadSmallFile(folder + usage_file));
  if (!limit || !usage) return std::nullopt;
  const std::uint64_t cache = ParseStat(ReadSmallFile(folder + "/memory.stat"), cache_key);
  const std::uint64_t taken = *usage - std::min(*usage, cache);
  return *limit - std::min(*limit, taken);
}

void TakeLess(std::optional<std::uint64_t>& least, std::optional<std::uint64_t> value) {
  if (value && (!least || *value < *least)) least = value;
}

// Every group from `path` up to the root of the hierarchy may have a limit.
void WalkGroups(std::optional<std::uint64_t>& least, const std::string& mount, std::string path, bool v2) {
  for (int depth = 0; depth < kGroupDepthMax; ++depth) {
    const std::string folder = mount + path;
    TakeLess(least, v2 ? LeftIn(folder, "/memory.max", "/memory.current", "inactive_file")
                       : LeftIn(folder, "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"));
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) return;
    path.resize(slash);
  }
}

void LookAtGroups(std::optional<std::uint64_t>& least, const std::string& root) {
  std::istringstream groups(ReadSmallFile(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    if (controllers.empty()) {
      WalkGroups(least, root + "/sys/fs/cgroup", path, true);
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      WalkGroups(least, root + "/sys/fs/cgroup/memory", path, false);
    }
  }
}

}  // namespace

std::optional<std::uint64_t> ParseMemAvailable(std::string_view meminfo) {
  constexpr std::string_view kKey = "MemAvailable:";
  const std::size_t at = meminfo.find(kKey);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = FirstLine(meminfo.substr(at + kKey.size()));
  const std::size_t digits = rest.find_first_of("0123456789");
  if (digits == std::string_view::npos) return std::nullopt;
  const auto kib = ParseNumber(rest.substr(digits));
  if (!kib) return std::nullopt;
  return *kib * 1024;
}

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
  TakeLess(least, ParseMemAvailable(ReadSmallFile(root + "/proc/meminfo")));
  LookAtGroups(least, root);
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

}  // namespace shoal
