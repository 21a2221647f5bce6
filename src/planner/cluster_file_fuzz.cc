// Fuzz target: a file of devices. What is read has sizes that go together, and can be planned for without a crash.
#include <cstdint>
#include <cstdlib>

#include "planner/cluster_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto cluster = shoal::ParseClusterFile(std::string(reinterpret_cast<const char*>(data), size));
  if (!cluster.ok()) return 0;
  if (cluster->links.size() != cluster->devices.size() * cluster->devices.size()) std::abort();
  if (cluster->devices.size() > 3) return 0;  // the rest takes time
  shoal::PlanInput input{cluster->devices, cluster->links, {}, {}, {}};
  input.model.layer_bytes.assign(4, 100U << 20);
  input.model.kv_bytes.assign(4, 4096);
  input.model.cuts = {1, 2, 3};
  (void)shoal::MakePlan(input);
  return 0;
}
