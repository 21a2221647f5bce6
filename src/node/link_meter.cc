// Of the links that are due the one that is due longest; unknown ones first.
#include "node/link_meter.h"

#include <algorithm>
#include <utility>

namespace shoal {

std::optional<NodeId> LinkMeter::Due(TimeUs now) {
  auto first = links_.end();
  for (auto link = links_.begin(); link != links_.end(); ++link) {
    const auto& [seen, told, due] = link->second;
    if (now < due || now - last_probe_ < (seen == 0 ? kNewSpacingUs : kSpacingUs)) continue;
    if (first == links_.end() || Rank(link->second) < Rank(first->second)) first = link;
  }
  if (first == links_.end()) return std::nullopt;
  last_probe_ = now;
  // Should nothing come of it, the next try is not soon: a link that has no bulk connection will hardly get one.
  first->second.due = now + kSpacingUs;
  return first->first;
}

bool LinkMeter::Measured(const NodeId& peer, std::uint64_t bytes_per_s, TimeUs now) {
  const auto found = links_.find(peer);
  if (found == links_.end() || bytes_per_s == 0 || bytes_per_s == found->second.seen) return false;
  Link& link = found->second;
  link.seen = bytes_per_s;
  link.due = now + kFreshUs;
  const std::uint64_t apart = std::max(bytes_per_s, link.told) - std::min(bytes_per_s, link.told);
  if (apart * 10 < link.told) return false;
  link.told = bytes_per_s;
  return true;
}

}  // namespace shoal
