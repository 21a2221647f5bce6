// "key : value" lines; a "processor" line opens the next core.
//
// Seen in the wild and read: blanks or tabs before the colon, a capital "Processor" line that names the kind (with no
// number), cores that are missing, "Hardware" at the end.
#include "device/cpuinfo.h"

#include <algorithm>
#include <utility>

#include "device/cpu_affinity.h"
#include "device/system_files.h"

namespace shoal {
namespace {

constexpr std::size_t kFeaturesMax = 512;
constexpr std::size_t kNameBytesMax = 128;

std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words;
  while (words.size() < kFeaturesMax) {
    text = Trim(text);
    if (text.empty()) break;
    const std::size_t end = std::min(text.find_first_of(" \t"), text.size());
    words.emplace_back(text.substr(0, std::min(end, kNameBytesMax)));
    text.remove_prefix(end);
  }
  return words;
}

std::string Name(std::string_view value) { return std::string(value.substr(0, kNameBytesMax)); }

void SetField(CpuInfoEntry& entry, std::string_view key, std::string_view value) {
  const auto set = [&](std::uint32_t CoreId::*field, std::uint64_t max) {
    const auto number = ParseSystemNumber(value);
    if (!number || *number > max) return;
    if (!entry.core) entry.core.emplace();
    (*entry.core).*field = static_cast<std::uint32_t>(*number);
  };
  if (key == "CPU implementer") set(&CoreId::implementer, 0xff);
  if (key == "CPU variant") set(&CoreId::variant, 0xf);
  if (key == "CPU part") set(&CoreId::part, 0xfff);
  if (key == "CPU revision") set(&CoreId::revision, 0xf);
  if (key == "model name") entry.model_name = Name(value);
  if (key == "Features" || key == "flags") entry.features = Words(value);
}

}  // namespace

std::optional<CoreId> DecodeMidr(std::uint64_t midr) {
  if (midr == 0 || midr > UINT32_MAX) return std::nullopt;
  const auto bits = [&](int low, std::uint32_t mask) { return static_cast<std::uint32_t>(midr >> low) & mask; };
  return CoreId{bits(24, 0xff), bits(20, 0xf), bits(4, 0xfff), bits(0, 0xf)};
}

CpuInfo ParseCpuInfo(std::string_view text) {
  CpuInfo info;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view key = Trim(line.substr(0, colon));
    const std::string_view value = Trim(line.substr(colon + 1));
    if (key == "processor") {
      const auto cpu = ParseSystemNumber(value);
      if (!cpu || *cpu >= kCpusMax || info.cpus.size() >= kCpusMax) break;
      info.cpus.push_back({});
      info.cpus.back().cpu = static_cast<int>(*cpu);
    } else if (key == "Hardware") {
      info.hardware = Name(value);
    } else if (key == "Model") {
      info.model = Name(value);
    } else if (!info.cpus.empty()) {
      if (key == "vendor_id") info.vendor = Name(value);
      SetField(info.cpus.back(), key, value);
    }
  }
  return info;
}

}  // namespace shoal
