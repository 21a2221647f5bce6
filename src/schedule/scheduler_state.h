// What the scheduler remembers, shared by its parts: scheduler.cc (requests in, results back), adoption.cc (what an
// earlier epoch left), admission.cc (who gets a slot and cells, who gives them up) and batching.cc (which rows go
// next). Private to schedule/.
//
// The one idea: `slots` describes the stages' caches as they will be once everything sent so far has run. Links are
// first in, first out, so whatever is decided on that description holds when it takes effect. What comes back late
// about somebody who has gone is told apart by the admission number in the micro-batch's record.
#pragma once

#include <deque>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "schedule/decode_groups.h"
#include "schedule/drafts.h"
#include "schedule/scheduler.h"
#include "schedule/slots.h"

namespace shoal {

inline constexpr std::size_t kFinishedMax = 1024;        // ended generations whose reuse is still remembered
inline constexpr std::size_t kOpenBytesMax = 16U << 20;  // of the Opens in one Control frame, about
inline constexpr std::int32_t kSlotsMax = 256;           // so that one micro-batch's operations fit a frame

struct Generation {
  GenerationId id = 0;
  std::vector<TokenId> tokens;  // prompt and emitted
  std::uint32_t emitted = 0;
  std::int32_t tokens_left = 0;
  SamplingParams sampling;

  std::uint64_t arrival = 0;    // order of Submit; kept through preemption, so that the oldest always gets on
  std::uint64_t admission = 0;  // 0: waits for a slot; else unique to this stay in the slot
  SequenceId slot = -1;
  bool resumed = false;   // came with tokens that were emitted before
  bool decoding = false;  // its first token since admission has come: one row at a time
  bool awaiting = false;  // a row with output is in flight
  // What is guessed to come behind `tokens`; their rows are in flight too, and in the slot. One is right only if those
  // in front of it are.
  std::vector<DraftGuess> drafts;
  bool preempted = false;      // gave its cells back at least once
  std::uint64_t ready_at = 0;  // order in which decode rows became ready
  std::uint64_t turn = 0;      // order in which prefills come first in a micro-batch
  std::int32_t reused = -1;    // at the first admission
};

// One micro-batch between Next and its result.
struct InFlight {
  struct Part {  // one generation's rows
    GenerationId generation = 0;
    std::uint64_t admission = 0;
    bool output = false;
    Position first = 0;  // of the rows
  };
  struct Write {  // the cache has these rows' content from `first` on, in this slot
    SequenceId sequence = 0;
    Position first = 0;
  };
  BatchId id = 0;
  std::vector<Part> parts;
  std::vector<Write> writes;    // not those overwritten since; and copies made from them
  std::vector<BatchId> behind;  // those on their way then whose rows these continue: when one fails, so does this
  bool decodes = false;
  bool prefills = false;
  bool drafts = false;
  bool shared = false;           // others were in flight with it,
  bool crowded = false;          // of more than decode rows
  bool fills = false;            // runs on some stages only, to fill what others have: its generations may start anew
  bool collateral = false;       // it will fail because one before it did
  std::optional<Error> failure;  // it has failed; those sent before it have yet to come back
};

struct Scheduler::State {
  explicit State(const ScheduleOptions& schedule_options);

  // scheduler.cc
  Generation* Find(GenerationId id);
  Generation* FindPart(const InFlight::Part& part);  // null when that stay is over
  std::optional<InFlight> TakeBatch(BatchId id);
  void EmitToken(Generation& generation, const RowResult& row, std::vector<ScheduleEvent>& events);
  void JudgeGuess(Generation& generation, TokenId token);
  void DropDrafts(Generation& generation);
  void Fail(Generation& generation, Error error, std::vector<ScheduleEvent>& events);
  void SettleFailures(std::vector<ScheduleEvent>& events);
  void FailBatch(const InFlight& batch, const Error& error, std::vector<ScheduleEvent>& events);
  void End(Generation& generation);  // forgets it; a running one closes its sequence and frees its slot

