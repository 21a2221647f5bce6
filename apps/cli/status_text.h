// A cluster's state as text for a terminal.
#pragma once

#include <string>
#include <vector>

#include "api/control_service.h"
#include "apps/cli/transfer_bar.h"

namespace shoal::cli {

// Tables of nodes, links and placements. Control characters in what other nodes call themselves show as '?'.
std::string StatusText(const ClusterStatus& status);
// The stages of one placement; empty when it has none.
std::string PlacementText(const PlacementStatus& placement);
// What another node calls itself, without what would steer the terminal.
std::string Shown(const std::string& text);
// What nodes are fetching, all of it together, and each by its percent.
void ShowFetching(TransferBar& bar, const std::vector<NodeStatus>& nodes);

}  // namespace shoal::cli
