// The arithmetic of the header.
#include "planner/device_speed.h"

#include <algorithm>
#include <utility>

#include "planner/cost_model.h"

namespace shoal {
namespace {

constexpr double kOperationsOfLayer = 20;  // of one decoder layer in ggml's graph, besides its matrix products
// Of a core nobody measured. A Raspberry Pi 5 reads 17 GB/s with four cores, a phone's fast cores 10 GB/s each at most;
// prompts: a tenth of that. docs/devices.md has what is known.
constexpr double kBytesPerCore = 4e9;
constexpr double kPrefillShare = 0.15;
constexpr double kOverhead_s = 3e-4;

}  // namespace

PlanDevice MeasuredDevice(const MeasuredSpeed& speed, const std::vector<std::uint64_t>& layer_bytes, double pace) {
  double layer = 1;
  for (const std::uint64_t bytes : layer_bytes) layer += static_cast<double>(bytes);
  layer /= std::max<double>(static_cast<double>(layer_bytes.size()), 1);
  const double small = kOperationsOfLayer * speed.operation_s;
  PlanDevice device;
  device.decode_bytes_s = pace * layer / (layer / speed.one_row_bytes_s + small);
  device.prefill_bytes_s = pace * layer / (layer / speed.rows_bytes_s + small);
  device.kv_bytes_s = pace * speed.memory_bytes_s;
  device.pass_overhead_s = small / pace;
  return device;
}

PlanDevice MeasuredDevice(const MeasuredStageSpeed& speed, double pace) {
  PlanDevice device;
  device.decode_bytes_s = speed.one_row_bytes_s;
  device.pair_bytes_s = speed.pair_bytes_s;
  device.quad_bytes_s = speed.quad_bytes_s;
  device.group_bytes_s = speed.group_bytes_s;
  device.prefill_bytes_s = speed.rows_bytes_s;
  device.kv_bytes_s = speed.kv_bytes_s;
  device.kv_prefill_bytes_s = speed.kv_rows_bytes_s;
  device.output_bytes_s = speed.output_bytes_s;
  device.output_pair_bytes_s = speed.output_pair_bytes_s;
  device.output_quad_bytes_s = speed.output_quad_bytes_s;
  device.output_group_bytes_s = speed.output_group_bytes_s;
  device.pass_overhead_s = speed.pass_s;
  device.token_s = speed.token_s;
  return Faster(device, pace);
}

PlanDevice Faster(PlanDevice device, double factor) {
  for (double* const speed :
       {&device.decode_bytes_s, &device.pair_bytes_s, &device.quad_bytes_s, &device.group_bytes_s,
        &device.prefill_bytes_s, &device.kv_bytes_s, &device.kv_prefill_bytes_s, &device.output_bytes_s,
        &device.output_pair_bytes_s, &device.output_quad_bytes_s, &device.output_group_bytes_s}) {
    *speed *= factor;
  }
  device.pass_overhead_s /= factor;
  device.token_s /= factor;
  return device;
}

PlanDevice UnderRation(PlanDevice device, double ration) {
  device = Faster(std::move(device), ration);
  device.ration = ration;
  // What hands a pass on has no cores of its own then. That is about what it takes to hand on a token at the head.
  if (ration < 1) device.pass_overhead_s += device.token_s;
  return device;
}

double SecondsOf(const PlanDevice& device, const StageLoad& load, const PassCounts& counts) {
  const BytePrices price(device);
  double weights = counts.passes * price.layers[0], output = counts.output_passes * price.output[0];
  for (std::size_t i = 0; i < counts.rows.size(); ++i) {
    const double rows = kRowPoints[i + 1] - kRowPoints[i];
    weights += counts.rows[i] * (price.layers[i + 1] - price.layers[i]) / rows;
    const bool between = i + 1 < price.output.size();
    output += counts.output_rows[i] * (between ? (price.output[i + 1] - price.output[i]) / rows : price.output_more);
  }
  return counts.passes * device.pass_overhead_s + load.weight_bytes * weights + load.output_bytes * output +
         load.kv_bytes * (counts.kv_rows * price.kv + counts.kv_many_rows * price.kv_many);
}

PlanDevice EstimatedDevice(std::int32_t cores) {
  PlanDevice device;
  device.decode_bytes_s = device.kv_bytes_s = std::max(cores, 1) * kBytesPerCore;
  device.prefill_bytes_s = device.decode_bytes_s * kPrefillShare;
  device.pass_overhead_s = kOverhead_s;
  return device;
}

}  // namespace shoal
