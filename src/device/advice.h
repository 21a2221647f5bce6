// What to build, how many threads, which quantization: advice from what a device is, each with its reason.
//
// Pure. Rules of thumb with their sources in advice.cc; what is measured on the device (engine/matrix_speed.h) is
// better.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/profile.h"

namespace shoal {

struct DeviceAdvice {
  CpuVariant variant;  // empty name: unknown instruction sets
  std::string variant_why;
  std::vector<int> decode_cpus, prefill_cpus;  // one thread each
  std::string threads_why;
  std::string quantization;  // "Q4_0"; empty: unknown memory
  std::string quantization_why;
  std::string largest_model;       // "3B": that it may hold alone with 4,096 tokens of context; empty: none or unknown
  double largest_model_bytes = 0;  // what that takes; 0: none or unknown
  std::string cluster_model;       // that two devices like this one hold together; empty: unknown
  std::string memory_why;
};

DeviceAdvice AdviseDevice(const DeviceProfile& profile);

}  // namespace shoal
