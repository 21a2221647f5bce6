// Plans of changed inputs; shares and factors by bisection.
#include "planner/what_if.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "planner/device_speed.h"

namespace shoal {
namespace {

constexpr int kBisections = 12;
constexpr std::int64_t kStepsMax = 500'000;  // of each plan: dozens are asked for
constexpr double kFasterMax = 64;
constexpr double kSmallerMin = 0.1;

PlanInput Without(const PlanInput& input, std::size_t left_out) {
  PlanInput fewer = input;
  const std::size_t count = input.devices.size();
  fewer.devices.erase(fewer.devices.begin() + static_cast<std::ptrdiff_t>(left_out));
  fewer.links.clear();
  for (std::size_t i = 0; i < count * count; ++i) {
    if (i / count != left_out && i % count != left_out) fewer.links.push_back(input.links[i]);
  }
  return fewer;
}

PlanInput WithTwin(const PlanInput& input, std::size_t of, const PlanLink& alone) {
  PlanInput more = input;
  const std::size_t count = input.devices.size();
  more.devices.push_back(input.devices[of]);
  more.devices.back().name = "another " + input.devices[of].name;
  std::optional<PlanLink> fastest;
  for (std::size_t other = 0; other < count; ++other) {
    const PlanLink& link = input.links[of * count + other];
    if (other != of && (!fastest || link.latency_s < fastest->latency_s)) fastest = link;
  }
  const PlanLink between = fastest.value_or(alone);
  more.links.assign((count + 1) * (count + 1), {});
  for (std::size_t from = 0; from <= count; ++from) {
    for (std::size_t to = 0; to <= count; ++to) {
      const std::size_t a = from == count ? of : from, b = to == count ? of : to;
      more.links[from * (count + 1) + to] = a == b ? between : input.links[a * count + b];
    }
  }
  return more;
}

std::optional<Plan> PlanOf(PlanInput input) {
  input.policy.exact_steps_max = std::min(input.policy.exact_steps_max, kStepsMax);
  const auto result = MakePlan(input);
  return result.ok() ? std::optional(result->plan) : std::nullopt;
}

// The plan for one stream alone: nothing but the tokens of its answer counts, on whatever devices are best.
PlanInput ForOneStream(PlanInput input) {
  input.policy.objective = PlanObjective::kLatency;
  input.policy.spread = false;
  input.policy.alone_within = 0;
  input.workload.prompt_tokens = 1;
  return input;
}

bool Reaches(const PlanInput& input, double tokens_s) {
  const auto plan = PlanOf(input);
  return plan && plan->tokens_s >= tokens_s;
}

// The value nearest to `from` between it and `to` at which `enough` holds; empty if not even at `to`.
std::optional<double> Nearest(double from, double to, const std::function<bool(double)>& enough) {
  if (!enough(to)) return std::nullopt;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (from + to) / 2;
    (enough(middle) ? to : from) = middle;
  }
  return to;
}

}  // namespace

std::vector<WhatIf> WithoutEach(const PlanInput& input, const Plan& plan) {
  std::vector<WhatIf> answers;
  for (const PlanStage& stage : plan.stages) {
    if (answers.size() >= kWhatIfDevicesMax) break;
    const auto device = static_cast<std::size_t>(stage.device);
    answers.push_back({input.devices[device].name, PlanOf(Without(input, device))});
  }
  return answers;
}

std::vector<WhatIf> WithTwinOfEach(const PlanInput& input, const PlanLink& alone) {
  std::vector<WhatIf> answers;
  for (std::size_t d = 0; d < input.devices.size() && d < kWhatIfDevicesMax; ++d) {
    if (input.devices.size() >= kPlanDevicesMax) break;
    answers.push_back({input.devices[d].name, PlanOf(WithTwin(input, d, alone))});
  }
  return answers;
}

Reach WhatReaches(const PlanInput& given, const Plan& plan, double tokens_s, const PlanLink& alone) {
  const PlanInput input = ForOneStream(given);
  Reach reach;
  reach.already = plan.tokens_s >= tokens_s;
  if (reach.already) return reach;
  const std::optional<Plan> best = PlanOf(input);
  if (best && best->tokens_s >= tokens_s) {
    reach.other_plan = best;
    return reach;
  }
  reach.faster_devices = Nearest(1, kFasterMax, [&](double factor) {
    PlanInput faster = input;
    for (PlanDevice& device : faster.devices) device = Faster(std::move(device), factor);
    return Reaches(faster, tokens_s);
  });
  reach.smaller_weights = Nearest(1, kSmallerMin, [&](double share) {
    PlanInput smaller = input;
    for (std::uint64_t& bytes : smaller.model.layer_bytes) {
      bytes = std::max<std::uint64_t>(static_cast<std::uint64_t>(static_cast<double>(bytes) * share), 1);
    }
    smaller.model.output_bytes = static_cast<std::uint64_t>(static_cast<double>(smaller.model.output_bytes) * share);
    return Reaches(smaller, tokens_s);
  });
  PlanInput no_delays = input;
  for (PlanLink& link : no_delays.links) link.latency_s = 0;
  if (const auto plan = PlanOf(no_delays); plan && plan->tokens_s >= tokens_s) reach.links_only = plan->tokens_s;
  for (std::size_t d = 0; d < input.devices.size() && d < kWhatIfDevicesMax; ++d) {
    if (Reaches(WithTwin(input, d, alone), tokens_s)) reach.twins.push_back(input.devices[d].name);
  }
  return reach;
}

}  // namespace shoal
