// What the links to other members carry, and whom to ask next: a transfer of bounded size where nothing is known or
// what is known is old. What real transfers show costs nothing and counts as much.
//
// A link costs at most kProbeBytes an hour, a node at most that in two minutes once its links are known. A probe may
// show nothing (there is no bulk connection; this node was too busy to keep the link full): it is soon made again, then
// ever more seldom. Pure: no stream, no clock. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "base/ids.h"
#include "runtime/clock.h"

namespace shoal {

class LinkMeter {
 public:
  static constexpr std::size_t kProbeBytes = 1 << 20;
  static constexpr DurationUs kProbeMaxUs = 500'000;  // a slow link is known by less than all bytes

  static constexpr DurationUs kFreshUs = 3'600'000'000;   // then a figure is old
  static constexpr DurationUs kSettleUs = 3'000'000;      // a new link is left alone so long
  static constexpr DurationUs kSpacingUs = 120'000'000;   // between probes of this node
  static constexpr DurationUs kNewSpacingUs = 2'000'000;  // the same, of links of which nothing is known
  static constexpr DurationUs kAgainUs = 4'000'000;       // after a probe that showed nothing; doubles to kSpacingUs

  // A link that comes back is as new: a device that roams has another one.
  void LinkUp(const NodeId& peer, TimeUs now) { links_[peer] = {.due = now + kSettleUs}; }
  void LinkDown(const NodeId& peer) { links_.erase(peer); }

  // Whom to probe now, if anyone: counts as probed, whatever comes of it.
  std::optional<NodeId> Due(TimeUs now);
  // Bytes a second that bulk to `peer` reached. True when that is news: unknown before, or another by a tenth.
  bool Measured(const NodeId& peer, std::uint64_t bytes_per_s, TimeUs now);

 private:
  struct Link {
    std::uint64_t seen = 0, told = 0;  // bytes a second
    TimeUs due = 0;
    DurationUs again = kAgainUs;
  };
  static std::pair<bool, TimeUs> Rank(const Link& link) { return {link.seen != 0, link.due}; }

  std::map<NodeId, Link> links_;
  TimeUs last_probe_ = INT64_MIN / 2;
};

}  // namespace shoal
