// Two threads and two bounded queues.
#include "node/control_link.h"

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/log.h"
#include "runtime/bounded_queue.h"
#include "runtime/start_thread.h"
#include "transport/stream_link.h"

namespace shoal {
namespace {

constexpr std::size_t kQueuedFramesMax = 1024;  // to a peer that does not read: minutes of heartbeats
constexpr std::size_t kInboxMax = 64;           // messages that wait for the loop

}  // namespace

struct ControlLink::State : std::enable_shared_from_this<ControlLink::State> {
  State(Loop& control_loop, int fd, Handlers what)
      : loop(control_loop),
        handlers(std::move(what)),
        stream(MakeStreamLink(fd, kClusterFrameBytesMax)),
        outbox(kQueuedFramesMax),
        inbox(kInboxMax) {}

  void Write() {
    while (std::optional<FrameBytes> frame = outbox.Pop()) {
      if (!stream.sender->Send(std::move(*frame)).ok()) break;
    }
    outbox.Close();
    stream.sender->Close();
  }

  void Read() {
    while (std::optional<FrameBytes> frame = stream.receiver->Receive()) {
      Result<ClusterMessage> message = DecodeClusterMessage(*frame);
      if (!message.ok()) {
        Log(LogLevel::kWarning, "control",
            "a peer's message is refused and its link closed: " + message.error().message);
        break;
      }
      if (!inbox.Push(std::move(*message))) return;
      loop.Post([self = shared_from_this()] { self->TakeOne(); });
    }
    inbox.Close();
    stream.receiver->Close();
    loop.Post([self = shared_from_this()] {
      if (!self->gone) self->handlers.on_end();
    });
  }

  // Loop.
  void TakeOne() {
    std::optional<ClusterMessage> message = inbox.TryPop();
    heard = loop.clock().Now();
    if (message && !gone) handlers.on_message(std::move(*message));
  }

  Loop& loop;
  const Handlers handlers;
  StreamLink stream;
  BoundedQueue<FrameBytes> outbox;
  BoundedQueue<ClusterMessage> inbox;
  bool gone = false;  // loop only
  TimeUs heard = 0;   // loop only
  std::thread writer, reader;
};

Result<std::unique_ptr<ControlLink>> ControlLink::Open(Loop& loop, int fd, Handlers handlers) {
  std::unique_ptr<ControlLink> link(new ControlLink(std::make_shared<State>(loop, fd, std::move(handlers))));
  State* const state = link->state_.get();
  state->heard = loop.clock().Now();
  SHOAL_ASSIGN_OR_RETURN(state->writer, StartThread("shoal-control", [state] { state->Write(); }));
  SHOAL_ASSIGN_OR_RETURN(state->reader, StartThread("shoal-control", [state] { state->Read(); }));
  return link;
}

ControlLink::~ControlLink() {
  state_->gone = true;
  state_->outbox.Close();
  state_->inbox.Close();
  state_->stream.sender->Close();
  state_->stream.receiver->Close();
  for (std::thread* thread : {&state_->writer, &state_->reader}) {
    if (thread->joinable()) thread->join();
  }
}

TimeUs ControlLink::heard() const { return state_->heard; }

bool ControlLink::Send(std::vector<std::uint8_t> frame) { return state_->outbox.TryPush(frame); }

}  // namespace shoal
