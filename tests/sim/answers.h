// The answers of one simulated process, as api/answers and api/answer keep them with threads: the record of a request,
// the log of all that was sampled for it, and whether it runs here; and copies of what other nodes answer. An answer
// goes on while somebody reads its log, is gone on with from its log, and is forgotten after a while.
//
// One choice each, no idempotency keys. Knows no clients, no events and no other nodes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/checks.h"
#include "sim/entry.h"
#include "sim/fake_model.h"
#include "sim/network.h"
#include "wire/answer_messages.h"

namespace shoal::sim {

// The body of a request.
struct AnswerBody {
  std::vector<TokenId> prompt;
  std::int32_t tokens_max = 0;
};
std::string TextOf(const AnswerBody& body);
AnswerBody ParseBody(const std::string& text);

class SimAnswer {
 public:
  SimAnswer(AnswerRecord of, bool copy, TimeUs now)
      : record(std::move(of)), body(ParseBody(record.body)), is_copy(copy), left(now), last_changed(now) {}

  const AnswerRecord record;
  const AnswerBody body;
  bool is_copy;
  std::vector<AnswerEntry> log;
  enum class State : std::uint8_t { kIdle, kStarting, kRunning, kEnded };
  State state = State::kIdle;
  std::optional<Error> stopped;  // with kIdle: why, unless it was never started

  bool in_use() const { return state == State::kStarting || state == State::kRunning || !listeners.empty(); }

 private:
  friend class SimAnswers;
  std::map<std::uint64_t, std::function<void()>> listeners;  // by view
  std::vector<std::function<void(const Status&)>> starting;  // who waits until it has started, or cannot
  std::uint64_t generation = 0;                              // of the entry; 0: none
  TimeUs left, last_changed;
};
using SimAnswerPtr = std::shared_ptr<SimAnswer>;

class SimAnswers {
 public:
  SimAnswers(Network& network, Checks& checks, Entry& entry, int self, const std::vector<FakeModel>& models);

  SimAnswerPtr Add(AnswerRecord record);
  // Null: the answer is known here already.
  SimAnswerPtr AddCopy(AnswerRecord record);
  SimAnswerPtr Find(const std::string& id);  // null: none

  // Makes it run, unless it runs or has ended. `done`: once a head has it, or it cannot be.
  void Start(SimAnswerPtr answer, std::function<void(const Status&)> done);
  // `on_change`: the log has grown, or `state` is another.
  void Listen(const SimAnswerPtr& answer, std::uint64_t view, std::function<void()> on_change);
  void Leave(const SimAnswerPtr& answer, std::uint64_t view);
  // For a copy; left out when it is none any more. False: some are missing.
  bool Receive(const SimAnswerPtr& answer, std::size_t first, const std::vector<AnswerEntry>& entries);

  // What is called when answers of this node have grown; and those that have since TakeChanged was called.
  void Watch(std::function<void()> on_change) { on_change_ = std::move(on_change); }
  std::vector<SimAnswerPtr> TakeChanged();
  std::vector<SimAnswerPtr> InUse();
  std::string Describe(const SimAnswer& answer) const { return entry_.Describe(answer.generation); }

 private:
  void Run(const SimAnswerPtr& answer);
  void OnToken(const SimAnswerPtr& answer, Position position, const SampledToken& token);
  void OnEnd(const SimAnswerPtr& answer, const EntryEnd& end);
  void Append(const SimAnswerPtr& answer, AnswerEntry entry);
  void Become(const SimAnswerPtr& answer, SimAnswer::State state, std::optional<Error> stopped = std::nullopt);
  void Changed(const SimAnswerPtr& answer);
  static void Tell(const SimAnswerPtr& answer);
  void CheckWanted(const SimAnswerPtr& answer, DurationUs delay);
  void Sweep();

  Network& network_;
  Checks& checks_;
  Entry& entry_;
  const int self_;
  const std::vector<FakeModel>& models_;
  std::map<std::string, SimAnswerPtr> by_id_;
  std::vector<SimAnswerPtr> changed_;  // each once, in the order of their first change
  std::function<void()> on_change_;
  std::uint64_t generations_ = 0;
};

}  // namespace shoal::sim
