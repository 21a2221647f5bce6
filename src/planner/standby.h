// Copies of stages that other devices keep loaded: who keeps which, and which losses they make harmless.
//
// Pure: a plan that is only shown and a placement that runs are judged alike.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "planner/plan.h"

namespace shoal {

// How good a device is for a copy of stage `index`, the least first: one without a stage of the model, then a neighbour
// in the pipeline, then the one with least in its memory. `stages_there`: which ones the device runs.
using CopyRank = std::tuple<bool, std::int32_t, std::uint64_t>;
CopyRank RankForCopy(const std::vector<std::int32_t>& stages_there, std::int32_t index, std::uint64_t bytes_taken);

// Where up to `copies` copies of each stage go, as far as devices have room beside their stages: [stages], devices.
std::vector<std::vector<std::int32_t>> PlanCopies(const PlanInput& input, const Plan& plan, std::int32_t copies);

// The devices any one of which may be lost with nothing loaded, as somebody else keeps a copy of all its stages: in the
// order of their first stages, each once. stages: [stages], the device of each; copies: [stages], who keeps one.
template <typename Device>
std::vector<Device> HarmlessLosses(const std::vector<Device>& stages, const std::vector<std::vector<Device>>& copies) {
  std::vector<Device> harmless, harmful;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const bool kept = std::any_of(copies[i].begin(), copies[i].end(), [&](const Device& d) { return d != stages[i]; });
    std::vector<Device>& of = kept ? harmless : harmful;
    if (std::find(of.begin(), of.end(), stages[i]) == of.end()) of.push_back(stages[i]);
  }
  std::erase_if(harmless,
                [&](const Device& d) { return std::find(harmful.begin(), harmful.end(), d) != harmful.end(); });
  return harmless;
}

}  // namespace shoal
