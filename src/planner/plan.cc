// Checks what is given, runs a search, and says why.
#include "planner/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>

#include "base/check.h"
#include "base/units.h"
#include "planner/cost_model.h"
#include "planner/relaxation.h"
#include "planner/search.h"

namespace shoal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kBytesMax = 1e15;  // of a layer, a row, a memory: sums stay exact enough
constexpr std::size_t kRunnersUpMax = 3;

Error Bad(const std::string& what) { return {ErrorCode::kInvalidArgument, what}; }
bool IsPositive(double value) { return value > 0 && value < kBytesMax; }
bool IsTime(double value) { return value >= 0 && value < 1e6; }

Status CheckModel(const PlanModel& model) {
  const std::size_t layers = model.layer_bytes.size();
  if (layers == 0 || layers > kPlanLayersMax || model.kv_bytes.size() != layers) {
    return Bad("the model needs 1 to " + std::to_string(kPlanLayersMax) + " layers, each with its weights and KV size");
  }
  for (std::size_t i = 0; i < layers; ++i) {
    if (!IsPositive(static_cast<double>(model.layer_bytes[i])) || static_cast<double>(model.kv_bytes[i]) > 1e9) {
      return Bad("layer " + std::to_string(i) + " has an absurd size");
    }
  }
  for (const std::uint64_t bytes : {model.output_bytes, model.head_bytes, model.hidden_bytes, model.sent_bytes}) {
    if (static_cast<double>(bytes) > kBytesMax) return Bad("the model has an absurd size");
  }
  std::int32_t previous = 0;
  for (const std::int32_t cut : model.cuts) {
    if (cut <= previous || cut >= static_cast<std::int32_t>(layers)) return Bad("the model's cuts are not in order");
    previous = cut;
  }
  return {};
}

Status CheckInput(const PlanInput& input) {
  if (input.devices.empty()) return Error{ErrorCode::kNotFound, "there is no device to plan for"};
  if (input.devices.size() > kPlanDevicesMax) return Bad("more than " + std::to_string(kPlanDevicesMax) + " devices");
  SHOAL_RETURN_IF_ERROR(CheckModel(input.model));
  for (const PlanDevice& device : input.devices) {
    if (!IsPositive(device.decode_bytes_s) || !IsPositive(device.prefill_bytes_s) || !IsPositive(device.kv_bytes_s) ||
        !IsTime(device.pass_overhead_s) || !IsTime(device.token_s) || !(device.ration > 0 && device.ration <= 1) ||
        static_cast<double>(device.memory_bytes) > kBytesMax) {
      return Bad(device.name + " has no speed or an absurd one");
    }
  }
  if (input.links.size() != input.devices.size() * input.devices.size()) return Bad("links are missing");
  for (std::size_t i = 0; i < input.links.size(); ++i) {
    if (i / input.devices.size() == i % input.devices.size()) continue;
    if (!IsTime(input.links[i].latency_s) || !IsPositive(input.links[i].bytes_s)) {
      return Bad("the link from " + input.devices[i / input.devices.size()].name + " to " +
                 input.devices[i % input.devices.size()].name + " has no speed or an absurd one");
    }
  }
  for (const PlanDevice& device : input.devices) {
    const bool known = device.idle_w + device.active_w > 0;
    if (!IsTime(device.idle_w) || !IsTime(device.active_w)) return Bad(device.name + " takes an absurd power");
    if (input.policy.objective == PlanObjective::kEnergy && !known) {
      return Bad("nothing says what power " + device.name + " takes");
    }
  }
  const PlanWorkload& work = input.workload;
  if (work.prompt_tokens < 1 || work.answer_tokens < 1 || work.streams < 1 || work.context_tokens < 1 ||
      std::max({work.prompt_tokens, work.answer_tokens, work.context_tokens}) > 1 << 24 || work.streams > 1 << 16) {
    return Bad("the workload needs at least one token of prompt, answer and context, and one stream");
  }
  if (!(input.policy.memory_headroom >= 0 && input.policy.memory_headroom < 1) || input.policy.stages_max < 0 ||
      input.policy.stages_min < 0) {
    return Bad("the share of memory that stays free must be from 0 to below 1, the number of stages not negative");
  }
  if (!(input.policy.speed_share_min > 0 && input.policy.speed_share_min <= 1) ||
      !(input.policy.battery_weight > 0 && input.policy.battery_weight <= 1000)) {
    return Bad(
        "the share of the best speed must be above 0 and at most 1, a battery's weight above 0 and at most 1000");
  }
  return {};
}