  // adoption.cc
  Status Adopt(std::vector<InventoryMessage> stages);
  Status CheckInventories(const std::vector<InventoryMessage>& stages) const;
  void AdoptSlot(SequenceId slot, const std::vector<const HeldSequence*>& stages);

  // admission.cc
  void Admit();
  bool WaitsForPrefix(const Generation& generation, const Placement& placement) const;
  bool Fits(const Generation& generation, const Placement& placement) const;
  void Start(Generation& generation, const Placement& placement);
  bool HasRoom(std::int64_t cells) const;
  bool EvictOne();
  void Preempt(Generation& generation);
  void LeaveSlot(Generation& generation);
  void RewindSlot(SequenceId slot, Position length);
  void KeepInSlot(SequenceId slot, const std::vector<Position>& lengths);
  void ForgetWrites(SequenceId slot, Position length);
  void CountRecovery(Generation& generation, const Placement& placement);
  void CopySlot(SequenceId from, SequenceId to, Position length);

  // batching.cc
  std::optional<MicroBatch> Next();
  bool HasWindow(bool prefills) const;
  std::int32_t DraftsInFlight() const;
  std::int32_t DecodeRowsMax(std::int32_t decoders, bool prefills);
  std::vector<Generation*> SelectDecodes();
  void MakeRoomFor(std::vector<Generation*>& decodes);
  void AddPrefills(MicroBatch& batch, InFlight& record);
  void AddFills(MicroBatch& batch, InFlight& record);
  void AddDraft(MicroBatch& batch, InFlight& record);
  std::int32_t PrefillRows(const Generation& generation, std::int32_t room, std::int32_t outputs);
  void AddRows(Generation& generation, std::int32_t count, MicroBatch& batch, InFlight& record);

  // Positions that every stage has.
  Position Sent(const Generation& generation) const { return slots[generation.slot].shortest(); }
  Position Unsent(const Generation& generation) const {
    return static_cast<Position>(generation.tokens.size()) - Sent(generation);
  }
  // The others have their cells already, for the stage that holds most.
  Position CellsToCome(const Generation& generation) const {
    return static_cast<Position>(generation.tokens.size()) - slots.cells().Length(generation.slot);
  }
  // Rows on all stages, or first on those that lack what others have.
  bool Prefills(const Generation& generation) const {
    return !generation.decoding && Unsent(generation) > 0 && slots[generation.slot].even();
  }
  bool Recovers(const Generation& generation) const { return !generation.decoding && !slots[generation.slot].even(); }

  const ScheduleOptions options;
  const std::int64_t context_max;  // tokens of one request, prompt and answer
  SlotTable slots;
  std::optional<DecodeGroups> decode_groups;  // none: as many groups as stages
  DraftJudge draft_judge;
  double draft_chance_min;
  std::unordered_map<GenerationId, Generation> generations;
  std::vector<Generation*> running;    // in order of admission; at most slots_max
  std::list<Generation*> waiting;      // in order of arrival
  std::vector<ControlOp> pending_ops;  // go out in front of the next micro-batch
  std::deque<InFlight> in_flight;      // in order of sending
  std::size_t open_bytes = 0;          // of the Opens among them, about
  std::int64_t cells_reserved = 0;     // for what running prefills have yet to send

  std::uint64_t arrivals = 0, admissions = 0, ready_count = 0, turns = 0;
  BatchId batches = 0;
  std::int32_t decodes_since_prefill = 0;  // decode rows sent since the last prefill rows
  bool filled_last = false;                // the last micro-batch was one of AddFills
  bool prefill_wants_output = false;       // a prefill's last row found no room for its output
  bool admission_blocked = false;          // the first in the queue does not fit, and nothing has been freed since

  std::unordered_map<GenerationId, std::int32_t> finished_reused;
  std::deque<GenerationId> finished;
  std::uint64_t tokens_prefilled = 0, tokens_reused = 0, tokens_decoded = 0, preemptions = 0;
  std::uint64_t row_layers_whole = 0, row_layers_filled = 0;
  RecoveryStats recovery;
  DraftStats drafts;
};

}  // namespace shoal
