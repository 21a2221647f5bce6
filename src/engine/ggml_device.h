// Devices of ggml beside the CPU. A backend may end the process when it is first touched (a driver that crashes, a
// server that goes): only processes that were made for a stage open one (offload/).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/device_choice.h"

struct ggml_backend_device;

namespace shoal {

// Loads the backend's library from beside the program, or takes the one that is linked in, and opens the device.
// Blocks: a driver starts, a server is connected. One thread at a time.
// Errors: kNotFound (no such backend here, no such device), kUnavailable (no such server).
Result<ggml_backend_device*> OpenGgmlDevice(const DeviceChoice& device);

// "Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits)".
std::string GgmlDeviceText(const ggml_backend_device* device);

// One device that a backend sees.
struct SeenDevice {
  std::string name, description;                   // "Vulkan0", "llvmpipe (LLVM 15.0.6, 256 bits)"
  std::string kind;                                // "GPU", "integrated GPU", "accelerator", "other"
  std::uint64_t memory_bytes = 0, free_bytes = 0;  // 0: it does not say
  bool operator==(const SeenDevice&) const = default;
};
inline constexpr std::size_t kSeenDevicesMax = 64;  // of one backend

// What the backend `name` sees; of "" those that are linked into the program, without the CPU's and RPC. As
// OpenGgmlDevice: only in a process made for it. Errors: kNotFound.
Result<std::vector<SeenDevice>> SeeGgmlDevices(const std::string& name);

// What a verdict about this device is of: the library's path, size and time of change, or ggml's version. Touches no
// backend.
std::string DeviceFingerprint(const DeviceChoice& device);

}  // namespace shoal