Error TooLarge(const PlanInput& input, const PlanSizes& sizes) {
  double need = sizes.memory(0, sizes.segments()) + sizes.head_extra() + sizes.last_extra(), have = 0;
  double least = need;  // that a stage takes: who has less does not count
  for (std::size_t i = 0; i < sizes.segments(); ++i) least = std::min(least, sizes.memory(i, i + 1));
  std::size_t count = 0;
  for (std::size_t d = 0; d < input.devices.size(); ++d) {
    if (sizes.room(d) < least) continue;
    have += sizes.room(d);
    ++count;
  }
  const std::string missing = need > have ? FormatBytes(static_cast<std::uint64_t>(need - have)) + " are missing"
                                          : std::string("no cut of the layers fits their shares");
  return {ErrorCode::kOutOfMemory, "the model needs " + FormatBytes(static_cast<std::uint64_t>(need)) +
                                       " with this context, the " + std::to_string(count) +
                                       (count == 1 ? " device has " : " devices have ") +
                                       FormatBytes(static_cast<std::uint64_t>(have)) + " for it: " + missing +
                                       "; use a smaller context, a smaller model, or another device"};
}

std::vector<PlanStage> StagesOf(const PlanSizes& sizes, const SegmentPlan& plan) {
  std::vector<PlanStage> stages;
  for (std::size_t i = 0; i < plan.devices.size(); ++i) {
    const std::size_t end = i + 1 < plan.devices.size() ? plan.starts[i + 1] : sizes.segments();
    stages.push_back({static_cast<std::int32_t>(plan.devices[i]), {sizes.place(plan.starts[i]), sizes.place(end)}});
  }
  return stages;
}

SegmentPlan SegmentsOf(const PlanSizes& sizes, const Plan& plan) {
  SegmentPlan segments;
  std::size_t at = 0;
  for (const PlanStage& stage : plan.stages) {
    while (sizes.place(at) < stage.layers.first) ++at;
    segments.devices.push_back(static_cast<std::size_t>(stage.device));
    segments.starts.push_back(at);
  }
  return segments;
}

std::string Times(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", ratio);
  return text;
}

std::string Names(const PlanInput& input, const Plan& plan) {
  std::string text;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    if (i > 0) text += i + 1 == plan.stages.size() ? " and " : ", ";
    text += input.devices[static_cast<std::size_t>(plan.stages[i].device)].name;
  }
  return text;
}

std::string EnergyReason(const PlanInput& input, const PlanResult& result) {
  const Plan& plan = result.plan;
  char joules[48];
  std::snprintf(joules, sizeof joules, "%.3g J a token", plan.joules_token);
  std::string text = Names(input, plan) + (plan.stages.size() == 1 ? " alone takes " : " together take ") + joules;
  if (!result.fastest) return text + ".";
  if (result.fastest->stages == plan.stages) return text + ", and nothing is faster.";
  const Plan& fastest = *result.fastest;
  return text + "; " + Names(input, fastest) + (fastest.stages.size() == 1 ? " alone" : "") + " would answer " +
         Times(plan.request_s / fastest.request_s) + " times as fast with " +
         Times(fastest.joules_token / plan.joules_token) + " times the energy.";
}

