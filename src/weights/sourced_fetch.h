// Ranges of a sourced model: from members that have them, else straight from the model's source on the network.
//
// Of several members that want the same range one fetches it from the source, the others take it from that one. Where
// the source gives nothing to this node, a member is asked to fetch for it. Who has a range's bytes first makes its
// hashes; from then on everything that comes of it is verified against those, whoever sends it. Blocks; its threads end
// with the call.
#pragma once

#include <cstddef>
#include <vector>

#include "base/result.h"
#include "weights/http.h"
#include "weights/peers.h"
#include "weights/store.h"

namespace shoal {

inline constexpr int kSourceConnections = 4;

// Brings `ranges` of `model` into the store, in that order where the source gives them. Errors: as FetchRanges; kStale
// (the source has another file now), kCorrupt (the source's bytes are not what a member says they are: names both), and
// as HttpFile::Read where no member has, or fetches, what the source refuses.
Result<FetchReport> FetchSourced(WeightStore& store, const StoredModel& model, const std::vector<std::size_t>& ranges,
                                 const std::vector<WeightPeer>& peers, const HttpOptions& http,
                                 const FetchOptions& options);

}  // namespace shoal
