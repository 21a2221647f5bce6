// What a token of an answer costs where its placement begins, beside what stages compute: being handed through the
// threads of the head, scheduled, and sent to a client over HTTP.
//
// Measured with all of that as it is, over a stage that computes nothing but keeps its cores busy for a while and reads
// memory meanwhile, as a stage does: threads that share cores and caches with it cost more than others. Keeps nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/model_info.h"

namespace shoal {

// Seconds, positive. `model`: its header, for the words; `cpus`: of the stage's threads, at least one; `ration` as
// StageSpeedOptions; `folder`: where a socket is made meanwhile. Blocks for about a quarter of a second, and computes
// on threads of its own. Errors: as Vocabulary::Open and Server::Start; kInternal.
Result<double> MeasureTokenCost(const std::shared_ptr<const ModelFile>& model, const std::vector<int>& cpus,
                                double ration, const std::string& folder);

}  // namespace shoal
