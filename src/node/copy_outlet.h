// The way from a stage here to the copy of it at another node: a bulk stream, kept up while the stage runs.
//
// A stream that is lost is opened again, ever more seldom; what the copy held is then told anew. Knows no caches. Any
// thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "base/result.h"
#include "pipeline/copy_sink.h"
#include "runtime/blocking_tasks.h"
#include "runtime/bounded_queue.h"
#include "transport/stream_link.h"
#include "wire/copy_messages.h"

namespace shoal {

class CopyOutlet final : public CopySink {
 public:
  static constexpr std::size_t kFramesMax = 2;  // one on its way, one ready

  // `open` may block for some seconds.
  CopyOutlet(CopyHello hello, std::function<Result<StreamLink>()> open);
  // Begins, as one of `tasks`, which must outlive what it does; false when there are too many.
  static bool Start(const std::shared_ptr<CopyOutlet>& outlet, BlockingTasks& tasks);
  // It ends soon; does not block.
  void Stop();

  std::uint64_t session() const override { return session_; }
  bool TryPut(FrameBytes& frame) override;

 private:
  void Run();
  bool Serve(StreamLink link);

  const CopyHello hello_;
  const std::function<Result<StreamLink>()> open_;
  std::atomic<std::uint64_t> session_{0};

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;                             // guarded by mutex_
  std::shared_ptr<FrameSender> sender_;               // guarded by mutex_: to be closed by Stop
  std::shared_ptr<BoundedQueue<FrameBytes>> frames_;  // guarded by mutex_; null: no stream
};

}  // namespace shoal
