// Opens the engines of the stages here: on the device that the settings name, in a process of its own, as long as that
// device computes what the CPU does and stays alive; else on the CPU.
//
// A device that failed at a model is left alone with it: one of this machine until its driver changes, a server for
// some time; a server that is gone is so for all. Knows no placements; an engine that is lost is a stage that is lost,
// which pipeline/ and cluster/ see to. Any thread.
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
#include "weights/manifest.h"

namespace shoal {

inline constexpr DurationUs kServerRestUs = 60'000'000;  // of an RPC server that failed, until it is tried again

// What has become of the device so far.
struct DeviceState {
  enum class Use {
    kUntried,
    kComputes,
    kFailed
  };  // of all models: kComputes with one of them is that, kFailed with all
  Use use = Use::kUntried;
  std::string text;  // which it is: "Vulkan0: llvmpipe (...)"; of what it failed at: "smollm2: why the CPU computes"
  bool operator==(const DeviceState&) const = default;
};

class StageEngines {
 public:
  // `device`: not none. `home`: SHOAL_HOME. `command`: see OffloadOptions; empty: this program's.
  StageEngines(DeviceChoice device, const std::string& home, std::vector<std::string> command = {});

  // As Engine::Open, whose errors it gives: what a device does is no error, for then it is the CPU's engine. The first
  // time a device is used for a model it is compared with the CPU. Blocks while loading.
  Result<std::unique_ptr<Engine>> Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options);

  // A slice with made-up weights on the device, to measure its speed: not compared with the CPU, and never its engine.
  // Errors: as Engine::Open; kUnavailable (the device has failed); kUnsupported (its speed cannot be told from slices).
  Result<std::unique_ptr<Engine>> OpenForSpeed(std::shared_ptr<const ModelFile> model, const EngineOptions& options);
  // What a measured speed of a model is of: device, layers, and the library as of the start; empty: the device has
  // failed at that model, the CPU computes.
  std::string SpeedKey(ModelFingerprint model) const;

  const DeviceChoice& device() const { return device_; }
  DeviceState State() const;  // of all models together
  // `changed`: the state is another one, or that of a model. On any thread, also after this is gone; to be set before
  // anything is opened.
  void OnChange(std::function<void()> changed);
  // No slice is opened any more for its speed, nor waited for. Any thread.
  void Close() { closing_ = true; }

 private:
  struct Known;  // shared with the engines that are open
  struct Subject;
  Result<Subject> SubjectOf(const ModelFile& model, LayerRange layers) const;
  EngineOptions OnDevice(const EngineOptions& options) const;
  // Kept, or else found by comparing. Errors: kNotFound (it may be installed yet), kCancelled.
  Result<Verdict> VerdictOf(const std::shared_ptr<const ModelFile>& model, const EngineOptions& there,
                            const Subject& subject);
  // `subject`: what its failure is a verdict about.
  Result<OffloadedEngine> OpenThere(std::shared_ptr<const ModelFile> model, const EngineOptions& there,
                                    const Subject& subject);

  const DeviceChoice device_;
  const std::string speed_key_;
  const std::vector<std::string> command_;
  const std::shared_ptr<Known> known_;
  std::atomic<bool> closing_{false};
};

}  // namespace shoal
