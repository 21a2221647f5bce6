// Any bytes as what a node keeps of its device (speed.json, kernels.json, pacing), or as what comes with an invite:
// reading never crashes, keeps its limits, and what is accepted is written as it can be read again.
//
// The first byte says which it is. Files of the device are of the one whose fingerprint is kDevice.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "cluster/member.h"
#include "node/device_speed.h"
#include "node/joining.h"
#include "node/kernel_choice.h"
#include "node/pacer.h"
#include "node/speed_keeper.h"

namespace shoal {
namespace {

constexpr const char* kDevice = "a chip";

void TrySpeeds(const std::string& text) {
  const KnownSpeeds speeds = ParseSpeedJson(text, kDevice);
  const std::string written = SpeedJson(speeds, kDevice);
  SHOAL_CHECK(SpeedJson(ParseSpeedJson(written, kDevice), kDevice) == written);
  DeviceFacts facts;
  FillSpeeds(speeds.devices, facts);
  FillStageSpeeds(speeds.models, facts);
  SHOAL_CHECK(facts.speeds.size() <= kSpeedsMax && facts.stage_speeds.size() <= kStageSpeedsMax);
  ModelInfo model;
  model.layer_bytes.assign(8, 64U << 20);
  for (const DeviceSpeed& speed : speeds.devices) SHOAL_CHECK(SpeedForPlans(speed, model).decode_bytes_s > 0);
}

void TryKernels(const std::string& text) {
  const KernelChoices choices = ParseKernelChoices(text, kDevice);
  SHOAL_CHECK(choices.size() <= kKernelTypesMax && (SettingOf(choices, "") == nullptr) == choices.empty());
  for (const KernelChoice& choice : choices) {
    SHOAL_CHECK(choice.best < choice.trials.size() && !choice.chosen().variant.empty());
    for (const KernelTrial& trial : choice.trials) {
      SHOAL_CHECK(trial.threads >= 1 && RequestTime(trial) > 0);
      for (const double speed : {trial.one_row_bytes_s, trial.rows_bytes_s})
        SHOAL_CHECK(speed >= 0 && speed <= kBytesPerSecondMax);
    }
    SHOAL_CHECK(ThreadsOf(choices, choice.quantization, choice.chosen().variant) >= 0);
  }
  const std::string written = KernelChoicesJson(choices, kDevice);
  SHOAL_CHECK(KernelChoicesJson(ParseKernelChoices(written, kDevice), kDevice) == written);
}

void TryPacing(const std::string& text) {
  const std::optional<Pacer::Known> known = ParsePacing(text);
  if (!known) return;
  SHOAL_CHECK(known->limited_yield > 0 && known->limited_yield < 1 && known->limit_celsius >= 0);
  Pacer pacer(*known);
  Pacer::Seen seen;
  seen.heat = {known->limit_celsius, 1, 0.5};
  for (TimeUs now = 1; now < 10 * Pacer::kEveryUs; now += Pacer::kEveryUs) {
    seen.busy_s += 2;
    pacer.Update(now, seen);
    SHOAL_CHECK(pacer.rest() >= 0 && pacer.rest() <= Pacer::kRestMax);
  }
}

void TryInviteExtras(ByteSpan bytes) {
  const Result<InviteExtras> extras = DecodeInviteExtras(bytes);
  SHOAL_CHECK(extras.ok() || extras.error().code == ErrorCode::kCorrupt);
  if (!extras.ok()) return;
  const Bytes written = EncodeInviteExtras(*extras);  // without a line that was not ended
  SHOAL_CHECK(written.size() <= bytes.size() && std::equal(written.begin(), written.end(), bytes.begin()));
}

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0: shoal::TrySpeeds(text); break;
    case 1: shoal::TryKernels(text); break;
    case 2: shoal::TryPacing(text); break;
    default: shoal::TryInviteExtras({data + 1, size - 1});
  }
  return 0;
}
