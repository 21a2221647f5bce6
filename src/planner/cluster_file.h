// A file that describes devices and links, for planning ahead (`shoal plan --devices FILE`).
//
//   {"devices": [{"name": "phone", "memory_gib": 6, "decode_gb_s": 40, "prefill_gb_s": 6,
//                 "kv_gb_s": 40, "overhead_ms": 0.3, "head": true,
//                 "idle_w": 0.5, "active_w": 5, "on_battery": true}, ...],
//    "link": {"latency_ms": 3, "mb_s": 30},
//    "links": [{"from": "phone", "to": "laptop", "latency_ms": 1, "mb_s": 80}, ...]}
//
// `link` is between any two devices, `links` are exceptions in both directions. kv_gb_s is decode_gb_s, overhead_ms 0.3
// and head true unless said; powers (PlanDevice) are needed for the energy objective alone. A GB is 10^9 bytes, a GiB
// 2^30.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "planner/plan.h"

namespace shoal {

inline constexpr std::size_t kClusterFileBytesMax = 1U << 20;

struct PlanCluster {
  std::vector<PlanDevice> devices;
  std::vector<PlanLink> links;  // [devices, devices]
};

// Errors: kInvalidArgument, saying which part is not as it should be.
Result<PlanCluster> ParseClusterFile(const std::string& text);

}  // namespace shoal
