// sysctlbyname: man 3 sysctl of macOS.
#include "device/system_values.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstring>
#endif

namespace shoal {

#if defined(__APPLE__)
std::optional<std::uint64_t> SystemValue(const char* name) {
  unsigned char bytes[8] = {};
  std::size_t size = sizeof bytes;
  if (::sysctlbyname(name, bytes, &size, nullptr, 0) != 0) return std::nullopt;
  if (size == 4) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes, 4);
    return value;
  }
  std::uint64_t value = 0;
  std::memcpy(&value, bytes, 8);
  return size == 8 ? std::optional(value) : std::nullopt;
}

std::optional<std::string> SystemText(const char* name) {
  char text[256] = {};
  std::size_t size = sizeof text - 1;
  if (::sysctlbyname(name, text, &size, nullptr, 0) != 0) return std::nullopt;
  return std::string(text);
}
#else
std::optional<std::uint64_t> SystemValue(const char*) { return std::nullopt; }
std::optional<std::string> SystemText(const char*) { return std::nullopt; }
#endif

}  // namespace shoal
