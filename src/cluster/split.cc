// What was asked as the planner's input, and its answer as stages.
#include "cluster/split.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/units.h"

namespace shoal {
namespace {

constexpr std::int32_t kContextTokensDefault = 4096;
constexpr std::int32_t kAnswerTokens = 128;  // of the request that a plan is made for, at most
constexpr std::uint64_t kSentRowExtra = 48;  // bookkeeping of a row that is kept
constexpr double kOrderMatters = 1.02;       // devices stay in the order given unless another one is so much better

std::int32_t ContextOf(const PlaceOptions& options) {
  return options.context_tokens > 0 ? options.context_tokens : kContextTokensDefault;
}

std::uint64_t KvBytes(const ModelShape& shape, std::size_t layer, const PlaceOptions& options) {
  const std::uint64_t f16 = layer < shape.kv_bytes.size() ? shape.kv_bytes[layer] : 0;
  return options.kv_type == KvType::kQ8_0 ? f16 * 17 / 32 : f16;
}

PlanModel ModelOf(const ModelShape& shape, const PlaceOptions& options) {
  PlanModel model;
  model.layer_bytes = shape.layer_bytes;
  for (std::size_t i = 0; i < shape.layer_bytes.size(); ++i) model.kv_bytes.push_back(KvBytes(shape, i, options));
  model.output_bytes = shape.output_bytes;
  model.hidden_bytes = std::uint64_t{shape.n_embd} * WireTypeBytes(options.wire_type);
  model.sent_bytes = SentBytes(shape.n_embd, options);
  model.cuts = shape.cuts;
  return model;
}

PlanDevice SpeedsOfKind(const SpeedFacts& kind, const DeviceFacts& facts,
                        const std::vector<std::uint64_t>& layer_bytes) {
  return MeasuredDevice({kind.one_row_bytes_s, kind.rows_bytes_s, kind.operation_s, facts.memory_bytes_s}, layer_bytes,
                        facts.pace);
}

// `measured` becomes false when the figures are not of this device and these weights.
PlanDevice SpeedsOf(const SplitDevice& given, const SplitInput& input, bool& measured) {
  const DeviceFacts& facts = given.facts;
  const std::vector<std::uint64_t>& layer_bytes = input.shape.layer_bytes;
  const auto known = MeasuredSpeeds(facts, input.fingerprint, input.quantization, layer_bytes);
  measured = known.has_value();
  if (known) return *known;
  return facts.speeds.empty() ? EstimatedDevice(facts.cores) : SpeedsOfKind(facts.speeds.front(), facts, layer_bytes);
}

PlanDevice DeviceOf(const SplitDevice& given, const SplitInput& input, bool& measured) {
  PlanDevice device = UnderRation(SpeedsOf(given, input, measured), given.facts.ration);
  device.idle_w = given.facts.idle_w;
  device.active_w = given.facts.active_w;
  device.on_battery = given.facts.on_battery;
  device.name = given.name;
  device.memory_bytes = given.memory_bytes;
  return device;
}

PlanInput PlanInputOf(const SplitInput& input, std::vector<std::string>& estimated) {
  PlanInput plan;
  for (const SplitDevice& given : input.devices) {
    bool measured = false;
    plan.devices.push_back(DeviceOf(given, input, measured));
    if (!measured) estimated.push_back(given.name);
  }
  plan.links = input.links;
  if (plan.links.empty()) plan.links.assign(input.devices.size() * input.devices.size(), kUnmeasuredLink);
  plan.model = ModelOf(input.shape, input.options);
  const std::int32_t context = ContextOf(input.options);
  plan.workload.prompt_tokens = std::clamp(context * 3 / 4, 1, kForecastPromptTokens);
  plan.workload.answer_tokens = std::clamp(context / 4, 1, kAnswerTokens);
  plan.workload.streams = input.options.slots;
  plan.workload.context_tokens = context;
  plan.policy.objective = input.goal == PlaceGoal::kLatency  ? PlanObjective::kLatency
                          : input.goal == PlaceGoal::kEnergy ? PlanObjective::kEnergy
                                                             : PlanObjective::kThroughput;
  plan.policy.exact_steps_max = input.steps_max;
  // A node's budget leaves room for the rest of the system and for compute buffers.
  plan.policy.memory_headroom = 0;
  plan.policy.stage_bytes = 0;
  return plan;
}

Status CheckRanges(const ModelShape& shape, const std::vector<LayerRange>& ranges) {
  std::int32_t next = 0;
  for (const LayerRange& range : ranges) {
    if (range.first != next || range.last <= range.first || range.last > shape.layers()) {
      return Error{ErrorCode::kInvalidArgument, "the ranges must cover layers 0 to " +
                                                    std::to_string(shape.layers() - 1) + " in order, without gaps"};
    }
    if (range.first > 0 && std::find(shape.cuts.begin(), shape.cuts.end(), range.first) == shape.cuts.end()) {
      return Error{ErrorCode::kInvalidArgument, "the model cannot be cut before layer " + std::to_string(range.first)};
    }
    next = range.last;
  }
  if (next == shape.layers()) return {};
  return Error{ErrorCode::kInvalidArgument, "the ranges end before the model's last layer"};
}

Status CheckInput(const SplitInput& input, std::int32_t stages) {
  const auto count = static_cast<std::int32_t>(input.devices.size());
  const auto stages_max = static_cast<std::int32_t>(input.shape.cuts.size()) + 1;
  if (input.devices.empty()) return Error{ErrorCode::kNotFound, "there is no device to place the model on"};
  if (input.shape.layers() < 1) return Error{ErrorCode::kInvalidArgument, "the model has no layers"};
  if (stages > count) {
    return Error{ErrorCode::kInvalidArgument, std::to_string(stages) + " stages need as many devices; there " +
                                                  (count == 1 ? "is 1" : "are " + std::to_string(count)) +
                                                  " that hold the model"};
  }
  if (stages > stages_max) {
    return Error{ErrorCode::kInvalidArgument,
                 "the model can be cut into " + std::to_string(stages_max) + " stages at most"};
  }
  return {};
}

// The `count` devices with the most memory (ties: the earlier), in the order given.
std::vector<std::int32_t> Largest(const SplitInput& input, std::size_t count) {
  std::vector<std::int32_t> order(input.devices.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return input.devices[static_cast<std::size_t>(a)].memory_bytes >
           input.devices[static_cast<std::size_t>(b)].memory_bytes;
  });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

// The best single device, for what is said of a plan that was not searched for.
std::optional<Plan> BestSingle(const PlanInput& input) {
  std::optional<Plan> best;
  for (std::size_t d = 0; d < input.devices.size(); ++d) {
    const Result<Plan> plan = PlanInOrder(input, {static_cast<std::int32_t>(d)});
    if (plan.ok() && (!best || plan->cost < best->cost)) best = *plan;
  }
  return best;
}

Result<PlanResult> InOrder(const SplitInput& input, const PlanInput& plan, std::int32_t stages) {
  const std::size_t most = std::min(input.devices.size(), input.shape.cuts.size() + 1);
  for (std::size_t count = stages > 0 ? static_cast<std::size_t>(stages) : most;; --count) {
    Result<Plan> found = PlanInOrder(plan, Largest(input, count));
    // A device that is too small for its share is in the way of the others.
    if (!found.ok() && stages == 0 && count > 1) continue;
    if (!found.ok()) return std::move(found).error();
    PlanResult result;
    result.plan = *std::move(found);
    result.best_single = BestSingle(plan);
    Explain(plan, result);
    return result;
  }
}

// The order given where it is as good, for what changes little shall not move stages about; and stages as even as can
// be.
void Settle(const PlanInput& plan, PlanResult& result) {
  std::vector<std::int32_t> order;
  for (const PlanStage& stage : result.plan.stages) order.push_back(stage.device);
  std::sort(order.begin(), order.end());
  Result<Plan> found = PlanInOrder(plan, order);
  if (!found.ok() || found->cost > result.plan.cost * kOrderMatters) {
    order.clear();
    for (const PlanStage& stage : result.plan.stages) order.push_back(stage.device);
    found = PlanInOrder(plan, order);
  }
  const bool saves = plan.policy.objective == PlanObjective::kEnergy;  // and is held to a speed
  if (!found.ok() || (saves && found->request_s > result.plan.request_s * kOrderMatters)) return;
  result.plan = *std::move(found);
  Explain(plan, result);
}

// `stages`: 0, as many as are best, or on every device that can hold one (spread).
Result<PlanResult> Search(PlanInput plan, std::int32_t stages, bool spread) {
  plan.policy.stages_min = plan.policy.stages_max = stages;
  plan.policy.spread = spread && stages == 0;
  plan.policy.alone_within = kForecastError;
  SHOAL_ASSIGN_OR_RETURN(PlanResult result, MakePlan(plan));
  Settle(plan, result);
  return result;
}

// Of a prompt of kForecastPromptTokens, also where the context is so short that the plan is made for less.
double FirstTokenTime(const PlanInput& input, const Plan& plan) {
  if (input.workload.prompt_tokens == kForecastPromptTokens) return plan.first_token_s;
  PlanInput longer = input;
  longer.workload.prompt_tokens = kForecastPromptTokens;
  const Result<Plan> judged = JudgePlan(longer, plan.stages);
  return judged.ok() ? judged->first_token_s : plan.first_token_s;
}

std::string PowersOf(const std::vector<SplitDevice>& devices) {
  const auto measured = std::count_if(devices.begin(), devices.end(),
                                      [](const SplitDevice& device) { return device.facts.power_measured; });
  if (measured == 0) return " Powers are of a table, not measured.";
  if (measured == std::ssize(devices)) return " Powers are measured by batteries.";
  return " Powers of " + std::to_string(measured) + " devices are measured by batteries, of the others by a table.";
}

// Of numbers that members say of themselves: none of them may come out as one that no message can carry.
double Told(double value) { return value > 0 ? std::min(value, kBytesPerSecondMax) : 0; }

PlacementForecast ForecastFrom(const PlanInput& plan, const PlanResult& result, const std::vector<SplitDevice>& devices,
                               const std::vector<std::string>& estimated) {
  PlacementForecast forecast;
  forecast.first_token_s = Told(FirstTokenTime(plan, result.plan));
  forecast.tokens_s = Told(result.plan.tokens_s);
  forecast.tokens_s_many = Told(result.plan.tokens_s_many);
  forecast.measured = estimated.empty();
  forecast.reason = result.reason;
  for (const std::string& warning : result.warnings) forecast.reason += " " + warning;
  if (!estimated.empty()) {
    forecast.reason += " Estimated from cores, not measured: ";
    for (std::size_t i = 0; i < estimated.size(); ++i) forecast.reason += (i > 0 ? ", " : "") + estimated[i];
    forecast.reason += ".";
  }
  if (plan.policy.objective == PlanObjective::kEnergy) forecast.reason += PowersOf(devices);
  if (forecast.reason.size() > kForecastTextBytesMax) forecast.reason.resize(kForecastTextBytesMax);
  return forecast;
}

}  // namespace

std::optional<PlanDevice> MeasuredSpeeds(const DeviceFacts& facts, std::uint64_t fingerprint,
                                         const std::string& quantization,
                                         const std::vector<std::uint64_t>& layer_bytes) {
  for (const StageSpeedFacts& one : facts.stage_speeds) {
    if (one.fingerprint == fingerprint) return MeasuredDevice(one.speed, facts.pace);
  }
  for (const SpeedFacts& one : facts.speeds) {
    if (one.quantization == quantization) return SpeedsOfKind(one, facts, layer_bytes);
  }
  return std::nullopt;
}

std::uint64_t SentBytes(std::uint32_t n_embd, const PlaceOptions& options) {
  if (n_embd == 0) return 0;
  const std::uint64_t row = std::uint64_t{n_embd} * WireTypeBytes(options.wire_type) + kSentRowExtra;
  return std::min(kSentBytesMax, static_cast<std::uint64_t>(ContextOf(options)) * row);
}

std::uint64_t StageBytes(const ModelShape& shape, LayerRange layers, const PlaceOptions& options) {
  if (layers.last > shape.layers()) return 0;
  const auto tokens = static_cast<std::uint64_t>(ContextOf(options));
  std::uint64_t bytes = layers.last == shape.layers() ? shape.output_bytes : SentBytes(shape.n_embd, options);
  for (std::int32_t i = layers.first; i < layers.last; ++i) {
    const auto at = static_cast<std::size_t>(i);
    bytes += shape.layer_bytes[at] + KvBytes(shape, at, options) * tokens;
  }
  return bytes;
}

StageLoad LoadOf(const ModelShape& shape, LayerRange layers, const PlaceOptions& options) {
  StageLoad load;
  for (std::int32_t i = layers.first; i < layers.last; ++i) {
    const auto at = static_cast<std::size_t>(i);
    load.weight_bytes += static_cast<double>(shape.layer_bytes[at]);
    load.kv_bytes += static_cast<double>(KvBytes(shape, at, options));
  }
  if (layers.last == shape.layers()) load.output_bytes = static_cast<double>(shape.output_bytes);
  return load;
}

Result<Split> SplitModel(const SplitInput& input) {
  const auto stages = input.ranges.empty() ? input.stages : static_cast<std::int32_t>(input.ranges.size());
  SHOAL_RETURN_IF_ERROR(CheckInput(input, stages));
  Split split;
  if (!input.ranges.empty()) {
    SHOAL_RETURN_IF_ERROR(CheckRanges(input.shape, input.ranges));
    for (std::size_t i = 0; i < input.ranges.size(); ++i) {
      split.stages.push_back({static_cast<std::int32_t>(i), input.ranges[i]});
    }
    SHOAL_ASSIGN_OR_RETURN(split.forecast, ForecastOf(input, split.stages));
    return split;
  }
  std::vector<std::string> estimated;
  const PlanInput plan = PlanInputOf(input, estimated);
  Result<PlanResult> result =
      input.in_order ? InOrder(input, plan, stages) : Search(plan, stages, input.goal == PlaceGoal::kSpread);
  if (!result.ok()) return std::move(result).error();
  for (const PlanStage& stage : result->plan.stages) split.stages.push_back({stage.device, stage.layers});
  split.forecast = ForecastFrom(plan, *result, input.devices, estimated);
  return split;
}

Result<PlacementForecast> ForecastOf(const SplitInput& input, const std::vector<SplitStage>& stages) {
  std::vector<std::string> estimated;
  const PlanInput plan = PlanInputOf(input, estimated);
  std::vector<PlanStage> given;
  given.reserve(stages.size());
  for (const SplitStage& stage : stages) given.push_back({stage.device, stage.layers});
  PlanResult result;
  SHOAL_ASSIGN_OR_RETURN(result.plan, JudgePlan(plan, given));
  result.best_single = BestSingle(plan);
  Explain(plan, result);
  return ForecastFrom(plan, result, input.devices, estimated);
}

}  // namespace shoal