std::string ReasonOf(const PlanInput& input, const PlanResult& result) {
  if (input.policy.objective == PlanObjective::kEnergy) return EnergyReason(input, result);
  const Plan& plan = result.plan;
  const std::string goal = input.policy.objective == PlanObjective::kLatency ? "answer a request" : "give tokens";
  if (plan.stages.size() == 1) {
    if (input.devices.size() == 1) return Names(input, plan) + " is the only device that can be given layers.";
    if (result.runners_up.empty()) return Names(input, plan) + " alone runs the model.";
    const Plan& next = result.runners_up.front();
    if (next.cost < plan.cost) {
      return Names(input, plan) + " alone is about as fast: " + Names(input, next) + " together would " + goal + " " +
             Times(plan.cost / next.cost) + " times as fast, if the forecast is right to that.";
    }
    return Names(input, plan) + " alone is fastest: the best plan with more devices takes " +
           Times(next.cost / plan.cost) + " times as long.";
  }
  const std::string who = Names(input, plan);
  if (result.best_single && plan.cost > result.best_single->cost) {
    return who + " share the model as asked; " + Names(input, *result.best_single) + " alone would " + goal + " " +
           Times(plan.cost / result.best_single->cost) + " times as fast.";
  }
  if (!result.best_single) return "No device alone holds the model; " + who + " together do, the fastest way found.";
  return who + " together " + goal + " " + Times(result.best_single->cost / plan.cost) + " times as fast as " +
         Names(input, *result.best_single) + " alone.";
}

// Every device that holds the whole model, alone.
std::vector<Plan> SinglesOf(const PlanInput& input) {
  const PlanSizes sizes(input);
  const auto layers = static_cast<std::int32_t>(input.model.layer_bytes.size());
  std::vector<Plan> plans;
  for (std::size_t d = 0; d < input.devices.size(); ++d) {
    if (!input.devices[d].may_be_head || !sizes.Fits(d, 0, sizes.segments())) continue;
    plans.push_back(Predict(input, {{static_cast<std::int32_t>(d), {0, layers}}}));
  }
  return plans;
}

// What the objective does not say: a plan for many may be worse for one. Of each figure, against whoever is best at it.
void Warn(const PlanInput& input, PlanResult& result) {
  if (input.policy.objective == PlanObjective::kEnergy) return;  // its reason says what would be faster
  const std::vector<Plan> singles = SinglesOf(input);
  if (singles.empty()) return;
  const auto slower = [&](const std::string& what, const auto& rate) {
    const Plan& best = *std::max_element(singles.begin(), singles.end(),
                                         [&](const Plan& a, const Plan& b) { return rate(a) < rate(b); });
    if (rate(result.plan) >= rate(best) * 0.999) return;
    result.warnings.push_back(what + Times(rate(best) / rate(result.plan)) + " times as fast on " + Names(input, best) +
                              " alone.");
  };
  slower("One stream by itself would be ", [](const Plan& plan) { return plan.tokens_s; });
  slower("Many streams at once would be ", [](const Plan& plan) { return plan.tokens_s_many; });
  slower("The first token would come ", [](const Plan& plan) { return 1 / plan.first_token_s; });
}

Status CheckStages(const PlanInput& input, const std::vector<PlanStage>& stages) {
  std::set<std::int32_t> devices;
  std::int32_t next = 0;
  for (const PlanStage& stage : stages) {
    const bool cut =
        next == 0 || std::find(input.model.cuts.begin(), input.model.cuts.end(), next) != input.model.cuts.end();
    if (stage.device < 0 || stage.device >= static_cast<std::int32_t>(input.devices.size()) ||
        !devices.insert(stage.device).second || stage.layers.first != next || stage.layers.last <= next || !cut) {
      return Bad("the stages are no plan of this model: a gap, a forbidden cut, or a device that comes twice");
    }
    next = stage.layers.last;
  }
  return next == static_cast<std::int32_t>(input.model.layer_bytes.size())
             ? Status{}
             : Status{Bad("the stages end before the model's last layer")};
}

