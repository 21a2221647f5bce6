// Who of several members fetches a range that all of them want.
#include "weights/fetch_claims.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

constexpr RangeState kStates[] = {RangeState::kNone, RangeState::kWanted, RangeState::kBegun, RangeState::kFetching,
                                  RangeState::kHere};

TEST(FetchClaims, TheMostThatIsClaimedCounts) {
  FetchClaims claims;
  const ModelId id{1}, other{2};
  EXPECT_EQ(claims.Of(id, 3), RangeState::kNone);
  claims.Add(id, 3, RangeState::kWanted);
  claims.Add(id, 3, RangeState::kWanted);
  claims.Add(id, 3, RangeState::kFetching);
  EXPECT_EQ(claims.Of(id, 3), RangeState::kFetching);
  EXPECT_EQ(claims.Of(id, 4), RangeState::kNone);
  EXPECT_EQ(claims.Of(other, 3), RangeState::kNone);
  claims.Drop(id, 3, RangeState::kFetching);
  claims.Drop(id, 3, RangeState::kWanted);
  EXPECT_EQ(claims.Of(id, 3), RangeState::kWanted);
  claims.Drop(id, 3, RangeState::kWanted);
  EXPECT_EQ(claims.Of(id, 3), RangeState::kNone);
}

TEST(FetchClaims, WhoHasItGivesItAndWhoFetchesItIsWaitedFor) {
  using enum RangeState;
  const auto from = [](RangeState own, std::vector<PeerClaim> peers) { return WhereFrom(own, peers); };
  EXPECT_EQ(from(kWanted, {}), FetchFrom::kSource);
  EXPECT_EQ(from(kWanted, {{kNone, true}, {kNone, false}}), FetchFrom::kSource);
  EXPECT_EQ(from(kWanted, {{kFetching, false}, {kHere, false}}), FetchFrom::kPeers);
  EXPECT_EQ(from(kBegun, {{kFetching, false}}), FetchFrom::kWait);
  EXPECT_EQ(from(kWanted, {{kBegun, false}}), FetchFrom::kWait) << "the other has some of it";
  EXPECT_EQ(from(kBegun, {{kWanted, true}}), FetchFrom::kSource);
  EXPECT_EQ(from(kWanted, {{kWanted, true}}), FetchFrom::kWait);
  EXPECT_EQ(from(kWanted, {{kWanted, false}}), FetchFrom::kSource);
  EXPECT_EQ(from(kNone, {{kNone, true}}), FetchFrom::kSource) << "nobody wants it: nobody is waited for";
}

// Whatever two want and however they are ordered: not both wait, and of two who have only said so not both fetch.
TEST(FetchClaims, OfTwoExactlyOneGoesFirst) {
  for (const RangeState a : kStates) {
    for (const RangeState b : kStates) {
      const bool both_want = (a == RangeState::kWanted || a == RangeState::kBegun) &&
                             (b == RangeState::kWanted || b == RangeState::kBegun);
      if (!both_want) continue;
      for (const bool a_first : {false, true}) {
        const PeerClaim of_b[] = {{b, !a_first}}, of_a[] = {{a, a_first}};
        EXPECT_NE(WhereFrom(a, of_b), WhereFrom(b, of_a));
      }
    }
  }
}

}  // namespace
}  // namespace shoal
