// A counted share of one sender, with a lock around it.
#include "transport/fan_in.h"

#include <mutex>
#include <utility>

namespace shoal {
namespace {

class Shared {
 public:
  explicit Shared(std::unique_ptr<FrameSender> sender) : sender_(std::move(sender)) {}
  ~Shared() { sender_->Close(); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  Status Send(FrameBytes frame) {
    const std::lock_guard lock(mutex_);
    return sender_->Send(std::move(frame));
  }

 private:
  std::mutex mutex_;
  std::unique_ptr<FrameSender> sender_;
};

class Share final : public FrameSender {
 public:
  explicit Share(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

  Status Send(FrameBytes frame) override {
    std::shared_ptr<Shared> shared;
    {
      const std::lock_guard lock(mutex_);
      shared = shared_;
    }
    if (shared == nullptr) return Error{ErrorCode::kUnavailable, "the link is closed"};
    return shared->Send(std::move(frame));
  }

  void Close() override {
    const std::lock_guard lock(mutex_);
    shared_.reset();
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace

std::vector<std::unique_ptr<FrameSender>> FanIn(std::unique_ptr<FrameSender> sender, std::size_t count) {
  const auto shared = std::make_shared<Shared>(std::move(sender));
  std::vector<std::unique_ptr<FrameSender>> shares;
  for (std::size_t i = 0; i < count; ++i) shares.push_back(std::make_unique<Share>(shared));
  return shares;
}

}  // namespace shoal
