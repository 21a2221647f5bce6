// A node of a cluster: finds the others, agrees with them on placements, runs its stages, and answers for every model
// that is placed anywhere in the cluster.
//
// Wires identity, discovery, transport, cluster and pipeline; the decisions are theirs.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/backend.h"
#include "api/control_service.h"
#include "base/result.h"
#include "engine/device_choice.h"
#include "node/kernel_choice.h"
#include "node/power_keeper.h"

namespace shoal {

struct ClusterNodeOptions {
  std::string home;                     // SHOAL_HOME
  std::string name;                     // what people call this node; empty: the host's name
  std::vector<std::string> listen;      // IP addresses; empty: all of this machine
  std::vector<std::string> peers;       // HOST:PORT or multiaddrs to try
  std::vector<std::string> relays;      // multiaddrs, with /p2p/, of members to be reached through
  bool serve_relay = false;             // other members may be reached through this node
  std::vector<std::string> model_dirs;  // folders with GGUF files, besides home/models
  std::uint16_t net_port = 48100;       // of libp2p; another one when taken
  bool mdns = true;
  std::string join_code;               // an invite to use when this node has no certificate; empty: none
  std::uint64_t memory_bytes_max = 0;  // for stages; 0: what the machine has
  std::int32_t threads = 0;            // of a stage; 0: as measured, else one on each fast core
  KernelChoices kernels;               // as LoadKernelChoices found them when this process began
  std::vector<int> waiting_cpus;       // for threads that mostly wait (node/core_choice.h); empty: any
  DeviceChoice device;                 // that stages compute on where it proves right (offload/stage_engines.h)
  std::uint64_t store_bytes_max = 0;   // of layers kept in home/store; 0: what the disk allows
  bool measure_speed = true;           // of weights and kernels that is not known yet here, while nothing runs
  bool drafts = true;                  // as StageHostOptions
  PowerOptions power;
};

class ClusterNode : public Service, public ControlService {
 public:
  // Creates a cluster of its own when home has none (and no join code is given). Returns once it listens.
  // Errors: kUnavailable (another node runs in home; no address to listen on), kIo, kCorrupt, kInvalidArgument.
  static Result<std::shared_ptr<ClusterNode>> Open(const ClusterNodeOptions& options);

  // The URL of this node's API, told to the others.
  virtual void SetApiUrl(const std::string& url) = 0;
  // True once Leave has ended, or the node was thrown out: the process should exit.
  virtual bool Ended() const = 0;
  // Once Ended: true when it took a new key, for its own was copied, and is a member with that one too, or when it
  // became a member of another cluster: Open again.
  virtual bool StartsAnew() const = 0;
  // Moves this node's layers to others and tells them that it goes; it stays a member, and the next start brings it
  // back. Blocks, at most `limit` and a second. Before Stop.
  virtual void Depart(std::chrono::milliseconds limit) = 0;
  // While `reason` is not empty this node takes no stages and gives away those it has (an empty battery, heat).
  virtual void SetDraining(const std::string& reason) = 0;
  // Ends what runs and joins all threads; tells the others. At most some seconds.
  virtual void Stop() = 0;
};

// Gets a certificate with an invite code and keeps it in home. Blocks, at most half a minute and some seconds.
// Errors: kInvalidArgument (no such code; a member of a cluster with others), kUnavailable (nobody answered), kCorrupt.
Status JoinCluster(const std::string& home, const std::string& name, const std::string& code,
                   const std::vector<std::string>& peers);

// Takes the node of `home`, which does not run, out of its cluster: the others see it as gone.
// Errors: kNotFound (it is in none), kUnavailable (it runs), kIo, kCorrupt.
Status LeaveCluster(const std::string& home);

}  // namespace shoal
