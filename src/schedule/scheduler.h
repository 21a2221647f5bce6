// Which tokens of which requests go into the next micro-batch. A pure state machine: no clock, no thread, no socket.
//
// Requests wait in a bounded queue for a slot (a sequence of the KV cache). A slot prefills in micro-batches, then
// decodes one token at a time; decode rows ride in front of prefill rows, so a long prompt delays running answers by at
// most one micro-batch. Several micro-batches are in flight at once (at most `in_flight_max`, or `decode_groups_max`
// groups while nothing prefills), so that all stages work. An answer that is alone gets the stages that it would leave
// idle: what comes next is guessed, and computed before it is known (drafts.h). A slot that ends keeps its tokens: a
// later request with the same beginning prefills only what is new. The same holds for what stages bring along from an
// earlier epoch (Adopt): where some of them lack what others have, those alone are filled, from what the stage before
// had sent, or from the nearest that can compute it again. When the KV cache runs full, the youngest generation gives
// its cells back and is prefilled again later (prompt + emitted).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "sample/params.h"
#include "wire/messages.h"

namespace shoal {

struct ScheduleOptions {
  std::int32_t stages = 1;
  std::int32_t slots_max = 8;
  std::int32_t batch_rows_max = 64;      // rows of one micro-batch
  std::int32_t batch_sequences_max = 8;  // sequences with rows in one micro-batch; 1 for recurrent models
  std::int32_t output_rows_max = 8;      // rows with output in one micro-batch
  std::int32_t kv_tokens_max = 4096;     // cells shared by all slots
  bool kv_shared = true;                 // false: each slot has kv_tokens_max cells of its own
  std::int32_t in_flight_max = 2;        // micro-batches; stages + 1 keeps all stages busy
  // Decoding generations are spread over as many micro-batches as there are stages (0); or, while nothing prefills,
  // over as many as proves fastest, at most this many, which may then be in flight (DecodeGroups).
  std::int32_t decode_groups_max = 0;
  // Rows of one answer alone that may be on their way although their tokens were not known (drafts.h), beside the
  // micro-batches of in_flight_max; 0: none. Only a model that can be rewound has any. A draft goes out if it is right
  // at least this often.
  std::int32_t drafts_max = 0;
  double draft_chance_min = 0.35;
  std::int32_t queue_max = 64;  // requests that wait for a slot
  bool rewindable = true;       // false: a slot is reused only if its tokens are a whole prefix
  // Every micro-batch holds rows of one sequence, and prefill chunks start at multiples of batch_rows_max: with
  // kv_shared = false a request's tokens then never depend on what else runs.
  bool reproducible = false;
  std::vector<std::int32_t> stage_layers;  // [stages]; for weighing and counting work; empty: 1 each
};

struct GenerationRequest {
  GenerationId id = 0;
  std::vector<TokenId> tokens;  // prompt, and what was emitted before (resume)
  std::uint32_t emitted = 0;    // the last `emitted` of `tokens` were sampled
  std::int32_t tokens_max = 0;  // how many more to emit, >= 1
  SamplingParams sampling;
};

// One micro-batch to send: first the control operations, then the rows.
struct MicroBatch {
  BatchId id = 0;
  StageIndex first_stage = 0, last_stage = kStageIndexMax;  // as in BatchMessage
  std::vector<ControlOp> ops;
  std::vector<BatchRow> rows;   // may be empty: only operations, which do not count as in flight
  std::vector<TokenId> tokens;  // [rows]
};

enum class FinishReason { kStop, kLength, kCancelled, kError };

// One emitted token, or the end of a generation, in the order they happened.
struct ScheduleEvent {
  GenerationId generation = 0;
  std::optional<SampledToken> token;  // set: a token (its position below)
  Position position = 0;
  std::optional<FinishReason> finish;  // set: the generation is over (may come with its last token)
  Error error;                         // with kError
};

// Of generations that went on after a loss: the work, in layers run for one row, of having on all stages again what had
// been there; and what it would have been had all of it been computed anew.
struct RecoveryStats {
  std::uint64_t generations = 0, row_layers = 0, row_layers_from_nothing = 0;
  RecoveryStats& operator+=(const RecoveryStats& other) {
    generations += other.generations;
    row_layers += other.row_layers;
    row_layers_from_nothing += other.row_layers_from_nothing;
    return *this;
  }
};

// Rows that were sent before their token was known (drafts.h), those of tokens that then came, and those of others;
// what was on its way at the end of an answer is neither.
struct DraftStats {
  std::uint64_t sent = 0, right = 0, wrong = 0;
  DraftStats& operator+=(const DraftStats& other) {
    sent += other.sent;
    right += other.right;
    wrong += other.wrong;
    return *this;
  }
};

struct ScheduleStats {
  std::int32_t waiting = 0, running = 0, slots_free = 0, in_flight = 0;
  std::int32_t decoding = 0;  // of the running ones; the others' prompts are read, or what a loss took
  std::int64_t kv_tokens_used = 0;
  std::uint64_t tokens_prefilled = 0, tokens_reused = 0, tokens_decoded = 0, preemptions = 0;
  // Layers run for one row: on all stages (prefill and decode), and on some stages only, to fill them.
  std::uint64_t row_layers_whole = 0, row_layers_filled = 0;
  RecoveryStats recovery;
  DraftStats drafts;
};

class Scheduler {
 public:
  explicit Scheduler(const ScheduleOptions& options);
  ~Scheduler();

  // What the stages hold from an earlier epoch, [stages] in order. At most once, before the first Next. What fits is
  // used; the rest is forgotten there. Errors: kCorrupt (not of these stages, or beyond these options' limits).
  Status Adopt(std::vector<InventoryMessage> stages);

  // Errors: kOverloaded (queue full), kContextFull (prompt + 1 exceeds the context; says both numbers),
  // kInvalidArgument (empty prompt, tokens_max < 1, an id in use, sampling parameters that Validate refuses).
  Status Submit(GenerationRequest request);
  // Ends a generation now: its slot is free for the next request at once. Results of it still in flight are dropped.
  // Emits no event. Unknown ids are ignored.
  void Cancel(GenerationId id);
  // From here on a draft goes out only if it is right at least this often.
  void SetDraftChanceMin(double chance);
  // The next micro-batch to send; empty when the window is full or there is nothing to do.
  std::optional<MicroBatch> Next();
  // A result came back, so long after its micro-batch was sent (0: unknown; only whether drafts pay depends on it).
  // Unknown batches and generations are ignored. Appends to `events`.
  void OnResult(const ResultMessage& result, std::vector<ScheduleEvent>& events, std::int64_t elapsed_us = 0);
  // A micro-batch or one generation failed: ends the generations concerned with kError and frees their slots. That of a
  // micro-batch takes effect when all that were sent before it have come back.
  void OnFailure(const FailureMessage& failure, std::vector<ScheduleEvent>& events);
  // How many prompt tokens of a generation came from the cache (0 until it has a slot).
  std::int32_t ReusedTokens(GenerationId id) const;
  ScheduleStats stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal
