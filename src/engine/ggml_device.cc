// By name through ggml's registry: a backend that is linked in is there, another one after its library was loaded.
#include "engine/ggml_device.h"

#include <strings.h>

#include <algorithm>

#include "engine/backend_files.h"
#include "engine/llama_log.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace shoal {
namespace {

constexpr const char* kRpc = "rpc";

ggml_backend_reg_t FindRegistry(const std::string& name) {
  const std::string known_as = RegistryNameOf(name);
  for (std::size_t i = 0; i < ggml_backend_reg_count(); ++i) {
    ggml_backend_reg_t registry = ggml_backend_reg_get(i);
    if (strcasecmp(ggml_backend_reg_name(registry), known_as.c_str()) == 0) return registry;
  }
  return nullptr;
}

Result<ggml_backend_reg_t> LoadRegistry(const std::string& name) {
  if (ggml_backend_reg_t known = FindRegistry(name)) return known;
  const std::string file = BackendFile(name);
  if (file.empty()) {
    return Error{ErrorCode::kNotFound, "this build has no backend '" + name + "', and no libggml-" + name +
                                           ".so is in " + BackendFoldersText()};
  }
  LlamaErrors errors;
  if (ggml_backend_reg_t loaded = ggml_backend_load(file.c_str())) return loaded;
  return Error{ErrorCode::kNotFound, file + " is no backend for this build: " + errors.TextOr("no reason given")};
}

Result<ggml_backend_dev_t> OpenServer(ggml_backend_reg_t rpc, const std::string& address) {
  using AddServer = ggml_backend_reg_t (*)(const char* endpoint);
  const auto add = reinterpret_cast<AddServer>(ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server"));
  LlamaErrors errors;
  ggml_backend_reg_t server = add == nullptr ? nullptr : add(address.c_str());
  if (server != nullptr && ggml_backend_reg_dev_count(server) > 0) return ggml_backend_reg_dev_get(server, 0);
  return Error{ErrorCode::kUnavailable, "no RPC server at " + address + ": " + errors.TextOr("no reason given")};
}

}  // namespace

Result<ggml_backend_device*> OpenGgmlDevice(const DeviceChoice& device) {
  SHOAL_CHECK(!device.none());
  InitLlama();
  SHOAL_ASSIGN_OR_RETURN(ggml_backend_reg_t registry, LoadRegistry(device.backend));
  if (device.backend == kRpc) return OpenServer(registry, device.which);
  const std::size_t number = device.which.empty() ? 0 : std::stoul(device.which);
  const std::size_t count = ggml_backend_reg_dev_count(registry);
  if (number < count) return ggml_backend_reg_dev_get(registry, number);
  return Error{ErrorCode::kNotFound, "the backend '" + device.backend + "' sees " + std::to_string(count) +
                                         " devices; there is no " + std::to_string(number)};
}

std::string GgmlDeviceText(const ggml_backend_device* device) {
  auto* dev = const_cast<ggml_backend_dev_t>(device);
  return std::string(ggml_backend_dev_name(dev)) + ": " + ggml_backend_dev_description(dev);
}

namespace {

const char* KindName(enum ggml_backend_dev_type type) {
  switch (type) {
    case GGML_BACKEND_DEVICE_TYPE_GPU: return "GPU";
    case GGML_BACKEND_DEVICE_TYPE_IGPU: return "integrated GPU";
    case GGML_BACKEND_DEVICE_TYPE_ACCEL: return "accelerator";
    default: return "other";
  }
}

void See(ggml_backend_reg_t registry, std::vector<SeenDevice>& seen) {
  const std::size_t count = std::min(ggml_backend_reg_dev_count(registry), kSeenDevicesMax - seen.size());
  for (std::size_t i = 0; i < count; ++i) {
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(registry, i);
    if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU) continue;
    std::size_t free = 0, total = 0;
    ggml_backend_dev_memory(device, &free, &total);
    seen.push_back({ggml_backend_dev_name(device), ggml_backend_dev_description(device),
                    KindName(ggml_backend_dev_type(device)), total, free});
  }
}

}  // namespace

Result<std::vector<SeenDevice>> SeeGgmlDevices(const std::string& name) {
  InitLlama();
  std::vector<SeenDevice> seen;
  if (!name.empty()) {
    SHOAL_ASSIGN_OR_RETURN(ggml_backend_reg_t registry, LoadRegistry(name));
    See(registry, seen);
    return seen;
  }
  for (std::size_t i = 0; i < ggml_backend_reg_count(); ++i) {
    ggml_backend_reg_t registry = ggml_backend_reg_get(i);
    if (strcasecmp(ggml_backend_reg_name(registry), kRpc) != 0) See(registry, seen);
  }
  return seen;
}

std::string DeviceFingerprint(const DeviceChoice& device) {
  const std::string stamp = FileStamp(BackendFile(device.backend));
  return stamp.empty() ? std::string("ggml ") + ggml_version() : stamp;
}

}  // namespace shoal
