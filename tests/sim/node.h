// One simulated device: the real cluster state machine, a SimHost, an Entry and the answers over it on a Network, wired
// as node/cluster_node wires their real likes. Crashes take all of it but what a disk keeps: the identity and its boot
// counter.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/cluster.h"
#include "sim/answering.h"
#include "sim/answers.h"
#include "sim/checks.h"
#include "sim/entry.h"
#include "sim/host.h"
#include "sim/keeping.h"
#include "sim/network.h"

namespace shoal::sim {

struct NodeRules {  // what is broken on purpose, or not there yet
  bool break_epoch_tag = false, break_stale_check = false;
  EntryRules entry;
  CopyRules copies;
  AnsweringRules answering;
};

class SimNode final : public Process {
 public:
  SimNode(Network& network, Checks& checks, int self, const std::vector<FakeModel>& models, NodeRules rules);

  // The file of `model` is on its disk.
  void Hold(const FakeModel& model);
  bool holds(const std::string& model) const;
  // For weights; before its first start.
  void SetMemory(std::uint64_t bytes) { options_.facts.device.memory_budget_bytes = bytes; }
  std::uint64_t memory() const { return options_.facts.device.memory_budget_bytes; }

  void Start();
  void Crash(bool silent);
  bool up() const { return cluster_ != nullptr && !network_.frozen(self_); }
  bool left() const { return left_; }        // for good
  bool leaving() const { return leaving_; }  // was asked to, or has; a crash forgets it before it has left
  std::uint64_t boot() const { return options_.boot; }

  // Precondition of the rest: running.
  Cluster& cluster() { return *cluster_; }
  SimHost& host() { return *host_; }
  SimAnswers& answers() { return *answers_; }
  SimAnswering& answering() { return *answering_; }
  bool Sees(int peer) const;  // whom it would ask for an answer
  std::string DescribeView(std::uint64_t view) const;
  TimeUs Now() const { return network_.now() + skew_; }
  void JumpClock(DurationUs by) { skew_ += by; }
  std::uint64_t Place(const std::string& model, std::int32_t stages);
  std::uint64_t Unplace(const std::string& model);
  void Leave();
  // It takes no stages and gives those it has away; empty: it takes them again.
  void SetDraining(const std::string& reason);
  const std::map<std::uint64_t, Status>& answered() const { return answered_; }  // requests of this process
  // Of all its processes.
  std::uint64_t control_bytes() const;
  DurationUs running_us() const;
  std::uint64_t resumed() const { return resumed_ + (entry_ ? entry_->resumed() : 0); }

  Hardware hardware;

  // Process
  void OnConnected(int peer) override;
  void OnOpened(StreamId stream) override;
  void OnStream(StreamId stream, Protocol protocol, int peer) override;
  void OnFrame(StreamId stream, FrameBytes frame) override;
  void OnStreamEnd(StreamId stream) override;

 private:
  void Tick();
  void Discover(int peer);
  void OpenControl(int peer);
  void AddLink(int peer, StreamId stream);
  void Obey();
  void Do(const Action& action);
  void OnChanges();
  std::vector<KeepingMember> Members() const;
  std::optional<PlacementView> FindPlacement(const std::string& model) const;

  Network& network_;
  Checks& checks_;
  const int self_;
  const std::vector<FakeModel>& models_;
  const NodeRules rules_;
  ClusterOptions options_;
  DurationUs skew_ = 0;
  bool left_ = false, leaving_ = false;
  std::uint64_t control_bytes_ = 0, resumed_ = 0;
  DurationUs running_us_ = 0;
  TimeUs started_ = 0;

  // Of this process.
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<SimHost> host_;
  std::unique_ptr<Entry> entry_;
  std::unique_ptr<SimAnswers> answers_;
  std::unique_ptr<SimKeeping> keeping_;
  std::unique_ptr<SimAnswering> answering_;
  std::map<int, StreamId> links_;       // control streams that are up
  std::map<StreamId, int> link_peers_;  // these and those being opened
  std::map<int, StreamId> opening_;
  std::vector<PlacementView> placements_;  // as of the last change; what answers go by
  std::map<std::uint64_t, Status> answered_;
  bool obeying_ = false, changed_ = false;  // changed_: OnChanges will be called
};

}  // namespace shoal::sim
