// Small files of /proc and /sys below a root folder, and the texts they hold: numbers and lists of CPUs.
//
// The root is "" on a device and a folder with a recorded tree in tests. What cannot be read is empty, whatever the
// reason: absent, denied by SELinux, not a file. Knows nothing of what the files mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

inline constexpr std::size_t kSystemFileBytesMax = 1U << 20;  // /proc/cpuinfo of a large server has half of that
inline constexpr std::size_t kSystemFolderEntriesMax = 4096;

class SystemFiles {
 public:
  explicit SystemFiles(std::string root = "") : root_(std::move(root)) {}

  const std::string& root() const { return root_; }
  bool is_live() const { return root_.empty(); }
  // The first kSystemFileBytesMax bytes; empty if unreadable. Blocks for one small read.
  std::optional<std::string> Read(const std::string& path) const;
  // The first line without blanks around it.
  std::optional<std::string> ReadLine(const std::string& path) const;
  // The number on the first line, decimal or with 0x.
  std::optional<std::uint64_t> ReadNumber(const std::string& path) const;
  bool Exists(const std::string& path) const;
  // Names in a folder, sorted; none if unreadable.
  std::vector<std::string> List(const std::string& path) const;

 private:
  std::string root_;
};

// Pure parts.
std::string_view Trim(std::string_view text);
// "12", "0x1f"; the whole text but for blanks around it.
std::optional<std::uint64_t> ParseSystemNumber(std::string_view text);
// "-12", with blanks around it.
std::optional<std::int64_t> ParseSystemInteger(std::string_view text);
// "48K", "2048K", "8M": a cache's size in bytes.
std::optional<std::uint64_t> ParseCacheSize(std::string_view text);
// "0-3,5,7-8" in ascending order without repetitions; empty for a number that is not below kCpusMax or for no list.
// An empty text is an empty list.
std::optional<std::vector<int>> ParseCpuList(std::string_view text);
// "0-3,5". What ParseCpuList reads.
std::string CpuListText(const std::vector<int>& cpus);

}  // namespace shoal
