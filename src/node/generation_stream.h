// A generation over a stream: the entry node asks, the head of a placement on another node answers token by token.
// Knows frames, not which network carries them. wire/stream_messages.h says what is exchanged.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "api/backend.h"
#include "base/result.h"
#include "transport/stream_link.h"

namespace shoal {

// Asks the head at the other end of `stream` for a generation on `model` at `epoch`. Destroying the handle closes the
// stream, which cancels. Blocks until the head has taken or refused it.
// Errors: the head's (kContextFull, kOverloaded, kInvalidArgument, kStale, kUnavailable); kUnavailable when it is lost.
Result<std::unique_ptr<GenerationHandle>> OpenRemoteGeneration(StreamLink stream, Epoch epoch, const std::string& model,
                                                               GenerateOptions options);

// Starts the generation that was asked for. Errors go back to who asked.
using StartGenerationAt = std::function<Result<std::unique_ptr<GenerationHandle>>(Epoch epoch, const std::string& model,
                                                                                  GenerateOptions options)>;

inline constexpr int kGenerateRequestFrames = 2;  // that the asker sends: a Generate, and a Control with its prompt

// Serves one generation to its end, or until the asker closes the stream. Blocks: a thread of its own.
// Anything malformed ends the stream with a Failure.
void ServeGeneration(StreamLink stream, const StartGenerationAt& start);

}  // namespace shoal
