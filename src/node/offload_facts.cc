// Copies; the numbers of DeviceState::Use are those of OffloadUse.
#include "node/offload_facts.h"

#include <algorithm>
#include <utility>

namespace shoal {

static_assert(static_cast<int>(DeviceState::Use::kUntried) == static_cast<int>(OffloadUse::kUntried) &&
              static_cast<int>(DeviceState::Use::kComputes) == static_cast<int>(OffloadUse::kComputes) &&
              static_cast<int>(DeviceState::Use::kFailed) == static_cast<int>(OffloadUse::kFailed));

OffloadFacts OffloadFactsOf(const StageEngines& engines) {
  const DeviceState state = engines.State();
  OffloadFacts facts;
  facts.device = DeviceChoiceText(engines.device()).substr(0, kOffloadDeviceBytesMax);
  facts.layers = std::clamp(engines.device().layers, 0, static_cast<std::int32_t>(kLayersMax));
  facts.use = static_cast<OffloadUse>(state.use);
  facts.text = state.text.substr(0, kOffloadSaidBytesMax);
  return facts;
}

SpeedDevice SpeedDeviceOf(const std::shared_ptr<StageEngines>& engines, ModelFingerprint model) {
  std::string key = engines->SpeedKey(model);
  if (key.empty()) return {};
  return {std::move(key), [engines](std::shared_ptr<const ModelFile> slice, const EngineOptions& options) {
            return engines->OpenForSpeed(std::move(slice), options);
          }};
}

}  // namespace shoal
