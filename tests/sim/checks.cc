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
    case Invariant::kAnswerIsFound: return "who comes back finds an answer that a node in reach has";
  }
  return "unknown";
}

void Recovery::operator+=(const Recovery& other) {
  taken_over += other.taken_over;
  row_layers_recovered += other.row_layers_recovered;
  row_layers_from_nothing += other.row_layers_from_nothing;
  copies_taken += other.copies_taken;
  copies_that_knew += other.copies_that_knew;
  row_layers_spared += other.row_layers_spared;
}

void Checks::Violate(Invariant invariant, const std::string& what) {
  if (violated_) return;
  violated_ = true;
  invariant_ = invariant;
  what_ = what;
}

// Events are numbered from 1.
void Checks::OnEvent(const Ask& ask, std::size_t had, std::size_t event) {
  if (event <= had) {
    Violate(Invariant::kOneTokenPerPosition, NameOf(ask) + " got a second event " + std::to_string(event));
  } else if (event > had + 1) {
    Violate(Invariant::kStreamEqualsOneNode,
            NameOf(ask) + " skipped to event " + std::to_string(event) + " after " + std::to_string(had));
  }
}

void Checks::OnToken(Ask& ask, std::size_t had, std::size_t event, TokenId token) {
  OnEvent(ask, had, event);
  const std::vector<TokenId>& expected = ask.expected.tokens;
  if (event > expected.size() || expected[event - 1] != token) {
    Violate(Invariant::kStreamEqualsOneNode,
            NameOf(ask) + " got another token at position " + std::to_string(event - 1) + " than one node gives");
  }
  if (event == ask.delivered.size() + 1) ask.delivered.push_back(token);
}

void Checks::OnFinish(Ask& ask, std::size_t had, std::size_t event, bool stopped) {
  OnEvent(ask, had, event);
  if (event != ask.expected.tokens.size() + 1 || stopped != ask.expected.stopped) {
    Violate(Invariant::kStreamEqualsOneNode, NameOf(ask) + " ended after " + std::to_string(event - 1) +
                                                 " tokens; one node gives " +
                                                 std::to_string(ask.expected.tokens.size()));
  }
  ask.stopped = stopped;
}

void Checks::OnComplete(Ask& ask, std::size_t had) {
  if (had != ask.expected.tokens.size() + 1) {
    Violate(Invariant::kStreamEqualsOneNode, NameOf(ask) + " was over after event " + std::to_string(had));
  }
  ask.complete = true;
}

void Checks::OnEndedBy(const std::string& name, const std::string& model, EndCause cause, bool knew_placement,
                       const std::string& error) {
  const bool unplaced = cause == EndCause::kNotPlaced && (!knew_placement || unplaced_.contains(model));
  const bool engine = cause == EndCause::kEngine && engine_failed_.contains(model);
  const bool other = cause == EndCause::kHopeless || cause == EndCause::kLost || cause == EndCause::kBusy;
  if (unplaced || engine || other) return;
  Violate(Invariant::kEndsForAReason, name + " ended without a reason: " + error);
}

void Checks::OnStageWorks(int node, const PlacementRecord& placement) {
  const auto [known, added] = plans_.try_emplace({placement.model, placement.epoch}, placement.stages);
  if (!added && known->second != placement.stages) {
    Violate(Invariant::kOnePlacementPerEpoch, "node " + std::to_string(node) + " works for a second stage plan of '" +
                                                  placement.model + "' under epoch " + std::to_string(placement.epoch));
  }
}

}  // namespace shoal::sim
