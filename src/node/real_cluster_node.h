// The parts of a node of a cluster, and its methods: cluster_node.cc has what its loop does, cluster_node_service.cc
// what the API and people ask of it. Included by these two alone.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/cluster.h"
#include "identity/home.h"
#include "identity/instance.h"
#include "node/answer_streams.h"
#include "node/cluster_backend.h"
#include "node/cluster_node.h"
#include "node/inviting.h"
#include "node/joining.h"
#include "node/kernel_keeper.h"
#include "node/model_library.h"
#include "node/node_weights.h"
#include "node/peer_tasks.h"
#include "node/peers.h"
#include "node/pipe_rendezvous.h"
#include "node/speed_keeper.h"
#include "node/stage_host.h"
#include "offload/stage_engines.h"
#include "runtime/ask_loop.h"
#include "runtime/blocking_tasks.h"

namespace shoal {

inline constexpr std::uint32_t kStreamOpenMs = 3'000;

class RealClusterNode final : public ClusterNode, public std::enable_shared_from_this<RealClusterNode> {
 public:
  RealClusterNode(ClusterNodeOptions options, std::unique_ptr<Home> home, InstanceNumber instance);
  ~RealClusterNode() override { Stop(); }
  RealClusterNode(const RealClusterNode&) = delete;
  RealClusterNode& operator=(const RealClusterNode&) = delete;

  Status Begin();

  // ClusterNode
  void SetApiUrl(const std::string& url) override;
  bool Ended() const override { return ended_; }
  bool StartsAnew() const override { return starts_anew_; }
  void Depart(std::chrono::milliseconds limit) override;
  void SetDraining(const std::string& reason) override;
  void Stop() override;

  // Service
  std::vector<ModelCard> models() override;
  std::shared_ptr<Backend> Find(const std::string& name) override;
  bool healthy() const override { return !stopping_; }
  Answers* answers() override { return &answers_; }
  AnswerPeers* answer_peers() override { return answer_streams_.get(); }
  MetricsRegistry& metrics() override { return metrics_; }
  void RefreshMetrics() override;

  // ControlService
  ClusterStatus cluster_status() override;
  Result<InviteStatus> Invite() override;
  Result<PlacementStatus> Place(const PlaceCommand& command) override;
  Status Unplace(const std::string& model) override;
  Status Join(const JoinCommand& command) override;
  Status Leave() override;
  Status Revoke(const std::string& node) override;
  Status TellModels() override;

 private:
  using Answer = Result<Epoch>;

  StageHostOptions HostOptions();
  Status StartCluster();
  NodeWeightsOptions WeightsOptions();
  PeersOptions MakePeersOptions() const;
  PeersHandlers MakePeersHandlers();
  TimeUs Now() const { return loop_.clock().Now(); }

  template <typename F>
  auto OnLoop(F call) {
    return AskLoop(loop_, std::move(call));
  }

  // What is on the disk. Any thread. Of looks that overlap the one that began last counts.
  struct Look {
    std::uint64_t number = 0;
    std::vector<ModelHolding> models;
  };
  Look LookAtDisk();
  void TakeModels(Look look);  // loop

  // Loop.
  void Tick();
  void RefreshFacts();
  void RefreshSpeeds();
  void TellOffload();
  void RefreshKernels(const std::vector<StageHost::Work>& works);
  void ObeyPower();
  void Learn();
  void TellFetching();
  void TellObserved(std::vector<ObservedPlacement> now);
  void TakeAddresses();
  void Obey();
  void Do(const Send& send) { peers_->Send(send.to, send.frame); }
  void Do(const Connect& connect) { peers_->Connect(connect.node, connect.addresses, Now()); }
  void Do(const Disconnect& disconnect);
  void Do(const LoadStage& load) { host_.Load(load.placement, load.index, load.source); }
  void Do(const Activate& activate);
  void Do(const UnloadStage& unload) { host_.Unload(unload.model, unload.epoch, unload.index); }
  void Do(const LoadStandby& load) { host_.LoadCopy(load.placement, load.index); }
  void Do(const DropStandby& drop) { host_.DropCopy(drop.model, drop.layers); }
  void Do(const RequestDone& done);
  void Do(const Revoked& revoked);
  void Do(const MembersChanged&);
  void Do(const PlacementsChanged&);
  void Do(const Left& left);
  void Do(const Note& note) { Log(LogLevel::kInfo, "cluster", note.text); }
  void OnStream(const NodeId& peer, const std::string& protocol, int fd);
  void OnClone(const std::string& why);
  void OnNetworkEnd(const std::string& why);
  void KeepPeers();
  void TellWhoWaits();  // that this node is stopping
  Result<JoinRequest> BeginJoin(const JoinCommand& command);
  Status EndJoin(const ReceivedGrant& received);

  // Tasks.
  void ServeGenerate(int fd);
  std::shared_ptr<Backend> FindBackend(const std::string& name, const std::function<bool()>& given_up);
  Result<std::shared_ptr<Backend>> OpenBackendOf(const PlacementRecord& record, const std::function<bool()>& given_up);
  Result<std::unique_ptr<GenerationHandle>> StartAt(const PlacementRecord& placement, GenerateOptions options);
  // Blocks until the cluster has answered what `ask` requests of it on the loop: with the id of the request.
  Answer Request(const std::function<Result<std::uint64_t>()>& ask);
  Answer Wait(std::optional<std::shared_ptr<std::promise<Answer>>> asked, std::chrono::seconds limit);

  const ClusterNodeOptions options_;
  const std::unique_ptr<Home> home_;
  const InstanceNumber instance_;
  MetricsRegistry metrics_;
  RealLoop loop_;
  ModelLibrary library_;
  std::unique_ptr<NodeWeights> weights_;
  PipeRendezvous pipes_;
  BlockingTasks tasks_;
  KernelKeeper kernels_;
  const std::shared_ptr<StageEngines> engines_;  // null: the CPU alone
  SpeedKeeper speeds_;                           // loop only
  PowerKeeper power_;                            // loop only
  PeerTasks peer_tasks_;
  Answers answers_;
  StageHost host_;
  std::unique_ptr<Peers> peers_;
  std::unique_ptr<Inviting> inviting_;  // loop only
  PlacementTable placements_;
  std::unique_ptr<AnswerStreams> answer_streams_;

  // Loop only.
  std::unique_ptr<Cluster> cluster_;
  MemberFacts facts_;
  bool obeying_ = false;
  TimeUs facts_due_ = 0, fetching_due_ = 0, speeds_due_ = 0, observed_due_ = 0, peers_file_due_ = 0;
  bool scanning_ = false, learning_ = false;
  std::uint64_t look_taken_ = 0;
  std::uint64_t worked_ = 0;  // what the stages here have done when it was last looked
  bool departing_ = false;    // it goes, and comes back
  bool joining_ = false;      // asks to be let in elsewhere
  std::size_t unknown_ = 0;   // models of others that this node cannot be given stages of yet
  std::map<std::uint64_t, std::shared_ptr<std::promise<Answer>>> requests_;
  std::vector<std::shared_ptr<std::promise<Answer>>> leaving_;
  std::string peers_file_;

  BackendTable backends_;
  std::atomic<std::uint64_t> looks_{0};

  std::atomic<bool> stopping_{false}, ended_{false}, starts_anew_{false};
  std::once_flag stopped_;
};

}  // namespace shoal
