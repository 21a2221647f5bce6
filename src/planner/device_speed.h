// From what was measured of a device, or from its cores where nothing was, to the speeds of a plan. Pure.
#pragma once

#include <cstdint>
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

// Speeds for a model with layers like these: the small operations of a layer are counted into its bytes. `pace`: what
// the device reaches of what was measured, 1: all.
PlanDevice MeasuredDevice(const MeasuredSpeed& speed, const std::vector<std::uint64_t>& layer_bytes, double pace = 1);
// Of a device of which only the number of cores is known.
PlanDevice EstimatedDevice(std::int32_t cores);

}  // namespace shoal
