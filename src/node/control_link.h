// The control stream to one other node: cluster messages out and in, without ever blocking the loop.
//
// Two threads: one writes what is queued, one reads. A peer that does not read fills the queue and is dropped; one that
// sends faster than the loop takes is held by its own stream. Knows no cluster state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/ids.h"
#include "cluster/messages.h"
#include "runtime/loop.h"

namespace shoal {

class ControlLink {
 public:
  struct Handlers {
    std::function<void(ClusterMessage)> on_message;  // on the loop
    std::function<void()> on_end;                    // on the loop, once, unless the link was destroyed before
  };

  // Takes over `fd`, a connected stream, also when it fails. Errors: kOverloaded (no thread).
  static Result<std::unique_ptr<ControlLink>> Open(Loop& loop, int fd, Handlers handlers);
  // Ends the stream and joins the threads: on the loop, after which no handler is called.
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  // Never blocks. False when the peer has stopped reading: the link is of no use any more.
  bool Send(std::vector<std::uint8_t> frame);
  // When a message came last; at first, when the link was made. On the loop.
  TimeUs heard() const;

 private:
  struct State;
  explicit ControlLink(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace shoal
