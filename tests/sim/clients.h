// Clients of the simulated cluster: at random nodes, with random prompts of which many share their beginning. One whose
// node is lost comes back to any node with the answer's id and its last event, once it has heard of an id, and one in
// three also when its node says nothing for long; some by two connections at once, some not at all.
//
// Keeps every answer with what one node would give, so that the checks have something to compare with.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sim/checks.h"
#include "sim/network.h"
#include "sim/node.h"

namespace shoal::sim {

// What became of answers whose first node was lost.
struct ComingBack {
  std::uint64_t lost = 0;      // their clients came back, or would have
  std::uint64_t found = 0;     // of those, gone on with
  std::uint64_t complete = 0;  // of those, to the end
  std::map<std::string, std::uint64_t> not_found_by;
  void operator+=(const ComingBack& other);
};

class Clients {
 public:
  Clients(Network& network, Checks& checks, std::vector<std::unique_ptr<SimNode>>& nodes,
          const std::vector<FakeModel>& models);

  void Start();  // asks now and then, until Stop
  void Stop() { asking_ = false; }
  // Precondition: the node is up.
  const Ask& Begin(int node, const FakeModel& model);
  void OnCrash(int node);  // whoever is connected there is cut off

  const Ask* FirstUnended() const;
  std::string Describe(const Ask& ask) const;  // what it waits for, for a person
  std::uint64_t asked() const { return static_cast<std::uint64_t>(asks_.size()); }
  std::uint64_t complete() const;
  std::uint64_t tokens() const;
  void OnUnplaceAsked(const std::string& model) { checks_.OnUnplaceAsked(model); }
  // How often each error ended an answer.
  std::map<std::string, std::uint64_t> errors() const;
  ComingBack coming_back() const;

 private:
  struct Line {  // one connection
    Ask* ask = nullptr;
    int node = 0;
    std::uint64_t boot = 0, view = 0;
    std::size_t had = 0;  // events
    TimeUs since = 0, heard = 0;
    bool comes_back = false;
    std::set<int> in_reach;  // who had the answer, and could be asked for it, when it came back
  };
  void Next();
  SimNode& at(int node) { return *nodes_[static_cast<std::size_t>(node)]; }
  bool Has(int node, const Ask& ask);
  void Open(Ask& ask, int node, bool comes_back);
  SimAnswering::Sink SinkOf(std::uint64_t line);
  void Watch(std::uint64_t line);
  void OnEvents(std::uint64_t line, std::string_view events);
  void OnEvent(std::uint64_t line, std::string_view event);
  void OnFail(std::uint64_t line, const Error& error);
  void Close(std::uint64_t line);
  void Lose(std::uint64_t line);
  void ComeBackLater(Ask& ask);
  void ComeBack(Ask& ask);
  void GiveUp(Ask& ask, const std::string& why);
  std::string WhyNotFound(const Ask& ask);
  static void EndIfOver(Ask& ask);

  Network& network_;
  Checks& checks_;
  std::vector<std::unique_ptr<SimNode>>& nodes_;
  const std::vector<FakeModel>& models_;
  std::vector<std::unique_ptr<Ask>> asks_;
  std::map<std::uint64_t, Line> lines_;
  std::uint64_t last_line_ = 0;
  std::vector<std::vector<TokenId>> beginnings_;
  bool asking_ = false;
};

}  // namespace shoal::sim
