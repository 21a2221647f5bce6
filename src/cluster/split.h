// Cuts a model's layers over devices, in proportion to memory and speed. Pure: knows no members and no time.
//
// A simple rule until there is a planner: each device's share is the smaller of its share of the speed and what its
// memory holds; nobody gets more than fits, everybody chosen gets at least one layer, cuts fall only where allowed.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cluster/member.h"
#include "cluster/placement_record.h"

namespace shoal {

struct SplitDevice {
  NodeId node;
  std::uint64_t memory_bytes = 0;  // for this model's stage
  double speed = 0;                // relative; 0: unknown, counts as the mean of the known ones
};

struct SplitStage {
  std::int32_t device = 0;  // index into the devices given
  LayerRange layers;
};

// Bytes that layers take on a node: weights, K and V for `context_tokens`, the output head on the last stage.
std::uint64_t StageBytes(const ModelShape& shape, LayerRange layers, const PlaceOptions& options);

// Stages over `devices` in their order.
//   stages   how many: 0: all devices that can hold a layer, but no more than the model can be cut into; else exactly
//            so many, the ones with the most memory (ties: the earlier), in the order given
//   ranges   if not empty: exactly these, on the first devices (then `stages` is 0 or their number)
// Errors: kInvalidArgument (ranges that are not the model's, cuts that are not allowed, more stages than devices or
// cuts), kOutOfMemory (says how much is missing), kNotFound (no device).
Result<std::vector<SplitStage>> SplitModel(const ModelShape& shape, const std::vector<SplitDevice>& devices,
                                           std::int32_t stages, const std::vector<LayerRange>& ranges,
                                           const PlaceOptions& options);

}  // namespace shoal
