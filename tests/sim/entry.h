// The way of a generation between the node that answers and the head of the placement, at both ends: what node/resuming
// and node/generation_stream do with threads, around the same state machine (schedule/resumption). Knows no stages and
// no clients.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/cluster.h"
#include "schedule/resumption.h"
#include "sim/checks.h"
#include "sim/host.h"
#include "sim/network.h"

namespace shoal::sim {

struct EntryRules {
  bool break_resume = false;  // the next head is not told of the last token
};

// What is asked for; as GenerateOptions.
struct EntryAsk {
  std::string model;
  std::vector<TokenId> history;  // the last `emitted` of it are an answer so far
  std::uint32_t emitted = 0;
  std::uint64_t seed = 0;
  std::int32_t tokens_max = 0, context_tokens_max = 0;
};

struct EntryEnd {
  std::optional<FinishReason> finish;  // kStop or kLength; nothing: `error`
  EndCause cause = EndCause::kNone;    // of the error
  bool knew_placement = false;         // its node did, since it was asked
  Error error;
};

struct EntryEvents {
  std::function<void()> on_started;  // a head has it, the first
  std::function<void(Position, const SampledToken&)> on_token;
  std::function<void(const EntryEnd&)> on_end;  // the last; maybe before Start returns
};

class Entry {
 public:
  using FindPlacement = std::function<std::optional<PlacementView>(const std::string& model)>;

  Entry(Network& network, SimHost& host, int self, EntryRules rules, FindPlacement find);

  // --- The side that asks. `id` is new. Nothing is told after Cancel.
  void Start(std::uint64_t id, EntryAsk ask, EntryEvents events);
  void Cancel(std::uint64_t id);
  bool knows(const std::string& model) const { return find_(model).has_value(); }

  // How often a generation went on after a loss.
  std::uint64_t resumed() const { return resumed_; }
  // What it waits for, for a person.
  std::string Describe(std::uint64_t id) const;

  // --- Generate streams.
  void OnStream(StreamId stream) { served_[stream] = {}; }
  void OnOpened(StreamId stream);
  void OnFrame(StreamId stream, FrameBytes frame);
  void OnStreamEnd(StreamId stream);

 private:
  struct Attempt {
    std::uint64_t id = 0;
    StreamId stream = 0;  // 0: the head is here
    std::string model;
    Epoch epoch = 0;
    GenerationId local = 0;
    bool open = false, accepted = false;
  };
  struct Running {
    std::string model;
    std::uint64_t seed = 0;
    EntryEvents events;
    Resumption generation;
    TimeUs heard = 0;
    TimeUs headless_since = 0;    // when it was asked, or its head was lost
    bool knew_placement = false;  // since it was asked
    bool had_head = false;
  };
  struct Served {  // at the head
    std::string model;
    Epoch epoch = 0;
    bool asked = false;
    std::optional<OpenSequence> open;
    std::int32_t tokens_max = 0;
    GenerationId generation = 0;
  };

  void Try(std::uint64_t id);
  void AskHead(std::uint64_t id, const PlacementRecord& placement);
  void WatchSilence(std::uint64_t id);
  void LeaveSuperseded(std::uint64_t id);
  // `cause`: why it may end because of that, but for the time that has passed.
  void Refused(std::uint64_t id, const Error& why, EndCause cause, bool possible);
  GenerationRequest RequestOf(const Running& running) const;
  void OnAccepted(std::uint64_t attempt);
  void OnToken(std::uint64_t attempt, Position position, const SampledToken& token);
  void OnEnd(std::uint64_t attempt, FinishReason reason, const Error& error);
  void Fail(std::uint64_t id, EndCause cause, const Error& error);
  void End(std::uint64_t id, const EntryEnd& end);
  void Drop(std::uint64_t attempt);
  void OnAnswer(std::uint64_t attempt, const FrameBytes& frame);
  void Serve(StreamId stream, const FrameBytes& frame);
  void SendEvent(StreamId stream, Epoch epoch, const ScheduleEvent& event);

  Network& network_;
  SimHost& host_;
  const int self_;
  const EntryRules rules_;
  const FindPlacement find_;
  std::map<std::uint64_t, Running> running_;
  std::map<std::uint64_t, Attempt> attempts_;
  std::map<StreamId, std::uint64_t> by_stream_;
  std::uint64_t last_attempt_ = 0, resumed_ = 0;
  std::map<StreamId, Served> served_;
};

}  // namespace shoal::sim