// Of what a search found: the best plan of as many stages as asked, those that come after it, and the best single
// device. False: no plan has as many.
bool TakeBest(const PlanInput& input, const SearchSpace& space, const PlansByStages& found, PlanResult& result) {
  std::vector<Plan> plans;
  for (const SegmentPlan& plan : found) {
    if (!plan.devices.empty()) plans.push_back(Predict(input, StagesOf(space.sizes, plan)));
  }
  // Of equal plans the one with fewer devices.
  std::stable_sort(plans.begin(), plans.end(), [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
  const auto is_single = [](const Plan& plan) { return plan.stages.size() == 1; };
  const auto single = std::find_if(plans.begin(), plans.end(), is_single);
  if (single != plans.end()) result.best_single = *single;
  std::erase_if(plans, [&](const Plan& plan) { return plan.stages.size() < space.stages_min; });
  if (plans.empty()) return false;
  const auto alone = std::find_if(plans.begin(), plans.end(), is_single);
  const bool enough = alone != plans.end() && alone->cost <= plans.front().cost * (1 + input.policy.alone_within);
  const auto best = enough ? alone : plans.begin();
  result.plan = *best;
  plans.erase(best);
  plans.resize(std::min(plans.size(), kRunnersUpMax));
  result.runners_up = std::move(plans);
  return true;
}

// From the fastest plan, and those that come after it, to the one of the least energy that is not too slow.
Result<PlanResult> MakeEnergyPlan(PlanInput input) {
  input.policy.alone_within = 0;
  PlanInput fast = input;
  fast.policy.objective = PlanObjective::kLatency;
  SHOAL_ASSIGN_OR_RETURN(const PlanResult fastest, MakePlan(fast));
  const PlanSizes sizes(input);
  const SearchSpace space = MakeSearchSpace(fast, sizes);
  PlansByStages known(space.stages_max + 1), found(space.stages_max + 1);
  const auto add = [&](const Plan& plan) {
    if (plan.stages.size() <= space.stages_max) known[plan.stages.size()] = SegmentsOf(sizes, plan);
  };
  for (const Plan& plan : fastest.runners_up) add(plan);
  add(fastest.plan);
  const double request_s_max = fastest.plan.request_s / input.policy.speed_share_min;
  PlanResult result;
  result.exact = SearchEnergy(space, request_s_max, known, found) && fastest.exact;
  SHOAL_CHECK(TakeBest(input, space, found, result));  // the fastest is among them
  result.fastest = Predict(input, fastest.plan.stages);
  Explain(input, result);
  return result;
}

// Of plans on exactly these devices.
std::vector<PlanPrices> PricesInOrder(const PlanInput& input, const std::vector<std::size_t>& devices) {
  std::vector<PlanPrices> prices;
  switch (input.policy.objective) {
    case PlanObjective::kEnergy: prices.emplace_back(input, devices); break;
    case PlanObjective::kLatency: prices.emplace_back(input); break;
    case PlanObjective::kThroughput:
      for (const StreamGroups& groups : GroupingsOf(input.workload, devices.size())) prices.emplace_back(input, groups);
  }
  return prices;
}

// On fewer than can hold a stage, as many as possible, where they do not hold the model so.
Result<PlanResult> MakeSpreadPlan(PlanInput input) {
  input.policy.spread = false;
  const PlanSizes sizes(input);
  std::size_t able = 0;
  for (std::size_t d = 0; d < input.devices.size(); ++d) {
    bool fits = false;
    for (std::size_t i = 0; i < sizes.segments() && !fits; ++i) fits = sizes.Fits(d, i, i + 1);
    able += fits ? 1 : 0;
  }
  for (std::size_t count = std::min(able, sizes.segments()); count > 1;
       count = count > kExactDevicesMax ? count * 7 / 8 : count - 1) {
    input.policy.stages_min = input.policy.stages_max = static_cast<std::int32_t>(count);
    Result<PlanResult> found = MakePlan(input);
    if (found.ok()) return found;
  }
  input.policy.stages_min = input.policy.stages_max = 0;
  return MakePlan(input);
}

}  // namespace

Result<PlanResult> MakePlan(const PlanInput& input) {
  SHOAL_RETURN_IF_ERROR(CheckInput(input));
  if (input.policy.spread) return MakeSpreadPlan(input);
  if (input.policy.objective == PlanObjective::kEnergy) return MakeEnergyPlan(input);
  const PlanSizes sizes(input);
  const SearchSpace space = MakeSearchSpace(input, sizes);
  PlansByStages found = SearchBounded(space);
  PlanResult result;
  result.exact = input.devices.size() <= kExactDevicesMax && SearchExact(space, found);
  if (!TakeBest(input, space, found, result)) return TooLarge(input, sizes);
  Explain(input, result);
  return result;
}

void Explain(const PlanInput& input, PlanResult& result) {
  result.reason = ReasonOf(input, result);
  result.warnings.clear();
  Warn(input, result);
}

Result<Plan> PlanInOrder(const PlanInput& input, const std::vector<std::int32_t>& order) {
  SHOAL_RETURN_IF_ERROR(CheckInput(input));
  std::vector<std::size_t> devices(order.begin(), order.end());
  const std::set<std::int32_t> known(order.begin(), order.end());
  const PlanSizes sizes(input);
  if (order.empty() || known.size() != order.size() || *known.begin() < 0 ||
      static_cast<std::size_t>(*known.rbegin()) >= input.devices.size() || order.size() > sizes.segments()) {
    return Bad("a plan needs devices, each once, and no more than the model can be cut into");
  }
  std::optional<SegmentPlan> best;
  for (const PlanPrices& prices : PricesInOrder(input, devices)) {
    const std::optional<SegmentPlan> plan = CutInOrder(sizes, prices, devices);
    if (plan && (!best || plan->cost < best->cost)) best = plan;
  }
  if (!best) return TooLarge(input, sizes);
  return Predict(input, StagesOf(sizes, *best));
}

Result<Plan> JudgePlan(const PlanInput& input, const std::vector<PlanStage>& stages) {
  SHOAL_RETURN_IF_ERROR(CheckInput(input));
  SHOAL_RETURN_IF_ERROR(CheckStages(input, stages));
  Plan plan = Predict(input, stages);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const PlanDevice& device = input.devices[static_cast<std::size_t>(stages[i].device)];
    const double room = RoomOf(input, device);
    if (static_cast<double>(plan.memory_bytes[i]) > room) {
      return Error{ErrorCode::kOutOfMemory, device.name + " has " + FormatBytes(static_cast<std::uint64_t>(room)) +
                                                " for stages, its stage needs " + FormatBytes(plan.memory_bytes[i])};
    }
  }
  return plan;
}

