// How fast this device multiplies: weight bytes a second through given cores, by ggml itself, in about two seconds.
//
// Weights are laid out as a loaded model's are (repacked where ggml repacks that type), in more memory than caches
// hold. Two figures say what a stage needs: a pass of one row, which waits for memory, and a pass of kSpeedRows rows,
// which computes. Knows no models and keeps nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace shoal {

inline constexpr int kSpeedRows = 64;  // of a micro-batch

struct SpeedTestOptions {
  std::string quantization = "Q4_0";  // ggml's name of a type
  std::vector<int> cpus;              // as many threads, one on each; empty: `threads` wherever the system puts them
  int threads = 1;                    // ignored when `cpus` is not empty
  std::uint64_t weight_bytes = 192U << 20;  // at most a quarter of what is free is taken
  std::chrono::milliseconds time_max{400};  // for each of the three figures
  bool one_row_only = false;                // the other two stay 0
  bool rationed = false;                    // by a control group: what is measured is processor time
};

struct MatrixSpeed {
  double one_row_bytes_s = 0;  // weight bytes a second, one row
  double rows_bytes_s = 0;     // weight bytes a second in passes of kSpeedRows rows
  double operation_s = 0;      // of one small operation: what starting and joining threads costs
  std::string layout;          // ggml's name of the weights' memory: "CPU_REPACK", "CPU"
  double got = 1;              // share of the time in which its threads ran: less than 1 where others held them up
};

// Errors: kInvalidArgument (no type that can be measured).
Status CheckMeasuredType(const std::string& quantization);

// Which ggml this is, which of its CPU variants and which dot products of ours: a measurement is of one.
std::string MatrixCodeVersion();

// Blocks for up to four times time_max. Runs on the calling thread and ggml's own; where `cpus` is given the calling
// thread is pinned while it lasts.
// Errors: kInvalidArgument (no such type, no such CPU), kOutOfMemory, kInternal.
Result<MatrixSpeed> MeasureMatrixSpeed(const SpeedTestOptions& options);

}  // namespace shoal
