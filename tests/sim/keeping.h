// Copies of what one simulated process answers, at another node, its keeper; and copies of what others answer: as
// node/answer_streams does it with threads. Whom it takes as its keeper, what it tells a new one, and when it finds
// that one lost are the product's rules.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/answers.h"
#include "sim/network.h"

namespace shoal::sim {

// Another member that is here; as node/AnswerMember.
struct KeepingMember {
  int node = 0;
  bool alive = true;
  std::size_t models = 0;
};

class SimKeeping {
 public:
  SimKeeping(Network& network, SimAnswers& answers, int self);

  void SetMembers(std::vector<KeepingMember> members);
  const std::vector<KeepingMember>& members() const { return members_; }

  // --- Keep streams, of this node and of others.
  void OnStream(StreamId stream) { kept_[stream] = {}; }
  bool Knows(StreamId stream) const { return stream == keeper_.stream || kept_.contains(stream); }
  void OnOpened(StreamId stream);
  void OnFrame(StreamId stream, const FrameBytes& frame);
  void OnStreamEnd(StreamId stream);

 private:
  struct Sent {
    std::uint32_t number = 0;
    std::size_t entries = 0;
  };
  struct Keeper {
    int node = -1;
    StreamId stream = 0;  // 0: none
    bool up = false;
    std::map<std::string, Sent> sent;  // by id of the answer
    std::uint32_t last_number = 0;
  };
  void OnChange();
  void Copy();
  void OpenKeeper();
  std::optional<int> ChooseKeeper() const;
  void SendGrown(const SimAnswer& answer);
  void Lose();

  Network& network_;
  SimAnswers& answers_;
  const int self_;
  std::vector<KeepingMember> members_;
  std::set<int> refused_;  // could not be reached since the members last changed
  Keeper keeper_;
  bool changed_ = false, copying_ = false;                          // copying_: Copy will be called
  std::map<StreamId, std::map<std::uint32_t, SimAnswerPtr>> kept_;  // of others, by the stream's numbers
};

}  // namespace shoal::sim
