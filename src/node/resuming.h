// A generation that outlives its placement: lost with a head, a stage or a link, it goes on under the next placement.
//
// The entry node owns it: prompt, parameters and what was emitted. What comes from a new head is a continuation of that
// history, so no token is lost and none comes twice; grammar, penalties and random draws go on where they were (the
// draw at a position is a function of seed and position).
#pragma once

#include <functional>
#include <memory>

#include "api/backend.h"
#include "base/metrics.h"
#include "cluster/cluster.h"

namespace shoal {

class PlacementTable;

// Starts a generation on the head of `placement`, here or elsewhere. Errors: kStale, kUnavailable, and the head's.
using StartAtHead =
    std::function<Result<std::unique_ptr<GenerationHandle>>(const PlacementRecord& placement, GenerateOptions options)>;

// Where a model's generations run, and what to count. Outlives the generations.
struct ResumeTarget {
  ModelCard card;
  const PlacementTable& placements;
  StartAtHead start;
  Counter& resumed;                    // goes up by one each time a generation goes on elsewhere
  std::chrono::milliseconds lost_max;  // how long one waits for a placement that can run, without any token
};

// Starts a generation wherever the model's head is, and again after a loss. Blocks until a head has taken or refused
// it, at most lost_max. The handle ends with kError and kUnavailable when the model is not placed any more, when those
// that are left cannot run it (PlacementView::hopeless: at once), or when no head took it for lost_max; with the head's
// error for anything that another head would say too.
// Errors: the same, and as Backend::Generate.
Result<std::unique_ptr<GenerationHandle>> StartResuming(std::shared_ptr<const ResumeTarget> target,
                                                        GenerateOptions options);

}  // namespace shoal
