// What must hold in every history, each under a name; the first thing that does not is kept.
//
// Sees everything at once, which no node does: what was delivered to clients, and which placement each stage works for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cluster/placement_record.h"
#include "schedule/scheduler.h"
#include "sim/fake_model.h"

namespace shoal::sim {

enum class Invariant : std::uint8_t {
  kOneTokenPerPosition,   // a client never gets a second token for a position
  kStreamEqualsOneNode,   // what it gets is a prefix of the one-node run; the whole of it when the end is regular
  kOnePlacementPerEpoch,  // stages that take work under one (model, epoch) have one stage plan
  kNoStaleEpoch,          // no stage takes up, and no head starts, an epoch older than what its node knows; no frame of
                          // another epoch has an effect
  kAgreement,             // after the faults all members agree in time: who is here, what is placed, what is loaded
  kEveryAskEnds,          // after the faults every generation that was begun has ended in time
  kEveryWishEnds,         // every request to place or unplace gets an answer in time
  kEndsForAReason,        // a generation ends whole, or for one of EndCause
  kAnswersAfterFaults,    // then every node gets a whole answer again
  kAnswerIsFound,         // who comes back gets an answer that a node in reach of the asked one has
};
inline constexpr int kInvariants = 10;
std::string_view InvariantName(Invariant invariant);

// Why a generation may end before it is whole, but for its node's end.
enum class EndCause : std::uint8_t {
  kNone,       // none of these
  kNotPlaced,  // its node knew no placement; of one that it knew before: a person has ended it
  kHopeless,   // nobody here can run the model
  kLost,       // it was without a head for 60 s
  kBusy,       // the first head that was asked had a full queue
  kEngine,     // an engine failed at it
};

// One generation as its client sees it.
struct Ask {
  std::uint64_t id = 0;
  int node = 0;  // that was asked first
  std::string model;
  std::vector<TokenId> prompt;
  std::uint64_t seed = 0;
  std::int32_t tokens_max = 0, context_tokens_max = 0;
  OneNodeRun expected;

  std::vector<TokenId> delivered;
  std::optional<bool> stopped;  // once its last event came: by an end token
  bool ended = false;           // regularly, with an error, by its client, or given up
  bool complete = false;        // regularly
  std::string error;

  // What its client does.
  bool comes_back = false, impatient = false;
  bool knows_id = false;  // it got a status
  bool cancelled = false, lost_entry = false, was_copied = false, was_found = false;
  std::string not_found_by;               // why it gave up
  int lines = 0, to_come = 0, tries = 0;  // connections; those to come; how often it came back

  std::size_t events() const { return delivered.size() + (stopped ? 1 : 0); }
};

// What became of stages and their work in later epochs.
struct Recovery {
  // Stages that went on in a later epoch with what they held; and the work of having generations run again after a
  // loss, as in RecoveryStats.
  std::uint64_t taken_over = 0, row_layers_recovered = 0, row_layers_from_nothing = 0;
  // Stages that copies took over; those of them that held rows then; and the work that these spared.
  std::uint64_t copies_taken = 0, copies_that_knew = 0, row_layers_spared = 0;
  void operator+=(const Recovery& other);
};

class Checks {
 public:
  void Violate(Invariant invariant, const std::string& what);
  bool violated() const { return violated_; }
  Invariant invariant() const { return invariant_; }
  const std::string& what() const { return what_; }

  // An event came to the client on one of its connections, which had `had` before: a token, or that it ends.
  void OnToken(Ask& ask, std::size_t had, std::size_t event, TokenId token);
  void OnFinish(Ask& ask, std::size_t had, std::size_t event, bool stopped);
  // After the last event.
  void OnComplete(Ask& ask, std::size_t had);

  // The generation of an answer ended with an error. `knew_placement`: its node did, since it was asked.
  void OnEndedBy(const std::string& name, const std::string& model, EndCause cause, bool knew_placement,
                 const std::string& error);
  void OnUnplaceAsked(const std::string& model) { unplaced_.insert(model); }
  void OnEngineFails(const std::string& model) { engine_failed_.insert(model); }

  // A stage of it was loaded, is active or ran a micro-batch.
  void OnStageWorks(int node, const PlacementRecord& placement);
  std::uint64_t placements() const { return plans_.size(); }
  Recovery recovery;
  DraftStats drafts;

 private:
  void OnEvent(const Ask& ask, std::size_t had, std::size_t event);

  bool violated_ = false;
  Invariant invariant_ = Invariant::kAgreement;
  std::string what_;
  std::map<std::pair<std::string, Epoch>, std::vector<StagePlace>> plans_;
  std::set<std::string> unplaced_, engine_failed_;
};

}  // namespace shoal::sim
