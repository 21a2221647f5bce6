// A map under a lock.
#include "node/pipe_rendezvous.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/log.h"
#include "transport/stream_link.h"

namespace shoal {
namespace {

constexpr std::size_t kClosedEpochsMax = 1024;

}  // namespace

PipeRendezvous::~PipeRendezvous() { Close(); }

void PipeRendezvous::Serve(const NodeId& peer, int fd) {
  StreamLink link = MakeStreamLink(fd, kFrameBytesMax);
  LimitFirstFrames(*link.receiver, 1, kFirstFramesMax);
  const std::optional<FrameBytes> first = link.receiver->Receive();
  if (!first) return;
  const Result<PipeHelloFrame> hello = DecodePipeHello(*first);
  if (!hello.ok()) return Log(LogLevel::kWarning, "network", "a stream is refused: " + hello.error().message);
  Add(peer, hello->epoch, hello->hello, ReceivingEnd(std::move(link)));
}

void PipeRendezvous::Add(const NodeId& peer, Epoch epoch, const PipeHello& hello,
                         std::unique_ptr<FrameReceiver> receiver) {
  const std::lock_guard lock(mutex_);
  DropOld();
  if (all_closed_ || closed_.contains(epoch)) return;
  const auto of_peer = [&](const auto& entry) { return std::get<0>(entry.first) == peer; };
  if (static_cast<std::size_t>(std::count_if(waiting_.begin(), waiting_.end(), of_peer)) >= kWaitingMax) {
    return Log(LogLevel::kWarning, "network", "node " + ShortHex(peer) + " opens too many links that nobody asked for");
  }
  waiting_[KeyOf(peer, epoch, hello)] = {std::move(receiver), std::chrono::steady_clock::now()};
  changed_.notify_all();
}

Result<std::unique_ptr<FrameReceiver>> PipeRendezvous::Take(const NodeId& peer, Epoch epoch, const PipeHello& hello,
                                                            std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (all_closed_ || closed_.contains(epoch)) return Error{ErrorCode::kCancelled, "the placement was given up"};
    const auto found = waiting_.find(KeyOf(peer, epoch, hello));
    if (found != waiting_.end()) {
      std::unique_ptr<FrameReceiver> receiver = std::move(found->second.receiver);
      waiting_.erase(found);
      return receiver;
    }
    if (changed_.wait_until(lock, deadline) == std::cv_status::timeout &&
        std::chrono::steady_clock::now() >= deadline) {
      return Error{ErrorCode::kUnavailable, "stage " + std::to_string(hello.from) + " did not open its link to stage " +
                                                std::to_string(hello.to)};
    }
  }
}

void PipeRendezvous::CloseEpoch(Epoch epoch) {
  const std::lock_guard lock(mutex_);
  closed_[epoch] = true;
  if (closed_.size() > kClosedEpochsMax) closed_.erase(closed_.begin());
  std::erase_if(waiting_, [&](const auto& entry) { return std::get<1>(entry.first) == epoch; });
  changed_.notify_all();
}

void PipeRendezvous::Close() {
  const std::lock_guard lock(mutex_);
  all_closed_ = true;
  waiting_.clear();
  changed_.notify_all();
}

void PipeRendezvous::DropOld() {
  const auto oldest = std::chrono::steady_clock::now() - kWaitMax;
  std::erase_if(waiting_, [&](const auto& entry) { return entry.second.since <= oldest; });
}

}  // namespace shoal
