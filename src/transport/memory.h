// Links inside one process: a bounded queue of frames.
#pragma once

#include <cstddef>
#include <memory>

#include "transport/transport.h"

namespace shoal {

struct MemoryLink {
  std::unique_ptr<FrameSender> sender;
  std::unique_ptr<FrameReceiver> receiver;
};

// `frames_max`: how many frames may wait before Send blocks, at least 1 (CHECK). Either end may outlive the other;
// one that is destroyed closes the link.
MemoryLink MakeMemoryLink(std::size_t frames_max);

}  // namespace shoal
