// One way from a node to another: whole frames, in order, with back-pressure. Knows nothing of what a frame means.
//
// Two implementations serve the same interface: in memory (transport/memory.h) and, between hosts, libp2p. A frame is
// the bytes of wire/frame.h, header included, never longer than kFrameBytesMax.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"

namespace shoal {

using FrameBytes = std::vector<std::uint8_t>;

// The sending end. One thread at a time.
class FrameSender {
 public:
  virtual ~FrameSender() = default;
  // Blocks while the receiver lags by the link's limit. Errors: kUnavailable once either end is closed.
  virtual Status Send(FrameBytes frame) = 0;
  // The receiver drains what was sent, then sees the end. Idempotent; any thread.
  virtual void Close() = 0;
};

// The receiving end. One thread at a time.
class FrameReceiver {
 public:
  virtual ~FrameReceiver() = default;
  // Blocks for the next frame; empty when the link has ended and nothing is left.
  virtual std::optional<FrameBytes> Receive() = 0;
  // Wakes a blocked Receive and makes Send fail. Idempotent; any thread.
  virtual void Close() = 0;
};

}  // namespace shoal
