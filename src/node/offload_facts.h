// What a node tells of the device that its stages compute on, and how their speed there is measured. Any thread.
#pragma once

#include <memory>

#include "cluster/member.h"
#include "node/device_speed.h"
#include "offload/stage_engines.h"

namespace shoal {

// Within the limits of what a member may tell.
OffloadFacts OffloadFactsOf(const StageEngines& engines);

// Of a model that the device has failed at: the CPU.
SpeedDevice SpeedDeviceOf(const std::shared_ptr<StageEngines>& engines, ModelFingerprint model);

}  // namespace shoal
