// All answers of this node: those that run, those that ended or stopped lately, and copies of those of other nodes.
//
// What nobody uses is kept for a while, so that a client that comes back finds it; bounded in time, count and bytes,
// the oldest goes first. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/answer.h"
#include "api/metrics.h"
#include "base/metrics.h"
#include "runtime/blocking_tasks.h"

namespace shoal {

struct AnswersOptions {
  int generations_max = 128;                  // at once, waiting or running
  std::chrono::milliseconds grace{60'000};    // as AnswerHost
  std::chrono::milliseconds kept{120'000};    // after the last use
  std::size_t kept_max = 256;                 // answers that nobody uses, and as many copies
  std::size_t kept_bytes_max = 32U << 20;     // of either
  std::chrono::milliseconds copies{600'000};  // since the last word of it
};

class Answers {
 public:
  Answers(MetricsRegistry& registry, const AnswersOptions& options);
  ~Answers();  // Stop()
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;

  // The answer of `record`, which is new unless there is one with its key (or its id) already.
  struct Claimed {
    std::shared_ptr<Answer> answer;
    bool is_new = false;
  };
  Claimed Claim(AnswerRecord record);
  // A copy of what another node answers; null when the answer is known here already.
  std::shared_ptr<Answer> AddCopy(AnswerRecord record);
  // By id, else by key. Null: none.
  std::shared_ptr<Answer> Find(const AnswerAsk& ask);
  // Forgotten; a claim gives way.
  void Drop(const std::shared_ptr<Answer>& answer);

  // Forgets what is over its time or its limits. Also done by the calls above.
  void Sweep();
  // `on_change` is called when answers of this node (no copies) have grown; it must not block. At most one.
  void Watch(std::function<void()> on_change);
  // Those that have grown since the last call.
  std::vector<std::shared_ptr<Answer>> TakeChanged();
  // Those of this node that run or are used.
  std::vector<std::shared_ptr<Answer>> InUse();

  BlockingTasks& threads() { return threads_; }
  ApiMetrics& metrics() { return metrics_; }

  // Ends what runs and joins all threads. Idempotent. Handlers of requests may still read what there is.
  void Stop();

 private:
  void SweepLocked();
  void SweepKind(bool copies, std::chrono::milliseconds time);
  void Erase(const std::shared_ptr<Answer>& answer);
  void Changed(const std::shared_ptr<Answer>& answer);

  const AnswersOptions options_;
  ApiMetrics metrics_;
  Admission admission_;
  std::atomic<bool> stopping_{false};
  BlockingTasks threads_;
  AnswerHost host_;

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Answer>> by_id_;
  std::map<AnswerKey, std::shared_ptr<Answer>> by_key_;
  std::chrono::steady_clock::time_point swept_;

  std::mutex changes_mutex_;  // taken under answers' own locks: never holds another
  std::map<Answer*, std::shared_ptr<Answer>> changes_;
  std::function<void()> on_change_;
};

}  // namespace shoal
