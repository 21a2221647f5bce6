// How much of what the stages hold a request should keep, when some of them lack what others have.
//
// A stage that lacks positions is filled from the stage before it: with the hidden states that one sent and still has,
// or by computing them there again, which costs that stage what it held from there on. Pure arithmetic over lengths;
// knows no tokens, requests or links.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"

namespace shoal {

// One stage's part of a sequence, as far as the request has the same tokens.
struct StageHolding {
  Position length = 0;      // positions [0, length) are in its KV cache
  Position sent_from = 0;   // it still has the hidden states it sent of [sent_from, length)
  std::int32_t layers = 1;  // that it runs for each row
};

struct KeepPlan {
  std::vector<Position> keep;  // [stages]: positions that stay in each cache; at most its length
  double cost = 0;             // of filling all to `rows`, in layers run for one row
};

// The cheapest way to bring all stages to `rows` positions in micro-batches of at most `batch_rows`. Keeping nothing
// anywhere is always possible.
KeepPlan PlanKeep(std::span<const StageHolding> stages, Position rows, std::int32_t batch_rows);

// What PlanKeep asks of stages that hold nothing, or `length` positions each.
double FillCost(std::span<const StageHolding> stages, Position length, Position rows);

}  // namespace shoal
