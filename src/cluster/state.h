// What Cluster keeps, and the parts that its files share: membership.cc (links, silence), news.cc (what spreads),
// placing.cc, building.cc and replanning.cc (the decider's side), hosting.cc (the stages here), standby.cc (copies).
// Internal to cluster/.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cluster/cluster.h"
#include "cluster/detector.h"
#include "cluster/round_trips.h"
#include "cluster/split.h"
#include "runtime/rng.h"

namespace shoal {

struct Cluster::State {
  State(const ClusterOptions& given, TimeUs start);

  struct Member {
    MemberRecord record;
    TimeUs state_since = 0;  // of a dead or left one, with what its age was then
    std::uint32_t age_then_s = 0;
    bool suspect = false;
    Silence silence = Silence::kNone;
    TimeUs heard = 0;
    TimeUs unlinked_since = 0;
    std::uint32_t lag_ms = 0;
    bool link_ended = false;  // there was one, and none has come up since
    // The question to others whether they hear it.
    std::uint32_t round = 0;
    int rounds_silent = 0, rounds_heard = 0;  // in a row
    TimeUs round_ends = 0, round_again = 0;   // round_again: when all have answered that they do not
    bool heard_by_others = false, all_closed = false, asks_again = false;
    std::set<NodeId> unanswered;  // of those asked in this round
    // Connecting.
    TimeUs connect_due = 0;
    DurationUs connect_wait = 0;

    bool here() const { return record.state == MemberState::kAlive; }
  };
  struct Link {
    explicit Link(DurationUs interval) : detector(interval) {}
    Detector detector;
    TimeUs heard = 0;
    std::uint32_t sequence = 0;
    TimeUs heartbeat_due = 0;
    std::int64_t peer_stamp = 0;
    TimeUs peer_stamp_at = 0;
    RoundTrips round_trips;
    std::uint32_t rtt_us = 0, rtt_told = 0;  // smoothed, and what others know
    std::uint64_t bytes_per_s = 0;
    int prompt_left = 3;  // heartbeats answered at once, until the round trip is known
    int mismatches = 0;   // heartbeats in a row with another digest
    TimeUs sync_after = 0;
  };
  // A stage on this node.
  struct Local {
    PlacementRecord record;
    std::int32_t index = 0;
    StageStatus status = StageStatus::kLoading;
    std::string text;
    StageSource source;
    bool active = false;
    bool broken = false;  // active, but its pipeline is not
    TimeUs broken_said = 0;
    TimeUs prepared = 0;  // when Prepare came last

    // One that goes on with what runs here is counted there.
    bool takes_memory() const { return active || source.kind != StageSource::Kind::kRunning; }
  };
  // A copy of a stage on this node.
  struct Spare {
    std::uint64_t fingerprint = 0, options_hash = 0, bytes = 0;
    bool ready = false;
  };
  struct Asker {
    NodeId node;
    std::uint64_t id = 0;
    auto operator<=>(const Asker&) const = default;
  };
  // A placement that this node decides.
  struct Deciding {
    PlacementRecord record;
    std::vector<StageStatus> stages;
    std::vector<Asker> askers;
    bool automatic = false;  // replaces one that is broken or moves away from a leaving node
    int attempts = 1;
    std::uint64_t fetched = 0;  // as Fetched() said last: while it changes nobody gives up
    TimeUs prepare_due = 0, give_up = 0;
  };
  // Of a placement that needs another one, at the decider.
  struct Care {
    std::string problem;
    TimeUs since = 0;  // of this problem
    TimeUs next_try = 0;
    DurationUs wait = 0;
    std::string reason;  // why it cannot be replaced
  };
  // Of a placement whose devices may have become slower or faster, at the decider.
  struct Replan {
    std::uint64_t seen = 0;   // hash of the speeds that were looked at last
    TimeUs better_since = 0;  // another plan would be better; 0: none
    TimeUs moved = 0, not_before = 0;
    DurationUs rest = 0;
  };
  // A copy of a stage that this node, who decides, has asked another for.
  struct CopyAsked {
    NodeId node;
    std::uint64_t bytes = 0;
    TimeUs since = 0, send_due = 0;
    std::uint64_t fetched = 0;
  };
  struct Wish {
    PlaceAsk ask;
    TimeUs send_due = 0, give_up = 0, reached = 0;
    NodeId sent_to;
    std::uint64_t fetched = 0;
  };
  struct Placed {
    PlacementRecord record;
    TimeUs since = 0;
    std::set<std::int32_t> lost;                          // stages whose nodes said that they are not there
    bool broken = false;                                  // a stage said that it cannot reach the others
    std::map<std::pair<NodeId, NodeId>, TimeUs> unheard;  // the first does not hear the second: when it said so last
    TimeUs unheard_said = 0;
    TimeUs lost_said = 0;
    bool told_broken = false;  // what the last tick saw
  };
  struct Problem {
    // kMoves: it runs, but a node wants to go. kUnheard: two of its nodes have lost each other, and nobody else them.
    enum Kind : std::uint8_t { kNone, kMoves, kUnheard, kBroken, kGone } kind = kNone;
    std::string text;
  };
  using StagePlaceStart = std::pair<NodeId, std::uint64_t>;  // a node, and which of its starts
  using StageKey = std::tuple<std::string, Epoch, std::int32_t>;
  using SpareKey = std::tuple<std::string, std::int32_t, std::int32_t>;  // model, layers

