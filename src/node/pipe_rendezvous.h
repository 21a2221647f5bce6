// Where activation links that other stages opened, here or on other nodes, wait for the stage that reads them.
//
// A link names its placement by epoch, and its stages, in a PipeHello; the stage may be ready before or after it.
// Links that nobody asks for are closed after a while, and only so many wait. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "base/ids.h"
#include "base/result.h"
#include "transport/transport.h"
#include "wire/stream_messages.h"

namespace shoal {

class PipeRendezvous {
 public:
  static constexpr std::size_t kWaitingMax = 256;  // of one peer: whoever opens too many stands in nobody else's way
  static constexpr std::chrono::seconds kWaitMax{60};

  PipeRendezvous() = default;
  ~PipeRendezvous();
  PipeRendezvous(const PipeRendezvous&) = delete;
  PipeRendezvous& operator=(const PipeRendezvous&) = delete;

  // A stream that `peer` opened: reads its hello, which must be here within kFirstFramesMax, and adds it. Takes over
  // `fd`. Blocks.
  void Serve(const NodeId& peer, int fd);
  // Of a stream the hello has been read. `peer` is who opened it. Of two for the same end the later stays.
  void Add(const NodeId& peer, Epoch epoch, const PipeHello& hello, std::unique_ptr<FrameReceiver> receiver);
  // The link that `peer` opened for it. Blocks.
  // Errors: kUnavailable (none came within `timeout`), kCancelled (CloseEpoch or Close meanwhile).
  Result<std::unique_ptr<FrameReceiver>> Take(const NodeId& peer, Epoch epoch, const PipeHello& hello,
                                              std::chrono::milliseconds timeout);
  // Closes what waits for this epoch, and ends Take for it; for good.
  void CloseEpoch(Epoch epoch);
  // All epochs.
  void Close();

 private:
  using Key = std::tuple<NodeId, Epoch, PipeKind, StageIndex, StageIndex>;
  struct Waiting {
    std::unique_ptr<FrameReceiver> receiver;
    std::chrono::steady_clock::time_point since;
  };
  static Key KeyOf(const NodeId& peer, Epoch epoch, const PipeHello& hello) {
    return {peer, epoch, hello.kind, hello.from, hello.to};
  }
  void DropOld();  // mutex_ is held

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, Waiting> waiting_;
  std::map<Epoch, bool> closed_;  // the latest ones
  bool all_closed_ = false;
};

}  // namespace shoal
