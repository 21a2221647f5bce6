// From what was measured of a device, or from its cores where nothing was, to the speeds of a plan. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "planner/plan.h"

namespace shoal {

inline constexpr PlanLink kUnmeasuredLink{0.003, 30e6};  // a home's Wi-Fi

// engine/matrix_speed.h's figures for one quantization.
struct MeasuredSpeed {
  double one_row_bytes_s = 0;  // weight bytes a second, one row
  double rows_bytes_s = 0;     // weight bytes a second in passes of kPassRows rows
  double operation_s = 0;      // of one small operation
  double memory_bytes_s = 0;   // of plain reading
};

// engine/stage_speed.h's figures for one model, and node/token_cost.h's.
struct MeasuredStageSpeed {
  double pass_s = 0;  // of each pass
  double one_row_bytes_s = 0, pair_bytes_s = 0, quad_bytes_s = 0, group_bytes_s = 0, rows_bytes_s = 0;
  double kv_bytes_s = 0, kv_rows_bytes_s = 0;
  double output_bytes_s = 0, output_pair_bytes_s = 0, output_quad_bytes_s = 0, output_group_bytes_s = 0;
  double token_s = 0;  // of a token at the head, beside what stages compute
  bool operator==(const MeasuredStageSpeed&) const = default;
};
// Its figures by name, for text: pairs of a name and a pointer.
template <typename Speed>  // with or without const
auto StageFigures(Speed& speed) {
  return std::array{std::pair("pass_s", &speed.pass_s),
                    std::pair("one_row_bytes_s", &speed.one_row_bytes_s),
                    std::pair("pair_bytes_s", &speed.pair_bytes_s),
                    std::pair("quad_bytes_s", &speed.quad_bytes_s),
                    std::pair("group_bytes_s", &speed.group_bytes_s),
                    std::pair("rows_bytes_s", &speed.rows_bytes_s),
                    std::pair("kv_bytes_s", &speed.kv_bytes_s),
                    std::pair("kv_rows_bytes_s", &speed.kv_rows_bytes_s),
                    std::pair("output_bytes_s", &speed.output_bytes_s),
                    std::pair("output_pair_bytes_s", &speed.output_pair_bytes_s),
                    std::pair("output_quad_bytes_s", &speed.output_quad_bytes_s),
                    std::pair("output_group_bytes_s", &speed.output_group_bytes_s),
                    std::pair("token_s", &speed.token_s)};
}
// Those that are bytes a second, in the order of messages between nodes.
inline auto RatesOf(MeasuredStageSpeed& speed) {
  return std::array{&speed.one_row_bytes_s,     &speed.pair_bytes_s,        &speed.quad_bytes_s,
                    &speed.group_bytes_s,       &speed.rows_bytes_s,        &speed.kv_bytes_s,
                    &speed.kv_rows_bytes_s,     &speed.output_bytes_s,      &speed.output_pair_bytes_s,
                    &speed.output_quad_bytes_s, &speed.output_group_bytes_s};
}
PlanDevice MeasuredDevice(const MeasuredStageSpeed& speed, double pace = 1);

// Speeds for a model with layers like these: the small operations of a layer are counted into its bytes. `pace`: what
// the device reaches of what was measured, 1: all.
PlanDevice MeasuredDevice(const MeasuredSpeed& speed, const std::vector<std::uint64_t>& layer_bytes, double pace = 1);
// `device` when it computes `factor` times as fast.
PlanDevice Faster(PlanDevice device, double factor);
// The same device when its cores may compute in a share of the time: its speeds become those of long work, and each
// pass takes as well what its network threads need of that share.
PlanDevice UnderRation(PlanDevice device, double ration);

// What a stage of a model weighs.
struct StageLoad {
  double weight_bytes = 0, kv_bytes = 0;  // K and V: of one token
  double output_bytes = 0;                // 0 but on the last stage
};
// Rows of each pass beyond kRowPoints[i], up to kRowPoints[i + 1].
using RowSteps = std::array<double, 4>;
// What passes asked of a stage, summed over them.
struct PassCounts {
  double passes = 0;
  RowSteps rows = {};                    // of each pass
  double kv_rows = 0, kv_many_rows = 0;  // K and V that rows looked back on: of at most kGroupRows, of more
  double output_passes = 0;              // of rows that ask for an output
  RowSteps output_rows = {};
};
// Seconds that the cost model says they take.
double SecondsOf(const PlanDevice& device, const StageLoad& load, const PassCounts& counts);

// Of a device of which only the number of cores is known.
PlanDevice EstimatedDevice(std::int32_t cores);

}  // namespace shoal
