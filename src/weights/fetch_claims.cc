// Counts by model and range.
#include "weights/fetch_claims.h"

#include <algorithm>

#include "base/check.h"

namespace shoal {

void FetchClaims::Add(const ModelId& id, std::size_t range, RangeState state) {
  SHOAL_CHECK(state != RangeState::kNone && state != RangeState::kHere);
  const std::lock_guard lock(mutex_);
  claims_[{id, range}].insert(state);
}

void FetchClaims::Drop(const ModelId& id, std::size_t range, RangeState state) {
  const std::lock_guard lock(mutex_);
  const auto found = claims_.find({id, range});
  SHOAL_CHECK(found != claims_.end());
  const auto one = found->second.find(state);
  SHOAL_CHECK(one != found->second.end());
  found->second.erase(one);
  if (found->second.empty()) claims_.erase(found);
}

RangeState FetchClaims::Of(const ModelId& id, std::size_t range) const {
  const std::lock_guard lock(mutex_);
  const auto found = claims_.find({id, range});
  return found == claims_.end() ? RangeState::kNone : *found->second.rbegin();
}

FetchFrom WhereFrom(RangeState own, std::span<const PeerClaim> peers) {
  const auto any = [&](const auto& is) { return std::any_of(peers.begin(), peers.end(), is); };
  if (any([](const PeerClaim& one) { return one.state == RangeState::kHere; })) return FetchFrom::kPeers;
  const bool waits = any([&](const PeerClaim& one) {
    if (one.state == RangeState::kNone) return false;
    return one.state == RangeState::kFetching || one.state > own || (one.state == own && one.first);
  });
  return waits ? FetchFrom::kWait : FetchFrom::kSource;
}

}  // namespace shoal
