// What this process means to fetch of sourced models, and who of several members fetches a range from its source.
//
// Each says what it wants before it looks at what the others do; so of two that want the same at the same time one, at
// least, sees the other, and only one of both waits. Who then goes to the source says that too, and looks once more:
// the other may have looked too early to wait. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <span>
#include <utility>

#include "weights/peer_messages.h"

namespace shoal {

class FetchClaims {
 public:
  // `state`: kWanted, kBegun or kFetching. Claims of several fetches add up.
  void Add(const ModelId& id, std::size_t range, RangeState state);
  void Drop(const ModelId& id, std::size_t range, RangeState state);  // one that was added (CHECK)
  RangeState Of(const ModelId& id, std::size_t range) const;          // the most that is claimed

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<ModelId, std::size_t>, std::multiset<RangeState>> claims_;  // guarded by mutex_
};

// What another member says of a range that is missing here. `first`: it goes before us where both want it alike.
struct PeerClaim {
  RangeState state = RangeState::kNone;
  bool first = false;
};
enum class FetchFrom { kPeers, kSource, kWait };
// `own`: kWanted or kBegun. Pure.
FetchFrom WhereFrom(RangeState own, std::span<const PeerClaim> peers);

}  // namespace shoal
