// Does a device compute what the CPU computes? A layer or few of the stage at hand, by both, in this process.
//
// Only in a process made for the device (offload/serve.h). A device may be wrong for one kind of weights or width
// alone, so it is the real model's layers that are run.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "offload/messages.h"

namespace shoal {

// Opens the smallest part of `options.layers` that may be one stage, twice, and runs the same rows through both: a
// prompt, then rows one by one. With the output head where the stage has it.
// The CPU first, before the device's backend is loaded: one that takes part in what the CPU computes (BLAS) would else
// be compared with itself. Errors: as Engine::Open and Engine::Forward, of either.
Result<DeviceReport> CompareWithCpu(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options);

// Pure. Sum of squared differences over sum of squares; infinite when a value of either is no number.
double RelativeDifference(std::span<const float> mine, std::span<const float> reference);
// Mean over rows of the KL divergence of softmax(mine) from softmax(reference), [rows, width] each; infinite as above.
double MeanDivergence(std::span<const float> mine, std::span<const float> reference, std::size_t width);
// Counts into tokens, tokens_same and tokens_other of `report` whose rows' likeliest tokens are the same, [rows, width]
// each. A tie is neither: `reference` finds the token of `mine` at most kTieMax less likely, in nats.
inline constexpr float kTieMax = 0.5F;
void CountTokens(std::span<const float> mine, std::span<const float> reference, std::size_t width,
                 DeviceReport& report);

}  // namespace shoal
