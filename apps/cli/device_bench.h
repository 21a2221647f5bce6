// What `shoal device --bench` and `shoal bench` measure of this device, and how it is shown.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "device/advice.h"
#include "device/profile.h"
#include "node/device_speed.h"
#include "node/kernel_choice.h"
#include "node/machine_lock.h"

namespace shoal::cli {

struct DeviceFigures {
  std::string quantization;  // of `speed`
  KernelChoices choices;     // of every type that was measured here
  std::optional<DeviceSpeed> speed;
  std::shared_ptr<const MachineLock> machine;  // where it was measured: nobody else measures until this is gone
};

inline constexpr std::chrono::minutes kMeasuringWaitMax{5};  // for others, of whom each takes some two

// What is kept of `quantization` ("Q4_K_M" too; empty: as advised); with `measure` it is measured first, at most some
// twenty seconds, after whoever else measures on this machine. This process computes with what was found the fastest
// for it. Before any kernel is loaded. Errors: kInvalidArgument (no such type), kUnavailable (others measure all the
// time), and as MeasureKernels and MeasureDeviceSpeed.
Result<DeviceFigures> FiguresOf(const DeviceProfile& profile, const DeviceAdvice& advice,
                                const std::string& quantization, bool measure);

std::string PerSecondText(double bytes_s);  // "9.4 GiB/s"
std::string KernelsTable(const KernelChoice& choice);
std::string SpeedTable(const DeviceSpeed& speed);

}  // namespace shoal::cli
