// How fast stages of one model run on this device: slices of the model with made-up weights, run by the engine itself.
//
// What matrix products alone do not say is all in it: the small operations of a layer, attention, how wide the model
// is, the output head, what each pass costs whatever it holds. Only the model's header has to be here. Keeps nothing.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "model/model_info.h"

namespace shoal {

struct StageSpeedOptions {
  std::vector<int> cpus;  // as many threads, one on each; empty: `threads` wherever the system puts them
  int threads = 1;        // ignored when `cpus` is not empty
  std::uint64_t weight_bytes = 96U << 20;     // of the large slice: more than caches hold, if the model has as much
  std::chrono::milliseconds time_max{4'000};  // of all passes; what is left out is taken from what was measured
  // Share of the time that a control group grants the threads. Below 1 it takes so much longer, and what is measured is
  // processor time: speeds are those of cores that compute, whatever share of the time they may.
  double ration = 1;
  // Opens each slice's engine; null: Engine::Open. Of a device beside the CPU it is what opens its stages' engines.
  std::function<Result<std::unique_ptr<Engine>>(std::shared_ptr<const ModelFile>, const EngineOptions&)> open;
};

// Positive. A pass of r rows takes pass_s, and the bytes of its layers' weights by the speed for r; each row reads K
// and V of all positions before it; each row with output reads the output head by the speed for as many of them,
// and draws a token from it.
struct StageSpeed {
  double pass_s = 0;
  double one_row_bytes_s = 0;                                    // weight bytes of layers
  double pair_bytes_s = 0, quad_bytes_s = 0, group_bytes_s = 0;  // in passes of kSpeedFewRows rows
  double rows_bytes_s = 0;                                       // in passes of kSpeedRows rows
  double kv_bytes_s = 0;                                         // bytes of K and V as f16, in passes of one row
  double kv_rows_bytes_s = 0;                                    // for each row, in passes of kSpeedRows rows
  double output_bytes_s = 0;                                     // bytes of the output head, one row
  double output_pair_bytes_s = 0, output_quad_bytes_s = 0, output_group_bytes_s = 0;  // kSpeedFewRows rows
};
inline constexpr std::array<int, 3> kSpeedFewRows = {2, 4, 8};

// Blocks for about time_max at most; computes on threads of its own.
// Errors: kUnsupported (a model that cannot be cut), kOutOfMemory, and as Engine::Open.
Result<StageSpeed> MeasureStageSpeed(const std::shared_ptr<const ModelFile>& model, const StageSpeedOptions& options);

}  // namespace shoal
