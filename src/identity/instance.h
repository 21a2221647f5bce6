// One run of a node, and which of two runs with the same key has to give way.
//
// A folder copied to a second device makes two nodes of one key. Each run draws a random instance number, which the
// beacon and the control hello carry, so a node that meets its own id under another instance has met its clone. The run
// that started later takes a new key (Home::ReplaceNodeKey). Pure but for MakeInstance.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace shoal {

using InstanceNumber = std::uint64_t;  // random, never 0

// Errors: kInternal (no random numbers).
Result<InstanceNumber> MakeInstance();

struct InstanceAge {
  InstanceNumber instance = 0;
  std::int64_t uptime_us = 0;  // how long that run has been up when this was said
};

// Whether `mine` is the one to give way to `other`, both ages as of now. Of two nodes that each ask this with ages at
// most one second wrong, at least one is told yes, and exactly one unless they started 4 to 6 s apart (then perhaps
// both, which costs a key and nothing else). Equal instance numbers are one run: no.
bool GivesWay(const InstanceAge& mine, const InstanceAge& other);

}  // namespace shoal
