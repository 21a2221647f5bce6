// Formatting and parsing of byte sizes.
#include "base/units.h"

#include <cstdio>
#include <iterator>
#include <optional>

namespace shoal {
namespace {

constexpr std::uint64_t kParsedBytesMax = std::uint64_t{1} << 62;
constexpr std::size_t kQuotedMax = 64;

std::size_t DigitsAtFront(std::string_view text) {
  const std::size_t end = text.find_first_not_of("0123456789");
  return end == std::string_view::npos ? text.size() : end;
}

std::string Quoted(std::string_view text) {
  std::string quoted;
  quoted += '\'';
  quoted += text.substr(0, kQuotedMax);
  quoted += '\'';
  return quoted;
}

// What "", "B", "k", "KB" or " MiB" multiply by; empty when it is no unit.
std::optional<std::uint64_t> SuffixScale(std::string_view suffix) {
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  if (suffix.empty() || suffix == "B") return 1;
  std::uint64_t scale = 0;
  switch (suffix.front()) {
    case 'k':
    case 'K': scale = kKiB; break;
    case 'm':
    case 'M': scale = kMiB; break;
    case 'g':
    case 'G': scale = kGiB; break;
    default: return std::nullopt;
  }
  suffix.remove_prefix(1);
  if (suffix.empty() || suffix == "B" || suffix == "iB") return scale;
  return std::nullopt;
}

}  // namespace

std::string FormatBytes(std::uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= (unit == 0 ? 1024 : 1023.95) && unit + 1 < std::size(kNames)) {  // never "1024.0 KiB"
    value /= 1024;
    ++unit;
  }
  char text[40];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kNames[unit]);
  return text;
}

Result<std::uint64_t> ParseBytes(std::string_view text) {
  // Not std::from_chars: libc++ lacks it for floating point, and whole numbers stay exact this way.
  const Error bad{ErrorCode::kInvalidArgument,
                  Quoted(text) + " is not a size; write a number with K, M or G, like 512M"};
  const std::size_t whole_digits = DigitsAtFront(text);
  std::string_view rest = text.substr(whole_digits);
  std::size_t fraction_digits = 0;
  if (!rest.empty() && rest.front() == '.') {
    fraction_digits = DigitsAtFront(rest.substr(1));
    if (fraction_digits == 0) return bad;
    rest.remove_prefix(1 + fraction_digits);
  }
  const std::optional<std::uint64_t> scale = SuffixScale(rest);
  if (whole_digits == 0 || !scale.has_value()) return bad;

  std::uint64_t whole = 0;
  for (const char digit : text.substr(0, whole_digits)) {
    if (whole > (kParsedBytesMax - 9) / 10) return bad;
    whole = whole * 10 + static_cast<std::uint64_t>(digit - '0');
  }
  if (whole > kParsedBytesMax / *scale) return bad;
  double fraction = 0, place = 1;
  for (const char digit : text.substr(whole_digits).substr(0, fraction_digits == 0 ? 0 : 1 + fraction_digits)) {
    if (digit == '.') continue;
    place /= 10;
    fraction += (digit - '0') * place;
  }
  return whole * *scale + static_cast<std::uint64_t>(fraction * static_cast<double>(*scale) + 1e-6);
}

std::string FormatLayers(const std::vector<LayerRange>& ranges) {
  std::string text;
  for (const LayerRange& range : ranges) {
    text += (text.empty() ? "" : ", ") + std::to_string(range.first);
    if (range.count() > 1) text += "-" + std::to_string(range.last - 1);
  }
  return text;
}

}  // namespace shoal
