// Which layers of a model run on which device: the planner's answer for what was asked, or what was asked, judged.
// Pure: knows no members and no time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cluster/member.h"
#include "cluster/placement_record.h"
#include "planner/device_speed.h"
#include "planner/plan.h"

namespace shoal {

struct SplitDevice {
  std::string name;
  std::uint64_t memory_bytes = 0;  // for this model's stage
  DeviceFacts facts;               // speeds; where none is measured, cores stand for it
};

struct SplitInput {
  ModelShape shape;
  std::uint64_t fingerprint = 0;  // of the model, and
  std::string quantization;       // of most of its weights: which measured speeds are its
  std::vector<SplitDevice> devices;
  std::vector<PlanLink> links;  // [devices, devices]; empty: none is measured
  // How many stages. 0: with PlaceGoal::kSpread one on every device that can hold a layer, but no more than the model
  // can be cut into; else as many as are best.
  std::int32_t stages = 0;
  bool in_order = false;           // on the first devices, in the order given; else the plan chooses
  std::vector<LayerRange> ranges;  // if not empty: exactly these, on the first devices
  PlaceGoal goal = PlaceGoal::kSpread;
  PlaceOptions options;
  std::int64_t steps_max = 300'000;  // of the exact search, about 12 ms; then the best so far
};

struct SplitStage {
  std::int32_t device = 0;  // index into the devices given
  LayerRange layers;
};

struct Split {
  std::vector<SplitStage> stages;
  PlacementForecast forecast;
};

// Of what a stage keeps of the hidden states that it sent, until they came through the whole pipeline.
std::uint64_t SentBytes(std::uint32_t n_embd, const PlaceOptions& options);

// Bytes that layers take on a node: weights, K and V for `context_tokens`, the output head on the last stage, on the
// others the hidden states that they keep of what they sent. Nothing where the model does not have these layers.
std::uint64_t StageBytes(const ModelShape& shape, LayerRange layers, const PlaceOptions& options);
// Of its stage `index`.
inline std::uint64_t StageBytes(const PlacementRecord& record, std::int32_t index) {
  return StageBytes(record.request.shape, record.LayersOf(index), record.request.options);
}

// What this device measured of stages of the model, or else of its kind of weights, at its pace; empty: neither.
std::optional<PlanDevice> MeasuredSpeeds(const DeviceFacts& facts, std::uint64_t fingerprint,
                                         const std::string& quantization,
                                         const std::vector<std::uint64_t>& layer_bytes);

// What these layers weigh in the cost model.
StageLoad LoadOf(const ModelShape& shape, LayerRange layers, const PlaceOptions& options);

// Errors: kInvalidArgument (ranges that are not the model's, cuts that are not allowed, more stages than devices or
// cuts), kOutOfMemory (says how much is missing), kNotFound (no device).
Result<Split> SplitModel(const SplitInput& input);

// What stages that are there may be expected to do. The same errors.
Result<PlacementForecast> ForecastOf(const SplitInput& input, const std::vector<SplitStage>& stages);

}  // namespace shoal
