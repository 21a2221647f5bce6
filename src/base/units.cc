// Formatting and parsing of byte sizes.
#include "base/units.h"

#include <charconv>
#include <cctype>
#include <cmath>
#include <cstdio>

namespace shoal {

std::string FormatBytes(std::uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kNames)) {
    value /= 1024;
    ++unit;
  }
  char text[40];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kNames[unit]);
  return text;
}

Result<std::uint64_t> ParseBytes(std::string_view text) {
  const Error bad{ErrorCode::kInvalidArgument,
                  "'" + std::string(text) + "' is not a size; write a number with K, M or G, like 512M"};
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || !std::isfinite(value) || value < 0) return bad;
  std::string_view suffix = text.substr(static_cast<std::size_t>(end - text.data()));
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  double scale = 1;
  if (!suffix.empty()) {
    switch (std::toupper(static_cast<unsigned char>(suffix.front()))) {
      case 'K': scale = kKiB; suffix.remove_prefix(1); break;
      case 'M': scale = kMiB; suffix.remove_prefix(1); break;
      case 'G': scale = kGiB; suffix.remove_prefix(1); break;
      default: break;
    }
    if (!suffix.empty() && suffix != "B" && suffix != "iB") return bad;
  }
  value *= scale;
  if (value >= 9.2e18) return bad;
  return static_cast<std::uint64_t>(value);
}

}  // namespace shoal
