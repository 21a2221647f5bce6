// What would change a plan: without one of its devices, with one more, and what it takes to reach a speed.
//
// Pure: each answer is a plan of a changed input.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/plan.h"

namespace shoal {

inline constexpr std::size_t kWhatIfDevicesMax = 16;  // asked about at most

struct WhatIf {
  std::string device;        // its name
  std::optional<Plan> plan;  // empty: nothing holds the model then
};

// Without each device of `plan` in turn, the first kWhatIfDevicesMax of them.
std::vector<WhatIf> WithoutEach(const PlanInput& input, const Plan& plan);
// With a twin of each device in turn, whose links are those of the device; the link between the two is the fastest that
// the device has, or `alone` if it has none.
std::vector<WhatIf> WithTwinOfEach(const PlanInput& input, const PlanLink& alone);

// What it takes for one stream to reach `tokens_s`.
struct Reach {
  bool already = false;                   // by the plan that was asked about
  std::optional<Plan> other_plan;         // of the same devices, which does; then nothing else is looked for
  std::optional<double> faster_devices;   // all weights read so many times as fast
  std::optional<double> smaller_weights;  // the model at this share of its size
  std::optional<double> links_only;       // what no latency at all would reach, if that is enough
  std::vector<std::string> twins;         // devices of which one more would do
};
Reach WhatReaches(const PlanInput& input, const Plan& plan, double tokens_s, const PlanLink& alone);

}  // namespace shoal
