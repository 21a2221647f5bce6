// A bounded queue of frames that both ends share.
#include "transport/memory.h"

#include "runtime/bounded_queue.h"

namespace shoal {
namespace {

using Queue = BoundedQueue<FrameBytes>;

class MemorySender final : public FrameSender {
 public:
  explicit MemorySender(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
  ~MemorySender() override { queue_->Close(); }
  Status Send(FrameBytes frame) override {
    if (queue_->Push(std::move(frame))) return {};
    return Error{ErrorCode::kUnavailable, "the link inside this process is closed"};
  }
  void Close() override { queue_->Close(); }

 private:
  const std::shared_ptr<Queue> queue_;
};

class MemoryReceiver final : public FrameReceiver {
 public:
  explicit MemoryReceiver(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
  ~MemoryReceiver() override { queue_->Close(); }
  std::optional<FrameBytes> Receive() override { return queue_->Pop(); }
  void Close() override { queue_->Close(); }

 private:
  const std::shared_ptr<Queue> queue_;
};

}  // namespace

MemoryLink MakeMemoryLink(std::size_t frames_max) {
  const auto queue = std::make_shared<Queue>(frames_max);
  return {std::make_unique<MemorySender>(queue), std::make_unique<MemoryReceiver>(queue)};
}

}  // namespace shoal
