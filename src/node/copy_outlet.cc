// One thread opens, says hello, and sends what it is given.
#include "node/copy_outlet.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace shoal {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAgainMin{500}, kAgainMax{30'000};

}  // namespace

CopyOutlet::CopyOutlet(CopyHello hello, std::function<Result<StreamLink>()> open)
    : hello_(std::move(hello)), open_(std::move(open)) {}

bool CopyOutlet::Start(const std::shared_ptr<CopyOutlet>& outlet, BlockingTasks& tasks) {
  return tasks.Run([outlet] { outlet->Run(); });
}

void CopyOutlet::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  session_ = 0;
  if (frames_) frames_->Close();
  if (sender_) sender_->Close();
  wake_.notify_all();
}

bool CopyOutlet::TryPut(FrameBytes& frame) {
  std::shared_ptr<BoundedQueue<FrameBytes>> frames;
  {
    const std::lock_guard lock(mutex_);
    frames = frames_;
  }
  return frames != nullptr && frames->TryPush(frame);
}

void CopyOutlet::Run() {
  for (milliseconds again = kAgainMin;; again = std::min(2 * again, kAgainMax)) {
    Result<StreamLink> link = open_();
    if (link.ok() && Serve(*std::move(link))) again = kAgainMin;
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, again, [&] { return stopping_; })) return;
  }
}

// True: the copy took something.
bool CopyOutlet::Serve(StreamLink link) {
  static std::atomic<std::uint64_t> sessions{0};
  const auto frames = std::make_shared<BoundedQueue<FrameBytes>>(kFramesMax);
  const std::shared_ptr<FrameSender> sender = std::move(link.sender);
  if (!sender->Send(EncodeCopyHello(hello_)).ok()) return false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    frames_ = frames;
    sender_ = sender;
    session_ = ++sessions;
  }
  std::size_t sent = 0;
  while (std::optional<FrameBytes> frame = frames->Pop()) {
    if (!sender->Send(*std::move(frame)).ok()) break;
    ++sent;
  }
  const std::lock_guard lock(mutex_);
  session_ = 0;
  frames_ = nullptr;
  sender_ = nullptr;
  return sent > 2;  // fewer fit into the way itself
}

}  // namespace shoal
