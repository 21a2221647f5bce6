// A cluster's state as text for a terminal.
#pragma once

#include <string>

#include "api/control_service.h"

namespace shoal::cli {

// Tables of nodes, links and placements. Control characters in what other nodes call themselves show as '?'.
std::string StatusText(const ClusterStatus& status);
// The stages of one placement; empty when it has none.
std::string PlacementText(const PlacementStatus& placement);

}  // namespace shoal::cli