  // --- cluster.cc
  void Advance(TimeUs clock);
  void Settle();
  void Tell(const NodeId& to, ClusterMessage message);  // to oneself: handled at once
  void TellAll(const ClusterMessage& message);
  template <typename A>
  void Act(A action) {
    actions.emplace_back(std::move(action));
  }
  Member& self() { return members.at(options.self); }
  Member* Find(const NodeId& id);
  bool IsHere(const NodeId& id) const;
  std::string NameOf(const NodeId& id) const;  // for people
  void SeeRound(Epoch epoch);
  std::uint64_t AddWish(PlaceAsk ask);
  bool IsSelf(const NodeId& id) const { return id == options.self; }
  std::size_t HereCount() const;
  std::uint64_t Fetched(const std::string& model, const NodeId* node) const;
  NodeId Decider() const;
  std::uint64_t Digest() const;
  void Handle(const NodeId& from, const ClusterMessage& message);

  // --- membership.cc
  DurationUs HeartbeatInterval() const;
  void TickMembership();
  void SendHeartbeat(const NodeId& to, Link& link);
  void On(const NodeId& from, const Hello& hello);
  void On(const NodeId& from, const Heartbeat& heartbeat);
  void On(const NodeId& from, const SyncAsk& ask);
  void On(const NodeId& from, const SyncDelta& delta);
  void On(const NodeId& from, const HearsAsk& ask);
  void On(const NodeId& from, const HearsAnswer& answer);
  bool Merge(const SyncDelta::Member& news);
  void MergeSelf(const MemberRecord& told);
  void WhoIsBack();
  void WeightsChanged(const MemberFacts& before, const MemberFacts& after);
  void Refute(std::uint64_t at_least);
  bool MakeRoomForMember();
  void SendSyncAsk(const NodeId& to, bool is_answer);
  bool TakeSyncAsk();
  MemberRecord Told(const Member& member) const;  // with its age of now
  SyncDelta::Member NewsOf(const Member& member, bool facts, bool links_too) const;
  void SpreadSelf(bool facts, bool links_too);
  void CheckSilence(const NodeId& id, Member& member);
  Hearing HearingOf(const NodeId& id) const;
  void StartRound(const NodeId& id, Member& member);
  void EndRound(const NodeId& id, Member& member);
  void DeclareDead(const NodeId& id, Member& member);
  void CheckConnect(const NodeId& id, Member& member);
  void ReportLinks();
  void Revive(Member& member);
  Status TakeRevocation(std::span<const std::uint8_t> bytes, bool spread);

  // --- building.cc
  bool MayHost(const NodeId& node) const;
  static const ModelHolding* HoldingOf(const MemberFacts& facts, std::uint64_t fingerprint);  // null: not held
  static bool MayGet(const MemberFacts& facts, const std::string& model, std::uint64_t fingerprint);
  const ModelHolding* ModelFor(const PlaceRequest& asked, const std::vector<NodeId>& nodes, bool relax) const;
  std::uint64_t MemoryTaken(const NodeId& node, const std::string& but_model) const;
  Result<PlacementRecord> Build(const PlaceRequest& request, bool relax, bool only_asks = false,
                                const std::set<NodeId>& without = {});
  Result<PlacementRecord> Continue(const Placed& placed, const std::set<NodeId>& failed, bool only_asks = false);
  Result<PlacementRecord> BuildAnew(const Placed& placed);
  std::set<NodeId> FailedToLoad(const std::string& model) const;
  bool IsRead(const PlacementRecord& record, std::int32_t index) const;
  Status CheckHeld(const PlacementRecord& record, bool with_suspects) const;
  SplitInput SplitInputOf(const PlaceRequest& request, const std::string& quantization,
                          const std::vector<NodeId>& nodes) const;
  PlanLink LinkBetween(const NodeId& from, const NodeId& to) const;
  PlacementForecast ForecastFor(const PlacementRecord& record) const;
  std::set<NodeId> ToAvoid(const Placed& placed) const;
  bool IsUnheard(const std::pair<NodeId, NodeId>& pair, TimeUs said) const;
  std::optional<NodeId> BestFor(const PlacementRecord& record, std::int32_t index,
                                const std::vector<std::int32_t>& vacant, const std::set<NodeId>& avoid) const;

