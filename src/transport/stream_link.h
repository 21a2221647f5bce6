// Whole frames over a connected stream socket: what a network stream looks like on this side.
//
// A frame goes out as it is (its header says how long it is) and comes in with its header checked before its payload is
// allocated. A frame of type kEnd says that nothing follows: without it a stream that ends was cut, for a network may
// tell a lost peer as a clean end. Knows no peers and no protocols.
#pragma once

#include <chrono>
#include <memory>

#include "base/result.h"
#include "transport/transport.h"

namespace shoal {

// Both directions of one socket, which closes when both are destroyed.
struct StreamLink {
  std::unique_ptr<FrameSender> sender;
  std::unique_ptr<FrameReceiver> receiver;
};

// Takes over `fd`, a connected blocking stream socket. `frame_bytes_max` bounds what is received, header included; at
// most kFrameBytesMax (CHECK).
//   Send      blocks while the socket is full. Errors: kUnavailable (the stream has ended or was lost)
//   Receive   blocks; empty at the peer's kEnd, at the end of the stream, and at a header that is none: then the rest
//   of
//             the stream cannot be trusted and is not read
//   Close     of the sender: sends kEnd if no frame is stuck half-way, then ends this direction. Of the receiver: wakes
//             a blocked Receive; what the peer still sends is refused
StreamLink MakeStreamLink(int fd, std::size_t frame_bytes_max);

// One end of a stream of which only one direction is used. The other direction stays open as long: closing it would
// read as a loss at the other end.
std::unique_ptr<FrameSender> SendingEnd(StreamLink link);
std::unique_ptr<FrameReceiver> ReceivingEnd(StreamLink link);

inline constexpr std::chrono::seconds kFirstFramesMax{10};  // from a stream's opening to what it is for

// The next `frames` frames must be here within `limit` from now: later ones are not received, and nothing after them.
// So that a peer which opens a stream and says nothing holds nobody. Not during a Receive. `receiver` is one of
// MakeStreamLink's (CHECK).
void LimitFirstFrames(FrameReceiver& receiver, int frames, std::chrono::milliseconds limit);

// After Receive gave nothing: true when the peer said that it was done. `receiver` is one of MakeStreamLink's (CHECK).
bool EndedCleanly(const FrameReceiver& receiver);

}  // namespace shoal
