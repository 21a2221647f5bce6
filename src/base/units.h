// Sizes for people: "1.5 GiB". Parsing of the same. And layers: "0-9, 20".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace shoal {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kGiB = 1024 * kMiB;

// "512 B", "1.5 KiB", "98.4 MiB".
std::string FormatBytes(std::uint64_t bytes);

// "4096", "4k", "512M", "2.5G" (powers of 1024, an optional "iB" or "B"), up to 2^62; part of a byte is dropped.
// Errors: kInvalidArgument.
Result<std::uint64_t> ParseBytes(std::string_view text);

// "0-9, 20": the last layer of each range is included. `ranges`: ascending, apart from each other.
std::string FormatLayers(const std::vector<LayerRange>& ranges);

}  // namespace shoal
