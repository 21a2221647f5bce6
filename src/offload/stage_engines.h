// Opens the engines of the stages here: on the device that the settings name, in a process of its own, as long as that
// device computes what the CPU does and stays alive; else on the CPU.
//
// A device that failed is left alone: one of this machine until its driver changes, a server for some time. Knows no
// placements; an engine that is lost is a stage that is lost, which pipeline/ and cluster/ see to. Any thread.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "engine/engine.h"
#include "offload/verdicts.h"
#include "runtime/clock.h"

namespace shoal {

inline constexpr DurationUs kServerRestUs = 60'000'000;  // of an RPC server that failed, until it is tried again

class StageEngines {
 public:
  // `device`: not none. `home`: SHOAL_HOME. `command`: see OffloadOptions; empty: this program's.
  StageEngines(DeviceChoice device, const std::string& home, std::vector<std::string> command = {});

  // As Engine::Open, whose errors it gives: what a device does is no error, for then it is the CPU's engine. The first
  // time a device is used for a kind of model it is compared with the CPU. Blocks while loading.
  Result<std::unique_ptr<Engine>> Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options);

 private:
  struct Known;  // shared with the engines that are open
  Result<std::unique_ptr<Engine>> OpenOnDevice(std::shared_ptr<const ModelFile> model, const EngineOptions& options);

  const DeviceChoice device_;
  const std::vector<std::string> command_;
  const std::shared_ptr<Known> known_;
};

}  // namespace shoal
