// What a person at this node's terminal may ask of it: who is here, who may come, what runs where. Knows no transport.
//
// node/ implements it over the cluster; api/control_server.h offers it on a Unix socket that only the owner of the
// files can open. All methods: any thread; those that say so block.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "planner/device_speed.h"
#include "planner/observed_speed.h"
#include "planner/plan.h"

namespace shoal {

struct ModelStatus {
  std::string name;
  std::uint64_t file_bytes = 0;
  std::int32_t layers = 0;
  std::uint64_t fingerprint = 0;  // equal for the same model, whatever it is called
  std::vector<LayerRange> held;   // layers on the node's disk, ascending, apart from each other
  std::uint64_t held_bytes = 0;   // of weights there, embeddings and the like included
};

// How fast a node runs weights of one quantization, as it measured itself.
struct SpeedStatus {
  std::string quantization;                      // "Q4_0"
  double one_row_bytes_s = 0, rows_bytes_s = 0;  // weight bytes a second in passes of one row, of 64
  double operation_s = 0;                        // of one small operation
};

// How fast it runs stages of one model.
struct StageSpeedStatus {
  std::string model;
  MeasuredStageSpeed speed;
};

// Bytes a second that the cores of one kind read together.
struct CoreGroupStatus {
  std::string kind;  // "prime", "performance", "efficiency", "unknown"
  std::int32_t cores = 0;
  double bytes_s = 0;
};

// Layers of a model that a node is getting from others.
struct FetchStatus {
  std::string model;
  std::uint64_t bytes_done = 0, bytes_total = 0;
};

// What a node's stages compute on beside its CPU.
struct OffloadStatus {
  std::string device;       // as its owner named it, "vulkan:1"; empty: the CPU alone
  std::int32_t layers = 0;  // of a stage, its last ones; 0: all
  std::string use;          // "untried", "computes", "failed"
  std::string text;         // which it is; of one that failed why the CPU computes
};

struct NodeStatus {
  std::string id;  // peer id
  std::string name;
  std::string state;  // "alive", "suspect", "dead", "left"
  bool self = false, owner = false;
  std::vector<std::string> addresses;  // multiaddrs
  std::string api;                     // URL of its OpenAI API; empty: none
  std::string os, arch;
  std::int32_t cores = 0;
  std::uint64_t memory_bytes = 0, memory_free_bytes = 0;
  std::uint64_t memory_budget_bytes = 0;  // what stages of all models may take together
  double memory_bytes_s = 0;              // read by its fast cores; 0: not measured
  std::vector<SpeedStatus> speeds;
  std::vector<StageSpeedStatus> stage_speeds;
  double ration = 1;                  // share of the time in which its cores may compute
  double pace = 1;                    // share of those speeds that its stages reach of late
  std::int32_t battery_percent = -1;  // -1: none, or unknown
  double rest = 0;                    // seconds between micro-batches for each second of computing
  std::string draining;               // why it takes no stages; empty: it does
  double idle_w = 0, active_w = 0;    // what it takes awake, and more while it computes; 0 both: unknown
  bool power_measured = false;        // of its battery; else by a table
  bool on_battery = false;
  std::vector<CoreGroupStatus> groups;
  OffloadStatus offload;
  std::vector<ModelStatus> models;
  std::vector<FetchStatus> fetching;
};

// As measured by `from`; 0: not measured yet.
struct LinkStatus {
  std::string from, to;  // peer ids
  std::uint32_t rtt_us = 0;
  std::uint64_t bytes_per_s = 0;
};

struct PlacedStage {
  std::string node, name;  // peer id; what the node calls itself
  LayerRange layers;
  std::vector<std::string> standby;  // names of the nodes that keep a copy ready
  std::uint64_t memory_bytes = 0;    // that it takes there: weights, K and V, what it keeps of what it sent
};

// What the planner expected of a placement when it was made; tokens_s is 0 where it said nothing.
struct ForecastStatus {
  double first_token_s = 0, tokens_s = 0, tokens_s_many = 0;
  bool measured = false;  // every device's speed was, none estimated
  std::string reason;
  double PromptTokensPerSecond() const { return first_token_s > 0 ? kForecastPromptTokens / first_token_s : 0; }
};

struct PlacementStatus {
  std::string model;
  Epoch epoch = 0;
  std::string state;  // "preparing", "live", "failed"
  std::string error;  // why it failed
  std::vector<PlacedStage> stages;
  std::vector<std::string> survives;  // names of the nodes any one of which it can lose without loading anything
  std::string goal;                   // "spread", "latency", "throughput", "energy"
  ForecastStatus forecast;
  ObservedSpeeds observed;  // as its head measures; 0: not measured yet
};

// What was found the fastest for a type of weights on this device.
struct KernelChoiceStatus {
  std::string quantization, variant;
  std::int32_t threads = 0;
  std::string why;
};

// Of the node that was asked.
struct KernelStatus {
  std::string loaded;  // the CPU backend it computes with
  std::string state;   // what is done about finding the fastest; empty: nothing now
  std::vector<KernelChoiceStatus> choices;
};

struct ClusterStatus {
  std::string self, cluster;  // peer id; cluster id
  KernelStatus kernels;
  std::vector<NodeStatus> nodes;
  std::vector<LinkStatus> links;
  std::vector<PlacementStatus> placements;
};

struct InviteStatus {
  std::string code;            // "K7Q2-…"
  std::int64_t expires_s = 0;  // from now
  std::vector<std::string> addresses;
  std::string url;  // "shoal:CODE@address,address"
  std::string qr;   // the URL for a terminal, lines of half blocks
};

struct PlaceCommand {
  std::string model;
  std::string stages;              // "": as many as there are nodes; "3"; or ranges "0-9,10-29"
  std::vector<std::string> nodes;  // names or ids, in stage order; empty: all that are alive
  std::int32_t context_tokens = 0;
  std::int32_t slots = 8;
  std::string wire = "f16";
  std::string goal = "spread";  // or "latency", "throughput", "energy"
  std::int32_t standby = 1;     // copies of each stage on other nodes, where there is room
};

struct JoinCommand {
  std::string code;                // an invite's, or its link
  std::string name;                // what it is called there, unless it was started with one; empty: as now
  std::vector<std::string> peers;  // HOST:PORT or multiaddrs to try
};

class ControlService {
 public:
  virtual ~ControlService() = default;
  virtual ClusterStatus cluster_status() = 0;
  // Errors: kUnsupported (this node has no signing key; says which node has).
  virtual Result<InviteStatus> Invite() = 0;
  // Blocks until the placement is live or has failed, as long as layers keep coming. Errors: kNotFound (no such model),
  // kInvalidArgument, kOutOfMemory, kUnavailable.
  virtual Result<PlacementStatus> Place(const PlaceCommand& options) = 0;
  // Errors: kNotFound. Blocks until all stages have unloaded.
  virtual Status Unplace(const std::string& model) = 0;
  // Of a node that is alone in a cluster of its own: makes it a member of the one that the invite is of, ends it and
  // starts it anew there. Whatever fails, it goes on as before. Blocks. Errors: kInvalidArgument (no such code; others
  // are members already), kUnavailable (nobody answered), kCorrupt.
  virtual Status Join(const JoinCommand& command) = 0;
  // Moves this node's layers to others, tells everyone, and ends; the process exits after it. Blocks.
  virtual Status Leave() = 0;
  // Looks at once what models are on this node's disk, which another process may have changed, and tells the others.
  // Blocks on the disk.
  virtual Status TellModels() = 0;
  // Throws a node out for good. `node`: a name or a peer id. Errors: kNotFound, kUnsupported (no signing key).
  virtual Status Revoke(const std::string& node) = 0;
};

}  // namespace shoal
