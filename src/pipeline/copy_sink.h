// Where a stage's worker puts what copies of the stage elsewhere need to know. Knows no nodes.
#pragma once

#include <cstdint>
#include <optional>

#include "stage/stage.h"
#include "transport/transport.h"

namespace shoal {

// The way to one copy.
class CopySink {
 public:
  virtual ~CopySink() = default;
  // Another number than before: the copy is a new one, or has forgotten all. 0: there is none now.
  virtual std::uint64_t session() const = 0;
  // Takes a frame without blocking; false, and `frame` stays, when earlier ones are still on their way.
  virtual bool TryPut(FrameBytes& frame) = 0;

  // What the copy was told in a session: kept here, it outlives the worker, and the next one that has the stage goes
  // on. Of the thread that computes the stage.
  struct Told {
    std::uint64_t session = 0;
    Stage::CopyKnows knows;
    std::optional<FrameBytes> waiting;  // was not taken
  };
  Told told;
};

}  // namespace shoal
