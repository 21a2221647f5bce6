// What beside the CPU a stage may compute on, as a person names it: "vulkan", "vulkan:1", "rpc:192.168.1.7:50052".
//
// Pure. Knows no ggml: engine/ggml_device.h opens what is named here, offload/ does so in a process of its own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace shoal {

struct DeviceChoice {
  std::string backend;      // ggml's backend in small letters: "rpc", "vulkan", "opencl", ...; empty: the CPU alone
  std::string which;        // "rpc": HOST:PORT of a server; else the device's number there, "" being "0"
  std::int32_t layers = 0;  // so many of a stage's layers, its last ones, and the output head behind them; 0: all

  bool none() const { return backend.empty(); }
  bool operator==(const DeviceChoice&) const = default;
};

inline constexpr std::int32_t kDeviceNumberMax = 63;

// Without `layers`. "" and "cpu" are none. Errors: kInvalidArgument, saying how it is written.
Result<DeviceChoice> ParseDeviceChoice(std::string_view text);
// What ggml's registry calls the backend that a library and a person call `backend`: "metal" -> "MTL". Case aside.
std::string RegistryNameOf(const std::string& backend);
// "vulkan:1"; "cpu" for none.
std::string DeviceChoiceText(const DeviceChoice& device);

}  // namespace shoal
