// Opens the engines of the stages here: on the device that the settings name, in a process of its own, as long as that
// device computes what the CPU does and stays alive; else on the CPU.
//
// A device that failed is left alone: one of this machine until its driver changes, a server for some time. Knows no
// placements; an engine that is lost is a stage that is lost, which pipeline/ and cluster/ see to. Any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "engine/engine.h"
#include "offload/remote_engine.h"
#include "offload/verdicts.h"
#include "runtime/clock.h"

namespace shoal {

inline constexpr DurationUs kServerRestUs = 60'000'000;  // of an RPC server that failed, until it is tried again

// What has become of the device so far.
struct DeviceState {
  enum class Use { kUntried, kComputes, kFailed };
  Use use = Use::kUntried;
  std::string text;  // which it is: "Vulkan0: llvmpipe (...)"; of one that failed: why the CPU computes
};

class StageEngines {
 public:
  // `device`: not none. `home`: SHOAL_HOME. `command`: see OffloadOptions; empty: this program's.
  StageEngines(DeviceChoice device, const std::string& home, std::vector<std::string> command = {});

  // As Engine::Open, whose errors it gives: what a device does is no error, for then it is the CPU's engine. The first
  // time a device is used for a kind of model it is compared with the CPU. Blocks while loading.
  Result<std::unique_ptr<Engine>> Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options);

  // A slice with made-up weights on the device, to measure its speed: not compared with the CPU, and never its engine.
  // Errors: as Engine::Open; kUnavailable (the device has failed); kUnsupported (its speed cannot be told from slices).
  Result<std::unique_ptr<Engine>> OpenForSpeed(std::shared_ptr<const ModelFile> model, const EngineOptions& options);
  // What a measured speed is of: device, layers, and the library as of the start; empty: the device has failed, the CPU
  // computes.
  std::string SpeedKey() const;

  const DeviceChoice& device() const { return device_; }
  DeviceState State() const;
  // `changed`: the state is another one. On any thread, also after this is gone; to be set before anything is opened.
  void OnChange(std::function<void()> changed);
  // No slice is opened any more for its speed, nor waited for. Any thread.
  void Close() { closing_ = true; }

 private:
  struct Known;  // shared with the engines that are open
  EngineOptions OnDevice(const EngineOptions& options) const;
  // Kept, or else found by comparing. Errors: kNotFound (it may be installed yet), kCancelled.
  Result<Verdict> VerdictOf(const std::shared_ptr<const ModelFile>& model, const EngineOptions& there,
                            const std::string& key);
  // `key`: of the verdict that its failure becomes.
  Result<OffloadedEngine> OpenThere(std::shared_ptr<const ModelFile> model, const EngineOptions& there,
                                    const std::string& key);

  const DeviceChoice device_;
  const std::string speed_key_;
  const std::vector<std::string> command_;
  const std::shared_ptr<Known> known_;
  std::atomic<bool> closing_{false};
};

}  // namespace shoal
