// Clients of the simulated cluster: at random nodes, with random prompts of which many share their beginning.
//
// Keeps every generation with what one node would give, so that the checks have something to compare with.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/checks.h"
#include "sim/network.h"
#include "sim/node.h"

namespace shoal::sim {

class Clients {
 public:
  Clients(Network& network, Checks& checks, std::vector<std::unique_ptr<SimNode>>& nodes,
          const std::vector<FakeModel>& models);

  void Start();  // asks now and then, until Stop
  void Stop() { asking_ = false; }
  // Precondition: the node is up.
  const Ask& Begin(int node, const FakeModel& model);
  void OnCrash(int node);  // whoever asked there is cut off

  const Ask* FirstUnended() const;
  std::uint64_t asked() const { return static_cast<std::uint64_t>(asks_.size()); }
  std::uint64_t complete() const;
  std::uint64_t tokens() const;
  void OnUnplaceAsked(const std::string& model) { checks_.OnUnplaceAsked(model); }
  // How often each error ended a generation.
  std::map<std::string, std::uint64_t> errors() const;

 private:
  void Next();

  Network& network_;
  Checks& checks_;
  std::vector<std::unique_ptr<SimNode>>& nodes_;
  const std::vector<FakeModel>& models_;
  std::vector<std::unique_ptr<Ask>> asks_;
  std::vector<std::vector<TokenId>> beginnings_;
  bool asking_ = false;
};

}  // namespace shoal::sim
