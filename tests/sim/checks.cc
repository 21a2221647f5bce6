// Names and comparisons.
#include "sim/checks.h"

namespace shoal::sim {
namespace {

std::string NameOf(const Ask& ask) {
  return "generation " + std::to_string(ask.id) + " of node " + std::to_string(ask.node);
}

}  // namespace

std::string_view InvariantName(Invariant invariant) {
  switch (invariant) {
    case Invariant::kOneTokenPerPosition: return "at most one token per position reaches a client";
    case Invariant::kStreamEqualsOneNode: return "the stream equals the one-node run";
    case Invariant::kOnePlacementPerEpoch: return "no two live placements of one model at the same epoch";
    case Invariant::kNoStaleEpoch: return "a stale epoch is never served";
    case Invariant::kAgreement: return "all members agree within 120 s after faults stop";
    case Invariant::kEveryAskEnds: return "every generation ends";
    case Invariant::kEveryWishEnds: return "every request for a placement is answered";
    case Invariant::kEndsForAReason: return "a generation ends early for a known reason only";
    case Invariant::kAnswersAfterFaults: return "every node gets a whole answer after faults stop";
  }
  return "unknown";
}

void Checks::Violate(Invariant invariant, const std::string& what) {
  if (violated_) return;
  violated_ = true;
  invariant_ = invariant;
  what_ = what;
}

void Checks::OnToken(Ask& ask, std::size_t position, TokenId token) {
  if (position < ask.delivered.size()) {
    return Violate(Invariant::kOneTokenPerPosition,
                   NameOf(ask) + " got a second token for position " + std::to_string(position));
  }
  const std::vector<TokenId>& expected = ask.expected.tokens;
  if (position > ask.delivered.size()) {
    return Violate(Invariant::kStreamEqualsOneNode, NameOf(ask) + " skipped to position " + std::to_string(position) +
                                                        " after " + std::to_string(ask.delivered.size()) + " tokens");
  }
  if (position >= expected.size() || expected[position] != token) {
    return Violate(Invariant::kStreamEqualsOneNode,
                   NameOf(ask) + " got another token at position " + std::to_string(position) + " than one node gives");
  }
  ask.delivered.push_back(token);
}

void Checks::OnComplete(Ask& ask, bool stopped) {
  if (ask.delivered.size() != ask.expected.tokens.size() || stopped != ask.expected.stopped) {
    Violate(Invariant::kStreamEqualsOneNode, NameOf(ask) + " ended after " + std::to_string(ask.delivered.size()) +
                                                 " tokens; one node gives " +
                                                 std::to_string(ask.expected.tokens.size()));
  }
  ask.complete = true;
}

void Checks::OnEndedBy(const Ask& ask, EndCause cause, bool knew_placement) {
  const bool unplaced = cause == EndCause::kNotPlaced && (!knew_placement || unplaced_.contains(ask.model));
  const bool engine = cause == EndCause::kEngine && engine_failed_.contains(ask.model);
  const bool other = cause == EndCause::kCancelled || cause == EndCause::kHopeless || cause == EndCause::kLost ||
                     cause == EndCause::kBusy;
  if (unplaced || engine || other) return;
  Violate(Invariant::kEndsForAReason, NameOf(ask) + " ended without a reason: " + ask.error);
}

void Checks::OnStageWorks(int node, const PlacementRecord& placement) {
  const auto [known, added] = plans_.try_emplace({placement.model, placement.epoch}, placement.stages);
  if (!added && known->second != placement.stages) {
    Violate(Invariant::kOnePlacementPerEpoch, "node " + std::to_string(node) + " works for a second stage plan of '" +
                                                  placement.model + "' under epoch " + std::to_string(placement.epoch));
  }
}

}  // namespace shoal::sim
