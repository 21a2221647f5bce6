// One node's part in the cluster: who is here, who is gone, which placements stand. A pure state machine without I/O.
//
// No master. Every node keeps a control stream to every other, hears heartbeats on it, and judges each link by how
// regular it was (phi accrual); before a silent member is declared dead the others are asked whether they hear it. What
// nodes know spreads by telling all linked peers at once, and is mended by comparing digests in heartbeats.
// The lowest id among the members that are here decides placements: prepare (every stage loads and says so), then live.
// A member that dies, restarts or leaves makes the decider place its models anew under a higher epoch, which continues
// the one before: stages that are still there go on with what they have, only the rest goes to other nodes, to those
// first that keep a copy of it ready. When two parts of a divided cluster meet, the higher epoch stays.
//
// Knows no sockets, threads, files, signatures or engines: inputs are calls, outputs are Actions. `now` is any clock in
// microseconds; it may jump either way (a stopped process, a changed clock): a jump counts as at most half a second.
// One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cluster/member.h"
#include "cluster/messages.h"
#include "cluster/placement_record.h"
#include "runtime/clock.h"

namespace shoal {

struct ClusterOptions {
  NodeId self;
  // Higher than at every earlier start of this identity (a counter kept on disk). Should it not be, the node notices
  // when it meets others and raises it by itself.
  std::uint64_t boot = 1;
  std::uint64_t seed = 0;  // of jitter and of the start's nonce: different at every start
  MemberFacts facts;

  // The node a revocation throws out, if it is genuine; empty if not. Pure. Must be set when revocations are used.
  std::function<std::optional<NodeId>(std::span<const std::uint8_t>)> verify_revocation;

  DurationUs heartbeat_us = 500'000;  // up to 16 members; beyond, longer in proportion; less while a model is placed
  DurationUs links_report_us = 5'000'000;  // at most so often are changed link measurements told (and longer beyond 16)
  DurationUs tombstone_us = 3'600'000'000;
  DurationUs request_max_us = 280'000'000;  // of a wish, loading included; again from whenever layers come
  bool break_epoch_tag = false;             // for tests of the simulator: epochs without the decider's tag
  bool break_stale_check = false;           // for tests of the simulator: a stage takes a stale epoch
};

// --- What the node must do. In order.
// ---------------------------------------------------------------------------------

struct Send {  // on the control stream to `to`; dropped when there is none
  NodeId to;
  ClusterMessage message;
  std::vector<std::uint8_t> frame;  // `message` as it goes out
};
struct Connect {  // open a control stream, unless one is there; then OnLinkUp. Failing needs no report
  NodeId node;
  std::vector<std::string> addresses;
};
struct Disconnect {  // close the control stream (and every other connection) to `node`; then OnLinkDown
  NodeId node;
  std::string reason;
};
// Where a stage comes from.
struct StageSource {
  enum class Kind : std::uint8_t {
    kDisk,
    kRunning,  // it is the same as stage `index` of `epoch` here, which still runs
    kStandby,  // it is the same as a copy here
  };
  Kind kind = Kind::kDisk;
  Epoch epoch = 0;
  std::int32_t index = 0;
  bool operator==(const StageSource&) const = default;
};
// Get stage `index` of `placement` ready. From the disk: load it, then OnStageReady. From another source nothing is to
// be done before Activate, which takes it from there; until then it stays what it is. Sent once per (model, epoch,
// index).
struct LoadStage {
  PlacementRecord placement;
  std::int32_t index = 0;
  StageSource source;
};
// The placement is live: its stages here may serve, its head takes generations. On every node, also one without a
// stage: an entry node sends generations there from now on, also those that ran on the one before.
struct Activate {
  PlacementRecord placement;
  std::vector<std::int32_t> indices;  // of the stages here
};
// Drop the stage now, loaded, loading or running, unless another one has taken it over; what it serves ends. Never
// followed by anything about this stage of this epoch.
struct UnloadStage {
  std::string model;
  Epoch epoch = 0;
  std::int32_t index = 0;
};
// Load a copy of stage `index` of `placement` and keep it; then OnStandbyReady.
struct LoadStandby {
  PlacementRecord placement;
  std::int32_t index = 0;
};
// Drop the copy of these layers, loaded or loading.
struct DropStandby {
  std::string model;
  LayerRange layers;
};
struct RequestDone {
  std::uint64_t id = 0;
  Status status;
  Epoch epoch = 0;  // of the placement (or of its end) when status.ok()
};
// A revocation new to this node: keep it on disk, tell the gate, close what is open to `subject`.
struct Revoked {
  NodeId subject;
  std::vector<std::uint8_t> bytes;
};
struct MembersChanged {};     // members() or links() changed
struct PlacementsChanged {};  // placements() changed
// This node is out: it may stop. `text` is empty, or says what it could not hand over, or that it was revoked.
struct Left {
  std::string text;
};
// A line for the log, for people.
struct Note {
  std::string text;
};
using Action = std::variant<Send, Connect, Disconnect, LoadStage, Activate, UnloadStage, LoadStandby, DropStandby,
                            RequestDone, Revoked, MembersChanged, PlacementsChanged, Left, Note>;

// --- Views
// ------------------------------------------------------------------------------------------------------------

// Why a member is suspect.
enum class Silence : std::uint8_t {
  kNone,
  kFrozen,      // its link is open, nothing comes: a stopped process or a cut cable
  kLinkClosed,  // its link ended and no new one came up
};

struct MemberView {
  MemberRecord record;  // its own state says alive, dead or left
  MemberState state = MemberState::kAlive;
  Silence silence = Silence::kNone;
  bool self = false;
  bool linked = false;       // a control stream is up
  DurationUs silent_us = 0;  // since it was last heard here; 0 for oneself
  std::uint32_t lag_ms = 0;  // how late its loop runs, by its own account
};

struct LinkView {
  NodeId from;
  LinkFacts facts;
};

struct PlacementView {
  PlacementRecord record;
  bool broken = false;    // live, but a stage's node is not here: nothing can run until it is back or replaced
  bool hopeless = false;  // broken, and those that are here (the suspect ones too) cannot run it: no use waiting
  std::string reason;     // why it is broken, or why it cannot be replaced
  std::vector<std::vector<NodeId>> copies;  // of each stage: who else keeps it loaded
  std::vector<NodeId> survives;             // nodes with stages of it any one of which may go, and nothing is loaded
};

struct ClusterCounters {
  std::uint64_t messages_sent = 0, bytes_sent = 0;  // frames as encoded; not counted: transport overhead
  std::uint64_t suspicions = 0, deaths_declared = 0, refutations = 0, freezes_noticed = 0, syncs = 0;
  std::uint64_t epochs_made = 0;
};

class Cluster {
 public:
  Cluster(const ClusterOptions& options, TimeUs now);
  ~Cluster();