  // --- placing.cc
  void TickPlacing();
  void On(const NodeId& from, const PlaceAsk& ask);
  void On(const NodeId& from, const PlaceAnswer& answer);
  void On(const NodeId& from, const StageNews& news);
  void AnswerAsker(const Asker& asker, const Status& status, Epoch epoch);
  void DriveWish(std::uint64_t id, Wish& wish);
  void EndWish(std::uint64_t id, const Status& status, Epoch epoch);
  void StartDeciding(PlacementRecord record, std::vector<Asker> askers, bool automatic, int attempts);
  void SendPrepare(Deciding& deciding);
  void GiveUp(const std::string& model, const Status& why);
  void Commit(const std::string& model);
  Epoch NewEpoch();
  void NoteFailure(const StagePlace& stage, const std::string& model);
  void CareForPlacements();
  void TellProblems();
  void PlaceAnew(const std::string& model, Care& care);
  bool IsCutOff() const;
  bool InDoubt(const PlacementRecord& record) const;
  Problem ProblemOf(const Placed& placed) const;

  // --- replanning.cc
  void CareForPace();
  void LookAtPace(const std::string& model, Replan& one);
  bool MayReplan(const PlacementRecord& record) const;
  double MoveSeconds(const PlacementRecord& before, const PlacementRecord& after) const;

  // --- hosting.cc
  void TickHosting();
  void On(const NodeId& from, const Prepare& prepare);
  void On(const NodeId& from, const Abort& abort);
  void On(const NodeId& from, const MoveFailed& failed);
  void Adopt(const PlacementRecord& record, bool spread);
  StageSource SourceOf(const PlacementRecord& record, std::int32_t index) const;
  bool HasRoomFor(const PlacementRecord& record, const std::vector<std::int32_t>& indices) const;
  void DropLocal(const StageKey& key);
  void DropLocals(const std::string& model, const std::function<bool(const Local&)>& which);
  void TellStage(const NodeId& to, const Local& local);
  void TellUnheard();
  void CheckLeaving();
  void TellWhetherItStays();

  // --- standby.cc
  void CareForStandby();
  void On(const NodeId& from, const StandbyAsk& ask);
  std::vector<NodeId> CopiesOf(const PlacementRecord& record, std::int32_t index) const;
  bool HasCopy(const NodeId& node, const PlacementRecord& record, std::int32_t index) const;
  std::optional<NodeId> PlaceForCopy(const PlacementRecord& record, std::int32_t index) const;
  std::uint64_t CopiesTaken(const NodeId& node) const;
  std::uint64_t SparesTaken() const;
  void DropSpare(const SpareKey& key);
  void ReviewSpares();
  void TellSpares();

  const ClusterOptions options;
  Rng rng;
  TimeUs now = 0;         // our own time: never jumps
  TimeUs clock_last = 0;  // the caller's
  std::vector<Action> actions;
  ClusterCounters counters;

  std::map<NodeId, Member> members;
  std::map<NodeId, Link> links;
  std::map<NodeId, std::uint64_t> rates;  // of links, as measured last: a new stream is no new link
  std::set<NodeId> revoked;
  std::map<std::uint64_t, std::vector<std::uint8_t>> revocations;
  TimeUs links_report_due = 0;
  bool links_changed = false;
  std::uint32_t lag_ms = 0;
  double sync_asks = 0;  // that may still be sent now, as of sync_asks_at
  TimeUs sync_asks_at = INT64_MIN / 2;
  bool members_changed = false;

  std::map<std::string, Placed> placements;
  std::map<StageKey, Local> locals;
  std::map<SpareKey, Spare> spares;
  std::map<StageKey, CopyAsked> copies_asked;
  std::map<std::pair<NodeId, SpareKey>, TimeUs> copies_refused;  // until when
  TimeUs copies_due = 0;
  std::map<std::string, Deciding> deciding;
  std::map<std::string, Care> care;
  std::map<std::pair<StagePlaceStart, std::string>, TimeUs> load_failures;  // of a model there: until when it counts
  std::map<std::string, Replan> replans;
  TimeUs pace_due = 0;
  std::map<Asker, PlaceAnswer> answered;  // lately
  std::map<std::uint64_t, Wish> wishes;
  std::uint64_t last_wish = 0;
  std::uint32_t round_max = 0;
  bool hurry = false;  // placements want looking at before the next tick

  bool leaving = false, left = false, left_told = false;
  bool resting = false;  // SetDraining
  TimeUs leave_by = 0, left_at = 0;
  std::map<std::string, std::string> move_failures;  // model -> why, while leaving
};

}  // namespace shoal
