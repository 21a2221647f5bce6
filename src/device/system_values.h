// macOS's sysctl by name; on every other system there is nothing to read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace shoal {

// "hw.memsize". Empty where there is no such value.
std::optional<std::uint64_t> SystemValue(const char* name);
// "machdep.cpu.brand_string".
std::optional<std::string> SystemText(const char* name);

}  // namespace shoal
