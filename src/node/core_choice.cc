// One thread on each fast core, the fastest first.
#include "node/core_choice.h"

#include <algorithm>

#include "node/device_speed.h"

namespace shoal {

void ChooseCores(const DeviceProfile& profile, bool threads_given, EngineOptions& options) {
  if (!options.cpus.empty()) return;
  std::vector<int> fast = SpeedCpus(profile, threads_given ? options.threads : 0);
  if (fast.empty()) return;
  const std::size_t fast_count = profile.FastCpus().size();
  const auto count = static_cast<std::int32_t>(fast.size());
  if (!threads_given) options.threads = std::min(options.threads, count);
  const auto& groups = profile.topology.groups;
  const bool has_slow = std::any_of(groups.begin(), groups.end(),
                                    [](const CoreGroup& group) { return group.kind == CoreKind::kEfficiency; });
  // A process that may use the slow cores only has no choice either.
  if (!has_slow || fast_count == profile.UsableCpus().size()) return;
  if (threads_given && static_cast<std::size_t>(options.threads) > fast_count) return;
  options.threads = count;
  options.cpus = std::move(fast);
}

std::vector<int> WaitingCpus(const DeviceProfile& profile) {
  const std::vector<int> usable = profile.UsableCpus();
  std::vector<int> slow;
  for (const CoreGroup& group : profile.topology.groups) {
    if (group.kind == CoreKind::kEfficiency) slow.insert(slow.end(), group.cpus.begin(), group.cpus.end());
  }
  std::erase_if(slow, [&](int cpu) { return std::find(usable.begin(), usable.end(), cpu) == usable.end(); });
  // Where the slow ones are all that a process may use, there is nothing to leave free.
  return slow.size() == usable.size() ? std::vector<int>{} : slow;
}

}  // namespace shoal
