// Reads with a limit; parses with from_chars, so no text is too strange.
#include "device/system_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>

#include "device/cpu_affinity.h"

namespace shoal {
namespace {

template <typename T>
std::optional<T> ParseWhole(std::string_view text, int base) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::string> SystemFiles::Read(const std::string& path) const {
  struct stat info {};
  const std::string full = root_ + path;
  if (::stat(full.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  std::ifstream in(full, std::ios::binary);
  if (!in) return std::nullopt;
  // Files of /proc say size 0 and are read piece by piece.
  std::string text;
  char piece[4096];
  while (text.size() < kSystemFileBytesMax) {
    in.read(piece, static_cast<std::streamsize>(std::min(sizeof piece, kSystemFileBytesMax - text.size())));
    if (in.gcount() <= 0) break;
    text.append(piece, static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) return std::nullopt;
  return text;
}

std::optional<std::string> SystemFiles::ReadLine(const std::string& path) const {
  const auto text = Read(path);
  if (!text) return std::nullopt;
  return std::string(Trim(std::string_view(*text).substr(0, text->find('\n'))));
}

std::optional<std::uint64_t> SystemFiles::ReadNumber(const std::string& path) const {
  const auto line = ReadLine(path);
  return line ? ParseSystemNumber(*line) : std::nullopt;
}

bool SystemFiles::Exists(const std::string& path) const {
  struct stat info {};
  return ::stat((root_ + path).c_str(), &info) == 0;
}

std::vector<std::string> SystemFiles::List(const std::string& path) const {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(root_ + path, error);
  while (!error && entry != std::filesystem::directory_iterator() && names.size() < kSystemFolderEntriesMax) {
    names.push_back(entry->path().filename().string());
    entry.increment(error);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlanks{" \t\r\n\0", 5};
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::optional<std::uint64_t> ParseSystemNumber(std::string_view text) {
  text = Trim(text);
  if (text.starts_with("0x") || text.starts_with("0X")) return ParseWhole<std::uint64_t>(text.substr(2), 16);
  return ParseWhole<std::uint64_t>(text, 10);
}

std::optional<std::int64_t> ParseSystemInteger(std::string_view text) {
  return ParseWhole<std::int64_t>(Trim(text), 10);
}

std::optional<std::uint64_t> ParseCacheSize(std::string_view text) {
  text = Trim(text);
  if (text.empty()) return std::nullopt;
  std::uint64_t unit = 1;
  if (text.back() == 'K') unit = 1U << 10;
  if (text.back() == 'M') unit = 1U << 20;
  if (unit > 1) text.remove_suffix(1);
  const auto value = ParseWhole<std::uint64_t>(text, 10);
  if (!value || *value > (std::uint64_t{1} << 40) / unit) return std::nullopt;
  return *value * unit;
}

std::optional<std::vector<int>> ParseCpuList(std::string_view text) {
  std::set<int> cpus;
  text = Trim(text);
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    const std::string_view item = Trim(text.substr(0, comma));
    const std::size_t dash = item.find('-');
    const auto first = ParseWhole<int>(item.substr(0, dash), 10);
    const auto last = dash == std::string_view::npos ? first : ParseWhole<int>(item.substr(dash + 1), 10);
    if (!first || !last || *first < 0 || *last < *first || *last >= kCpusMax) return std::nullopt;
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.insert(cpu);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return std::nullopt;
  }
  return std::vector<int>(cpus.begin(), cpus.end());
}

std::string CpuListText(const std::vector<int>& cpus) {
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(cpus[i]);
    if (last > i) text += "-" + std::to_string(cpus[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace shoal