  // --- Inputs. Each may add actions: take them after every call, or after several.
  // Call at least every 250 ms, late calls are noticed.
  void OnTick(TimeUs now);
  // `from` is the authenticated peer of the stream. Messages from revoked or unknown-to-be-linked peers are dropped.
  void OnMessage(TimeUs now, const NodeId& from, const ClusterMessage& message);
  // A control stream to an authenticated peer is up (whoever dialled). Again while up: it was replaced.
  void OnLinkUp(TimeUs now, const NodeId& peer);
  // It ended. Unknown peers are ignored.
  void OnLinkDown(TimeUs now, const NodeId& peer);
  // What a bulk transfer or a probe showed of the link to `peer`.
  void OnThroughput(TimeUs now, const NodeId& peer, std::uint64_t bytes_per_s);
  // LoadStage has ended. Also later, with an error: a stage that was ready is gone.
  void OnStageReady(TimeUs now, const std::string& model, Epoch epoch, std::int32_t index, const Status& status);
  // The stages here are whole, but a link to another one of this live placement was lost or could not be made.
  void OnPipelineBroken(TimeUs now, const std::string& model, Epoch epoch);
  // LoadStandby has ended.
  void OnStandbyReady(TimeUs now, const std::string& model, LayerRange layers, Status status);
  // Changed facts (never `leaving` and `standby`, which are kept here). Small changes of free memory are not worth
  // telling.
  void SetSelfFacts(TimeUs now, MemberFacts facts);
  // From `shoal revoke` or from disk at start. Errors: kInvalidArgument (not genuine), kOverloaded (too many).
  Status AddRevocation(TimeUs now, std::span<const std::uint8_t> bytes);

  // --- Wishes. RequestDone with the returned id follows, always: at the latest after `request_max_us` without a
  // decider's answer (kUnavailable), in which no node got any bytes of the model either. Placing a placed model makes a
  // new placement, which takes over what is the same. RequestDone errors: kNotFound (no member knows the model, or
  // nobody holds some of its weights: says which; not placed), kInvalidArgument (ranges, nodes), kOutOfMemory (fits
  // nowhere), kUnavailable, kStale (another request came between), or what a stage said.
  std::uint64_t RequestPlacement(TimeUs now, PlaceRequest request);
  std::uint64_t RequestUnplace(TimeUs now, const std::string& model);
  // Layers move away first, then Left; at the latest after `wait_max`. Idempotent; a shorter wait counts.
  void Leave(TimeUs now, DurationUs wait_max = 120'000'000);
  // While `reason` is not empty this node wants no stages (an empty battery, heat): those it has move away where others
  // have room, and it decides nothing. It stays a member.
  void SetDraining(TimeUs now, const std::string& reason);

  // What is to be done, oldest first; empties the list.
  std::vector<Action> TakeActions();

  // --- Views: copies, of what this node believes now.
  std::vector<MemberView> members() const;        // oneself first, then by id; the dead and gone while remembered
  std::vector<LinkView> links() const;            // of members that are here
  std::vector<PlacementView> placements() const;  // live ones, by model
  std::optional<PlacementView> placement(const std::string& model) const;
  std::vector<PlacementRecord> preparing() const;  // those this node decides
  NodeId decider() const;
  const NodeId& self() const;
  std::uint64_t incarnation() const;
  // Of everything that spreads; equal on two nodes that agree.
  std::uint64_t digest() const;
  // A stage of this epoch may run here: it is ready.
  bool MayServe(const std::string& model, Epoch epoch) const;
  const ClusterCounters& counters() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal
