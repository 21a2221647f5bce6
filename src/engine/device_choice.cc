// "BACKEND[:WHICH]", checked before it becomes part of a file's name or an address.
#include "engine/device_choice.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace shoal {
namespace {

constexpr std::size_t kTextBytesMax = 256;
constexpr int kPortMax = 65535;

// The whole of `text` as a number of [0, max].
bool IsNumber(std::string_view text, int max) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 && value <= max;
}

bool IsAddress(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  const bool printable = std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
  return colon != std::string_view::npos && colon > 0 && printable && IsNumber(text.substr(colon + 1), kPortMax);
}

}  // namespace

Result<DeviceChoice> ParseDeviceChoice(std::string_view text) {
  if (text.empty() || text == "cpu") return DeviceChoice{};
  const std::size_t colon = text.find(':');
  DeviceChoice device;
  device.backend = text.substr(0, colon);
  if (colon != std::string_view::npos) device.which = text.substr(colon + 1);
  const bool named = std::all_of(device.backend.begin(), device.backend.end(),
                                 [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
  const bool said = device.backend == "rpc"           ? IsAddress(device.which)
                    : colon == std::string_view::npos ? true
                                                      : IsNumber(device.which, kDeviceNumberMax);
  if (text.size() <= kTextBytesMax && !device.backend.empty() && named && said) return device;
  return Error{ErrorCode::kInvalidArgument,
               "'" + std::string(text.substr(0, kTextBytesMax)) +
                   "' names no device: a backend of ggml in small letters and a number, like vulkan or vulkan:1; "
                   "rpc:HOST:PORT for a server; cpu for none"};
}

std::string RegistryNameOf(const std::string& backend) {
  // ggml-metal.cpp, ggml-cuda.h, ggml-hexagon.cpp.
  constexpr std::pair<const char*, const char*> kOthers[] = {{"metal", "MTL"}, {"hip", "ROCm"}, {"hexagon", "HTP"}};
  for (const auto& [name, registered] : kOthers) {
    if (backend == name) return registered;
  }
  return backend;
}

std::string DeviceChoiceText(const DeviceChoice& device) {
  if (device.none()) return "cpu";
  return device.which.empty() ? device.backend : device.backend + ":" + device.which;
}

}  // namespace shoal
