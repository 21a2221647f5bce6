// One answer: the record of its request, the log of all that was sampled for it, and the thread that fills the log.
//
// Clients only read the log, each at its own place, so that any number of them may come, leave and come back. When
// nobody listens any more, or a generation fails, the answer stops; it can be started again from its log, here or (from
// a copy) on another node, and goes on where it was. Knows no dialect beyond its plan. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "api/answer_plan.h"
#include "api/metrics.h"
#include "runtime/blocking_tasks.h"
#include "wire/answer_messages.h"

namespace shoal {

class Answer;

// What all answers of a node share; outlives their threads.
struct AnswerHost {
  ApiMetrics& metrics;
  Admission& admission;
  BlockingTasks& threads;  // one for each answer that runs
  const std::atomic<bool>& stopping;
  std::chrono::milliseconds grace;  // how long an answer that is to be kept goes on while no client listens
  std::function<void(const std::shared_ptr<Answer>&)> changed;  // its log has grown; must not block
};

class Answer : public std::enable_shared_from_this<Answer> {
 public:
  Answer(AnswerHost& host, AnswerRecord record, bool is_copy);

  const AnswerRecord& record() const { return record_; }
  // Another node answers; what is here is only kept. Until Start.
  bool is_copy() const;
  // It is new, and its node still finds out whether another one answers this already. The node alone ends that, by one
  // of these two; nobody may Start it before.
  bool is_claim() const;
  void Settle();   // it is answered here
  void GiveWay();  // it is answered elsewhere: never here. Without effect once settled
  // Waits up to `timeout` for that. kOpen: not yet.
  enum class Claim { kOpen, kSettled, kGivenWay };
  Claim WaitForClaim(std::chrono::milliseconds timeout) const;
  bool in_use() const;  // it runs, or somebody listens
  std::chrono::steady_clock::time_point last_changed() const;
  std::size_t bytes() const;  // about what it holds

  // While one of these lives somebody listens.
  class Listening {
   public:
    explicit Listening(std::shared_ptr<Answer> to);
    ~Listening();
    Listening(const Listening&) = delete;
    Listening& operator=(const Listening&) = delete;

   private:
    const std::shared_ptr<Answer> to_;
  };
  void Keep();  // as if the record had said so

  // Makes it run, unless it runs or has ended; not a claim (CHECK). `plan` is made from record(). Blocks until the
  // heads have taken or refused it. Errors: 429 (no place), 400 (context, too many at once), 503, 500 (a log that does
  // not fit the plan).
  std::optional<ApiError> Start(const std::shared_ptr<const AnswerPlan>& plan);

  struct News {
    std::vector<AnswerEntry> entries;
    bool ended = false;            // they are the last
    std::optional<Error> stopped;  // nothing follows, unless it is started again
  };
  // Entries from `from` on; waits for some, or for an end, up to `timeout`.
  News Read(std::size_t from, std::chrono::milliseconds timeout) const;

  // Entries from the node that answers, for a copy; left out when it is none any more. False: some are missing.
  bool Receive(std::size_t first, const std::vector<AnswerEntry>& entries);

 private:
  enum class State { kIdle, kStarting, kRunning, kEnded };
  struct Live {
    std::size_t choice = 0;
    std::unique_ptr<GenerationHandle> handle;
    std::optional<ChoiceText> stops;  // where stop strings may end it
    std::int32_t reused_said = -1;
    bool first_run = true;
  };
  struct Started {
    std::vector<Live> live;
    std::vector<AnswerEntry> ends;  // of choices that had ended, only that nobody had said so
  };
  std::variant<Started, ApiError> StartChoices(const AnswerPlan& plan, const std::vector<AnswerEntry>& log) const;
  void Run(std::shared_ptr<const AnswerPlan> plan, std::vector<Live> live, Admission::Permit permit);
  // An event of a choice that is not over; the error that ends all.
  std::optional<Error> Take(Live& live, GenerationEvent& event);
  std::optional<std::pair<std::size_t, GenerationEvent>> Poll(std::vector<Live>& live, std::size_t& turn) const;
  bool IsWanted() const;
  void Append(std::vector<AnswerEntry> entries);
  void Become(State state, std::optional<Error> stopped = std::nullopt);

  AnswerHost& host_;
  const AnswerRecord record_;
  const std::chrono::steady_clock::time_point made_ = std::chrono::steady_clock::now();

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  State state_ = State::kIdle;
  std::vector<AnswerEntry> log_;
  std::size_t log_bytes_ = 0;
  std::optional<Error> stopped_;  // with kIdle: why, unless it was never started
  Claim claim_;
  bool is_copy_, keep_;
  int listeners_ = 0;
  std::chrono::steady_clock::time_point left_, last_changed_;  // when the last listener did
  bool first_token_seen_ = false;
};

}  // namespace shoal
