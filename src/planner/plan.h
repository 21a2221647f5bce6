// From devices, links, a model's sizes and a workload to a plan: which devices, in which order, which layers each, and
// what to expect of it.
//
// Pure: no clock, no I/O, the same answer for the same input. One cost model (cost_model.h) judges every plan, found
// here or given. With up to kExactDevicesMax devices the plan is the best there is; with more, the best that a bounded
// search finds, which `LowerBound` tells how far from the best it can be.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace shoal {

inline constexpr std::size_t kPlanDevicesMax = 256;
inline constexpr std::size_t kPlanLayersMax = 1024;
inline constexpr std::size_t kExactDevicesMax = 10;
inline constexpr std::int32_t kForecastPromptTokens = 512;  // of the request that a forecast is of

// Speeds are measured (engine/matrix_speed.h) or estimated; who fills them says which.
struct PlanDevice {
  std::string name;
  std::uint64_t memory_bytes = 0;  // what stages may take
  double decode_bytes_s = 0;       // weight bytes a second in a pass of one row
  double prefill_bytes_s = 0;      // weight bytes a second in a pass of kPassRows rows
  double kv_bytes_s = 0;           // bytes of K and V that a row reads a second, in passes of few rows
  double pass_overhead_s = 0;      // of each pass, whatever its size
  double token_s = 0;              // of each token of an answer beside that, where stage 0 is
  // Where these are 0 they follow from the others.
  double pair_bytes_s = 0;  // weight bytes a second in a pass of two rows, of four, of kGroupRows
  double quad_bytes_s = 0;
  double group_bytes_s = 0;
  double kv_prefill_bytes_s = 0;   // as kv_bytes_s, in passes of kPassRows rows
  double output_bytes_s = 0;       // bytes of the output head a second, for one row
  double output_pair_bytes_s = 0;  // the same, for two, four, kGroupRows
  double output_quad_bytes_s = 0;
  double output_group_bytes_s = 0;
  // Share of the time in which its cores may compute; the speeds are those of long work under it. Short work that waits
  // in between does not feel it (a control group's quota).
  double ration = 1;
  bool may_be_head = true;  // may take stage 0
  // Of kEnergy: what it takes awake, and what more while it computes; 0 both: nobody knows.
  double idle_w = 0, active_w = 0;
  bool on_battery = false;
};

struct PlanLink {
  double latency_s = 0;  // one way
  double bytes_s = 0;
};

struct PlanModel {
  std::vector<std::uint64_t> layer_bytes;  // [layers]
  std::vector<std::uint64_t> kv_bytes;     // [layers]: K and V of one token as the cache holds them
  std::uint64_t output_bytes = 0;          // the output head, on the last stage
  std::uint64_t head_bytes = 0;            // what the first stage holds besides its layers
  std::uint64_t sent_bytes = 0;            // what every stage but the last keeps of what it sent
  std::uint64_t hidden_bytes = 0;          // one row between two stages
  std::vector<std::int32_t> cuts;          // allowed first layers of stages other than the first, ascending
};

struct PlanWorkload {
  std::int32_t prompt_tokens = kForecastPromptTokens;
  std::int32_t answer_tokens = 128;
  std::int32_t streams = 8;            // for the prediction of many at once, and the throughput objective
  std::int32_t context_tokens = 4096;  // KV cells that every stage reserves
};

enum class PlanObjective : std::uint8_t {
  kLatency,     // one request's prompt and answer, start to end
  kThroughput,  // tokens a second over all streams
  kEnergy,      // joules of one request: of computing, and of being awake as long as it lasts; see speed_share_min
};

struct PlanPolicy {
  PlanObjective objective = PlanObjective::kLatency;
  std::int32_t stages_min = 0;                 // at least so many, also where fewer would cost less
  std::int32_t stages_max = 0;                 // 0: as many as help
  double alone_within = 0;                     // a single device is chosen that costs at most this share more than the
                                               // best plan, where stages_min allows it; not kEnergy
  bool spread = false;                         // a stage on every device that can hold one; the two above are not used
  std::int64_t exact_steps_max = 200'000'000;  // of the exact search, then the best so far; about 25 million a second
  double speed_share_min = 0.5;                // kEnergy: of the speed of the fastest plan, that a plan keeps at least
  double battery_weight = 1;                   // kEnergy: what a joule of a battery counts, where one of the mains is 1
  double memory_headroom = 0.05;               // share of a device's memory that stays free
  std::uint64_t stage_bytes = 64ULL << 20;     // compute buffers of a stage
};

// For alone_within: how far forecasts are off, at most as a rule (docs/performance.md).
inline constexpr double kForecastError = 0.15;

struct PlanInput {
  std::vector<PlanDevice> devices;
  std::vector<PlanLink> links;  // [devices, devices], from row to column; the diagonal is not used
  PlanModel model;
  PlanWorkload workload;
  PlanPolicy policy;
};

struct PlanStage {
  std::int32_t device = 0;
  LayerRange layers;
  bool operator==(const PlanStage&) const = default;
};

struct Plan {
  std::vector<PlanStage> stages;
  double cost = 0;           // what the objective minimizes: seconds or joules (weighted) a request, or seconds a token
                             // of all streams
  double request_s = 0;      // a request of the workload by itself, start to end
  double joules_token = 0;   // what it takes for each token of its answer, all told; 0: not known of every device
  double first_token_s = 0;  // of a prompt of the workload's length
  double tokens_s = 0;       // one stream
  double tokens_s_many = 0;  // workload.streams at once, all of them together
  std::int32_t groups = 1;   // in which so many streams decode: micro-batches under way at once
  std::vector<std::uint64_t> memory_bytes;  // [stages]: all that a stage takes, and
  std::vector<std::uint64_t> kv_bytes;      // [stages]: K and V of it
};

struct PlanResult {
  Plan plan;
  bool exact = false;               // nothing is better, by the cost model (but for alone_within)
  std::optional<Plan> best_single;  // empty: no device holds the whole model (kEnergy: and is fast enough)
  std::optional<Plan> fastest;      // kEnergy: what kLatency would choose
  std::vector<Plan> runners_up;     // the best of each other number of stages, best first
  std::string reason;               // one sentence
  std::vector<std::string> warnings;
};

// Errors: kInvalidArgument (sizes that do not go together, numbers that are not finite and positive, too many devices
// or layers), kNotFound (no device), kOutOfMemory (no set of devices holds the model; says what is missing).
Result<PlanResult> MakePlan(const PlanInput& input);

// The best plan whose stages are on exactly these devices (indices), in this order; of those within 0.1 % the one with
// the most even stages. Errors: as MakePlan;
// kInvalidArgument (a device twice, none, or more than the model can be cut into).
Result<Plan> PlanInOrder(const PlanInput& input, const std::vector<std::int32_t>& order);

// Writes `reason` and `warnings` anew for result.plan, which may be another one than was found, from what else is in
// `result`.
void Explain(const PlanInput& input, PlanResult& result);

// What a plan given by its stages is worth. Errors: kInvalidArgument (stages that are no plan of this model: gaps,
// forbidden cuts, a device twice), kOutOfMemory (a stage that does not fit).
Result<Plan> JudgePlan(const PlanInput& input, const std::vector<PlanStage>& stages);

// No plan costs less than this. Errors: as MakePlan; kInvalidArgument (kEnergy).
Result<double> LowerBound(const PlanInput& input);

}  // namespace shoal
