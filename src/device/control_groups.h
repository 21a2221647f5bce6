// The control groups that this process is in, where Linux's own files say so. Knows nothing of what they limit.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "device/system_files.h"

namespace shoal {

// Calls `look` with the folder of each group from this process's own up to the root, of version 2 and of version 1's
// `controller` ("memory", "cpu"); `v2` says which.
// https://docs.kernel.org/admin-guide/cgroup-v2.html
void ForEachControlGroup(const SystemFiles& files, std::string_view controller,
                         const std::function<void(const std::string& folder, bool v2)>& look);

}  // namespace shoal
