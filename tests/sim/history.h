// One seeded history: a cluster under faults for so many virtual minutes, then peace, then what must be true in peace.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sim/checks.h"
#include "sim/clients.h"
#include "sim/node.h"

namespace shoal::sim {

struct HistoryOptions {
  std::uint64_t seed = 1;
  int nodes = 0;  // 0: 2 to 12, by the seed
  int minutes = 10;
  bool calm = false;  // no faults: what a cluster at peace costs
  NodeRules rules;
  bool break_drafts = false;  // as FakeModel
};

struct HistoryResult {
  bool violated = false;
  Invariant invariant = Invariant::kAgreement;  // when violated
  std::string what;

  int nodes = 0;
  std::uint64_t trace = 0;  // hash of all events
  std::uint64_t events = 0;
  DurationUs virtual_us = 0;  // all of it
  DurationUs faults_us = 0;   // the part under faults
  DurationUs agreed_us = 0;   // from the end of the faults to agreement
  std::uint64_t faults = 0, overlapping = 0, resumed = 0, asked = 0, complete = 0, tokens = 0, placements = 0;
  std::map<std::string, std::uint64_t> errors;  // that ended answers
  ComingBack coming_back;
  Recovery recovery;
  DraftStats drafts;
  std::uint64_t control_bytes = 0;
  DurationUs node_us = 0;  // running time of all nodes together
};

// Deterministic: equal options give equal results.
HistoryResult PlayHistory(const HistoryOptions& options);

}  // namespace shoal::sim
