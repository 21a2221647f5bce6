// A ControlService that says what a test tells it to and remembers what it was asked.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "api/control_service.h"

namespace shoal {

class ScriptedControl final : public ControlService {
 public:
  ClusterStatus cluster_status() override {
    const std::lock_guard lock(mutex);
    return status;
  }
  Result<InviteStatus> Invite() override {
    if (failure) return *failure;
    return InviteStatus{"AAAA-BBBB-CCCC-DDDD", 600, {"/ip4/10.0.0.1/tcp/48100"}, "shoal:AAAA@10.0.0.1", "##\n##\n"};
  }
  Result<PlacementStatus> Place(const PlaceCommand& command) override {
    const std::lock_guard lock(mutex);
    placed.push_back(command);
    if (failure) return *failure;
    const PlacementStatus placement{command.model, (Epoch{7} << 32) | 5, "live", "", {{"12D3a", "alpha", {0, 30}}}};
    status.placements.push_back(placement);
    return placement;
  }
  Status Unplace(const std::string& model) override { return Note("unplace " + model); }
  Status Join(const JoinCommand& command) override {
    return Note("join " + command.code + " as '" + command.name + "' by " + std::to_string(command.peers.size()));
  }
  Status Leave() override { return Note("leave"); }
  Status Revoke(const std::string& node) override { return Note("revoke " + node); }
  Status TellModels() override { return Note("models"); }

  std::mutex mutex;
  ClusterStatus status;
  std::optional<Error> failure;  // of everything but cluster_status()
  std::vector<PlaceCommand> placed;
  std::vector<std::string> notes;

 private:
  Status Note(const std::string& what) {
    const std::lock_guard lock(mutex);
    notes.push_back(what);
    return failure ? Status(*failure) : Status();
  }
};

// Two nodes, a link each way, one placement over both.
inline ClusterStatus TwoNodes() {
  ClusterStatus status{"12D3a", "c1", {}, {}, {}};
  NodeStatus alpha;
  alpha.id = "12D3a";
  alpha.name = "alpha";
  alpha.state = "alive";
  alpha.self = alpha.owner = true;
  alpha.addresses = {"/ip4/10.0.0.1/tcp/48100"};
  alpha.api = "http://10.0.0.1:8080/v1";
  alpha.os = "linux";
  alpha.arch = "x86_64";
  alpha.cores = 4;
  alpha.memory_bytes = 8ULL << 30;
  alpha.memory_free_bytes = 5ULL << 30;
  alpha.models = {{"smollm2", 100'000'000, 30, 0xfeedface12345678, {{0, 10}, {20, 30}}, 60'000'000}};
  NodeStatus beta = alpha;
  beta.id = "12D3b";
  beta.name = "beta";
  beta.state = "suspect";
  beta.self = beta.owner = false;
  beta.api = "";
  beta.models.clear();
  status.nodes = {alpha, beta};
  status.links = {{"12D3a", "12D3b", 1500, 12'000'000}, {"12D3b", "12D3a", 1600, 0}};
  status.placements = {{"smollm2",
                        (Epoch{3} << 32) | 0xFFFFFFFF,
                        "live",
                        "",
                        {{"12D3a", "alpha", {0, 10}}, {"12D3b", "beta", {10, 30}}}}};
  status.placements[0].forecast = {0.5, 20, 60, true, "both together"};
  status.placements[0].observed = {12.5, 40, 7.5, 0};
  return status;
}

}  // namespace shoal
