// How fast this device runs a kind of weights, measured once and kept in SHOAL_HOME/speed.json; and what that says of a
// stage's time.
//
// A measurement holds as long as the chip, the cores this process may use and ggml's version stay what they were. It is
// of cores that compute, whatever share of the time a control group's quota lets them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/profile.h"
#include "engine/matrix_speed.h"
#include "engine/stage_speed.h"
#include "model/model_info.h"
#include "planner/device_speed.h"
#include "planner/plan.h"

namespace shoal {

// Bytes a second that the cores of one group read together.
struct GroupBandwidth {
  std::string kind;  // "prime", "performance", "efficiency", "unknown"
  std::vector<int> cpus;
  double bytes_s = 0;
};

struct DeviceSpeed {
  std::string quantization;
  std::vector<int> cpus;  // that the matrix figures are of
  MatrixSpeed matrix;
  double memory_bytes_s = 0;  // read by those cores
  std::vector<GroupBandwidth> groups;
};

// How fast stages of one model run here.
struct ModelSpeed {
  std::uint64_t fingerprint = 0;  // of the model
  std::vector<int> cpus;
  MeasuredStageSpeed speed;
  std::string device;  // that computed (SpeedDevice::key); empty: the CPU
};

// What stages compute on beside the CPU, as far as measuring them is concerned.
struct SpeedDevice {
  std::string key;                         // names everything that a speed there depends on; empty: the CPU alone
  decltype(StageSpeedOptions::open) open;  // a slice's engine there
};

// The cores of a stage with `threads` threads, the fastest first (0: as many as there are fast cores, and a control
// group's quota feeds); fewer where there are not so many cores.
std::vector<int> SpeedCpus(const DeviceProfile& profile, std::int32_t threads);

// What is kept for this device; nothing if that is of another device or build.
struct KnownSpeeds {
  std::vector<DeviceSpeed> devices;
  std::vector<ModelSpeed> models;
  // Of these and `cpus` (SpeedCpus); null if nothing is.
  const DeviceSpeed* Of(const std::string& quantization, const std::vector<int>& cpus) const;
  const ModelSpeed* Of(std::uint64_t fingerprint, const std::vector<int>& cpus, const std::string& device = "") const;
};
KnownSpeeds LoadSpeeds(const std::string& home, const DeviceProfile& profile);
// In place of what is kept. Errors: kIo; that is then as it was.
Status SaveSpeeds(const std::string& home, const DeviceProfile& profile, const KnownSpeeds& speeds);
// One of them.
std::optional<DeviceSpeed> LoadDeviceSpeed(const std::string& home, const DeviceProfile& profile,
                                           const std::string& quantization, const std::vector<int>& cpus);
// Measures on `cpus`, about two seconds, and keeps it. Errors: as MeasureMatrixSpeed; what cannot be kept is only
// logged.
Result<DeviceSpeed> MeasureDeviceSpeed(const std::string& home, const DeviceProfile& profile,
                                       const std::string& quantization, const std::vector<int>& cpus);

// The same of stages of one model: about seven seconds. Errors: as MeasureStageSpeed.
Result<ModelSpeed> MeasureModelSpeed(const std::string& home, const DeviceProfile& profile, std::uint64_t fingerprint,
                                     const std::shared_ptr<const ModelFile>& model, const std::vector<int>& cpus,
                                     const SpeedDevice& device = {});

// Share of the time in which `threads` threads may compute under a quota of so many cores' time; empty: there is none.
double RationOf(std::optional<double> cpu_quota, std::size_t threads);

// Speeds for the planner, for a model like `model`: the small operations of a layer are counted into its bytes.
PlanDevice SpeedForPlans(const DeviceSpeed& speed, const ModelInfo& model);

// Pure parts, for tests. Text of speed.json.
std::string FingerprintOf(const DeviceProfile& profile);
std::string SpeedJson(const KnownSpeeds& speeds, const std::string& fingerprint);
// Empty for what is not such a text, or has another fingerprint.
KnownSpeeds ParseSpeedJson(const std::string& text, const std::string& fingerprint);

}  // namespace shoal
