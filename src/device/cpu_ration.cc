// Version 2: cpu.max, "quota period" or "max period". Version 1: cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us.
#include "device/cpu_ration.h"

#include <algorithm>

#include "device/control_groups.h"
#include "device/system_files.h"

namespace shoal {
namespace {

std::optional<double> QuotaOf(const SystemFiles& files, const std::string& folder, bool v2) {
  std::optional<std::int64_t> quota, period;
  if (v2) {
    const std::string line = files.ReadLine(folder + "/cpu.max").value_or("");
    const std::size_t blank = line.find(' ');
    if (blank == std::string::npos) return std::nullopt;
    quota = ParseSystemInteger(line.substr(0, blank));
    period = ParseSystemInteger(line.substr(blank + 1));
  } else {
    quota = ParseSystemInteger(files.ReadLine(folder + "/cpu.cfs_quota_us").value_or(""));
    period = ParseSystemInteger(files.ReadLine(folder + "/cpu.cfs_period_us").value_or(""));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace

std::optional<double> CpuQuota(const std::string& root) {
  const SystemFiles files(root);
  std::optional<double> least;
  ForEachControlGroup(files, "cpu", [&](const std::string& folder, bool v2) {
    const std::optional<double> quota = QuotaOf(files, folder, v2);
    if (quota && (!least || *quota < *least)) least = quota;
  });
  return least;
}

}  // namespace shoal
