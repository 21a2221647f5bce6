// From a client to its answer, wherever in the simulated cluster that is: a new one, or the one that it comes back to;
// and how a log becomes events. After api/answering and the half of node/answer_streams that looks for answers, without
// their threads.
//
// An event is "id: N\ndata: TEXT\n\n", N as the client names it when it comes back; TEXT is a token, then "stop" or
// "length". Errors and the end have no id. Every word between nodes goes through src/wire.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "sim/answers.h"
#include "sim/keeping.h"
#include "sim/network.h"
#include "wire/answer_messages.h"

namespace shoal::sim {

inline constexpr std::string_view kDoneEvent = "data: [DONE]\n\n";
inline constexpr std::string_view kErrorEvent = "data: error ";  // then why, and an empty line

struct AnsweringRules {
  bool break_position = false;  // who comes back gets one event more than it asks for
  bool break_found = false;     // who is asked does not tell of copies
};

class SimAnswering {
 public:
  // Whoever reads: a client here, or another node's.
  struct Sink {
    std::function<void()> begin;                           // a status that is none of an error
    std::function<void(const std::string& events)> write;  // whole ones; the last is the end, or an error
    std::function<void(const Error&)> fail;                // a status of an error, and no events
  };
  SimAnswering(Network& network, SimAnswers& answers, SimKeeping& keeping, Entry& entry, int self,
               AnsweringRules rules);

  // Both give the view's number, for Gone.
  std::uint64_t Post(AnswerRecord record, Sink sink);
  // `position`: of the last event that the client has; empty: none.
  std::uint64_t Resume(const std::string& id, const std::string& position, Sink sink);
  void Gone(std::uint64_t view);  // whoever reads it is gone
  std::string Describe(std::uint64_t view) const;

  // --- Answer streams, of this node and of others.
  void OnStream(StreamId stream) { served_[stream] = {}; }
  bool Knows(StreamId stream) const { return asked_.contains(stream) || served_.contains(stream); }
  void OnOpened(StreamId stream);
  void OnFrame(StreamId stream, const FrameBytes& frame);
  void OnStreamEnd(StreamId stream);

 private:
  struct View {
    Sink sink;
    std::string id, position;  // the last event that went out
    bool begun = false, started = false;
    // Shown from here:
    SimAnswerPtr here;
    std::size_t next = 0;  // entry of the log, each of which is an event; those before the client has had
    // Passed on from elsewhere:
    StreamId from = 0;
    bool streamed = false;  // its head said so
    std::string text;
    // Looked for:
    bool looking = false, best_lost = false;
    std::uint64_t look = 0;    // which time
    std::set<StreamId> asked;  // who has not answered
    StreamId best = 0;
    AnswerPlace best_place = AnswerPlace::kNowhere;
    TimeUs until = 0;  // after a loss; 0: it was not found yet
  };
  struct Served {         // a node that asks
    SimAnswerPtr answer;  // null: it has not said which
    std::uint64_t view = 0;
  };

  View* Find(std::uint64_t number);
  void Show(std::uint64_t number);
  void OnStarted(std::uint64_t number, const Status& started);
  void Update(std::uint64_t number);
  void Begin(View& view);
  void Fail(std::uint64_t number, const Error& error);
  void Locate(std::uint64_t number);
  void OnFound(StreamId stream, AnswerPlace place);
  void EndLook(std::uint64_t number);
  void PassOn(std::uint64_t number, StreamId from);
  void OnPassed(std::uint64_t number, const AnswerMessage& message);
  void FindAgain(std::uint64_t number);
  void CloseAsked(StreamId stream);
  void Serve(StreamId stream, const AnswerMessage& message);
  void EndServed(StreamId stream);

  Network& network_;
  SimAnswers& answers_;
  SimKeeping& keeping_;
  Entry& entry_;
  const int self_;
  const AnsweringRules rules_;
  std::map<std::uint64_t, View> views_;
  std::map<StreamId, std::uint64_t> asked_;  // opened here, and for which view
  std::map<StreamId, Served> served_;
  std::uint64_t last_view_ = 0;
};

}  // namespace shoal::sim
