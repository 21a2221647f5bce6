// The path of one request through this node: from a prompt to a stream of tokens.
//
// Meets the loop (which owns the pipeline) and the caller's thread (which reads events) in one bounded queue.
#pragma once

#include <memory>

#include "api/backend.h"
#include "base/result.h"
#include "pipeline/pipeline.h"
#include "runtime/loop.h"

namespace shoal {

// Where generations are sent. The pipeline is used on the loop only. Handles share ownership of the target, and with it
// of whatever owns the loop and the pipeline (an aliasing pointer); what waits on the loop does not.
struct GenerateTarget {
  Loop& loop;
  Pipeline& pipeline;
  std::int32_t context_tokens = 0;
  std::int32_t n_vocab = 0;
};

// Starts a generation with the given id. Blocks until the scheduler has taken or refused it.
// Errors: kContextFull, kOverloaded, kInvalidArgument, kUnavailable.
Result<std::unique_ptr<GenerationHandle>> StartGeneration(std::shared_ptr<const GenerateTarget> target, GenerationId id,
                                                          GenerateOptions options);

}  // namespace shoal
