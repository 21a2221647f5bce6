// An engine that computes in a process of its own, on a device that may crash it: a graphics driver, a server of
// ggml's RPC that goes.
//
// When that process ends, however it ends, the engine is lost and this process is not: Forward says kUnavailable, the
// stage is lost like one on another node, and what is above goes on without it. Knows no stages and no settings.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "offload/messages.h"

namespace shoal {

struct OffloadOptions {
  // The program and its words: it has to call ServeOffload (offload/serve.h) and nothing before.
  std::vector<std::string> command;
  // The engine that was open is lost. Once, on the thread that found out; not after the engine is destroyed.
  std::function<void(const Error& why)> on_lost;
  std::chrono::milliseconds silence_max{60'000};  // of a call, without a word from the process: it hangs, and is ended
  // The same of the first pass of each number of rows, up to the next power of two: drivers compile what is used.
  std::chrono::milliseconds first_silence_max{300'000};
};

// Opens options.device in a new process, and the engine there. Weights go there as they are read here.
// Errors: as Engine::Open; kNotFound (no such device); kUnavailable (the process ended, or was ended since it said
// nothing for long; says how). Blocks while loading.
struct OffloadedEngine {
  std::unique_ptr<Engine> engine;
  std::string device;  // "Vulkan0: llvmpipe (...)"
};
Result<OffloadedEngine> OpenOffloaded(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                      OffloadOptions offload);

// Compares the device with the CPU in a new process: a layer or few of the stage, computed by both. Loads those twice.
// Errors: as OpenOffloaded. That the difference is too large is no error: DeviceReport::passed.
Result<DeviceReport> CheckOffloaded(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                    const std::vector<std::string>& command);

}  // namespace shoal
