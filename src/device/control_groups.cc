// /proc/self/cgroup: "0::/path" is version 2, "4:cpu,cpuacct:/path" a hierarchy of version 1.
#include "device/control_groups.h"

#include <sstream>

namespace shoal {
namespace {

constexpr int kDepthMax = 64;

}  // namespace

void ForEachControlGroup(const SystemFiles& files, std::string_view controller,
                         const std::function<void(const std::string& folder, bool v2)>& look) {
  const std::string name(controller);
  std::istringstream groups(files.Read("/proc/self/cgroup").value_or(""));
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find("," + name + ",") == std::string::npos) continue;
    const std::string mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + name;
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    for (int depth = 0; depth < kDepthMax; ++depth) {
      look(mount + path, v2);
      const std::size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
}

}  // namespace shoal
