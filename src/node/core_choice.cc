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

void ChooseCores(const DeviceProfile& profile, bool threads_given, std::vector<EngineOptions>& stages) {
  const std::size_t count = stages.size();
  if (count == 1) return ChooseCores(profile, threads_given, stages.front());
  EngineOptions all;
  ChooseCores(profile, false, all);
  const bool given = std::any_of(stages.begin(), stages.end(), [](const auto& one) { return !one.cpus.empty(); });
  if (threads_given || given || all.cpus.size() < count) return;
  for (std::size_t i = 0; i < count; ++i) {
    const auto begin = all.cpus.begin() + static_cast<std::ptrdiff_t>(i * all.cpus.size() / count);
    const auto end = all.cpus.begin() + static_cast<std::ptrdiff_t>((i + 1) * all.cpus.size() / count);
    stages[i].cpus.assign(begin, end);
    stages[i].threads = static_cast<std::int32_t>(stages[i].cpus.size());
  }
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