Result<double> LowerBound(const PlanInput& input) {
  SHOAL_RETURN_IF_ERROR(CheckInput(input));
  if (input.policy.objective == PlanObjective::kEnergy) return Bad("no bound of the energy is known");
  const PlanSizes sizes(input);
  const SearchSpace space = MakeSearchSpace(input, sizes);
  double bound = kInfinity;
  if (!space.depends_on_stages()) {
    bound = Relaxation(sizes, space.prices[1].front(), input.devices.size()).Bound(0, false);
  } else {
    // Loosely first: then sharply where it is lowest, until no other number of stages or groups can be below.
    struct Loose {
      double least;
      std::size_t stages;
      const PlanPrices* prices;
    };
    std::vector<Loose> loose;
    for (std::size_t k = 1; k <= space.stages_max; ++k) {
      for (const PlanPrices& prices : space.prices[k]) {
        loose.push_back({Relaxation(sizes, prices, input.devices.size()).Bound(k, false), k, &prices});
      }
    }
    std::sort(loose.begin(), loose.end(), [](const Loose& a, const Loose& b) { return a.least < b.least; });
    for (const Loose& one : loose) {
      if (one.least >= bound) break;
      bound = std::min(bound, Relaxation(sizes, *one.prices, input.devices.size()).Bound(one.stages, true));
    }
  }
  if (bound == kInfinity) return TooLarge(input, sizes);
  return bound;
}

}  // namespace shoal
