// Of the links that are due the one that is due longest; unknown ones first.
#include "node/link_meter.h"

#include <algorithm>
#include <utility>

namespace shoal {

std::optional<NodeId> LinkMeter::Due(TimeUs now) {
  auto first = links_.end();
  for (auto link = links_.begin(); link != links_.end(); ++link) {
    const DurationUs spacing = link->second.seen == 0 ? kNewSpacingUs : kSpacingUs;
    if (now < link->second.due || now - last_probe_ < spacing) continue;
    if (first == links_.end() || Rank(link->second) < Rank(first->second)) first = link;
  }
  if (first == links_.end()) return std::nullopt;
  last_probe_ = now;
  Link& link = first->second;
  link.due = now + link.again;
  link.again = std::min(2 * link.again, kSpacingUs);
  return first->first;
}

bool LinkMeter::Measured(const NodeId& peer, std::uint64_t bytes_per_s, TimeUs now) {
  const auto found = links_.find(peer);
  if (found == links_.end() || bytes_per_s == 0 || bytes_per_s == found->second.seen) return false;
  Link& link = found->second;
  link.seen = bytes_per_s;
  link.due = now + kFreshUs;
  link.again = kAgainUs;
  const std::uint64_t apart = std::max(bytes_per_s, link.told) - std::min(bytes_per_s, link.told);
  if (apart * 10 < link.told) return false;
  link.told = bytes_per_s;
  return true;
}

}  // namespace shoal
