// Thousands of short random histories of the scheduler over hashing stages (fake_stages.h): arrivals, cancels, ends,
// failures, caches too small for what runs, stages that are lost and replaced. Each is a pure function of its seed,
// which a failure prints.
//
// Replay one with SHOAL_SIM_SEED=<seed>; SHOAL_SIM_RUNS=<count> runs more of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>

#include "runtime/rng.h"
#include "schedule/fake_stages.h"
#include "schedule/scheduler.h"

namespace shoal {
namespace {

constexpr int kStepsMax = 50'000;

struct History {
  ScheduleOptions options;
  FakeModel model;
  int requests = 0;
  int prompt_max = 0, answer_max = 0;
  int cancel_one_in = 0, fail_one_in = 0;  // steps; 0: never
  int lose_one_in = 0;                     // stages
  int burst_one_in = 2;                    // how eagerly requests arrive
};

int Between(Rng& rng, int low, int high) { return low + static_cast<int>(rng.Below(high - low + 1)); }

History RandomHistory(Rng& rng) {
  History h;
  ScheduleOptions& o = h.options;
  o.stages = Between(rng, 1, 4);
  o.slots_max = Between(rng, 1, 6);
  o.batch_rows_max = Between(rng, 1, 9);
  o.batch_sequences_max = rng.Below(3) == 0 ? Between(rng, 1, 3) : 8;
  o.output_rows_max = rng.Below(3) == 0 ? Between(rng, 1, 3) : 8;
  o.kv_tokens_max = rng.Below(2) == 0 ? Between(rng, 8, 40) : Between(rng, 40, 200);
  o.kv_shared = rng.Below(3) != 0;
  o.in_flight_max = Between(rng, 1, o.stages + 2);
  o.queue_max = Between(rng, 0, 12);
  o.rewindable = rng.Below(4) != 0;
  o.reproducible = rng.Below(4) == 0;
  o.decode_groups_max = rng.Below(2) == 0 ? Between(rng, 1, 7) : 0;
  h.model.stages = o.stages;
  h.model.end_every = rng.Below(2) == 0 ? 12 : 0;
  h.model.shaped = o.reproducible;
  h.model.chunk = o.reproducible ? o.batch_rows_max : 1;
  h.model.vocabulary = rng.Below(2) == 0 ? 2 : 50;
  h.requests = Between(rng, 1, 25);
  h.prompt_max = Between(rng, 1, std::min(60, o.kv_tokens_max + 2));
  h.answer_max = Between(rng, 1, 30);
  h.cancel_one_in = rng.Below(2) == 0 ? Between(rng, 5, 60) : 0;
  h.fail_one_in = rng.Below(3) == 0 ? Between(rng, 10, 120) : 0;
  h.burst_one_in = Between(rng, 1, 20);
  for (int i = 0; i < o.stages; ++i) o.stage_layers.push_back(2 + i % 3);
  return h;
}

void AddLosses(History& h, Rng& rng) {
  h.lose_one_in = Between(rng, 20, 400);
  h.options.queue_max = h.requests;  // whoever is lost finds room again
}

// Not drawn from the history's own numbers: without drafts a seed gives what it always gave.
void AddDrafts(History& h, std::uint64_t seed) {
  Rng rng(~seed);
  h.options.drafts_max = Between(rng, 0, h.options.stages + 1);
  h.options.draft_chance_min = rng.Below(2) == 0 ? 0.0 : 0.5;
}

History HistoryOf(std::uint64_t seed, Rng& rng) {
  History history = RandomHistory(rng);
  if (seed % 2 == 0) AddLosses(history, rng);
  return history;
}

std::string Describe(const History& h) {
  std::ostringstream out;
  const ScheduleOptions& o = h.options;
  out << "stages " << o.stages << " slots " << o.slots_max << " rows " << o.batch_rows_max << " sequences "
      << o.batch_sequences_max << " outputs " << o.output_rows_max << " kv " << o.kv_tokens_max << " shared "
      << o.kv_shared << " in_flight " << o.in_flight_max << " queue " << o.queue_max << " rewindable " << o.rewindable
      << " reproducible " << o.reproducible << " groups " << o.decode_groups_max << " drafts " << o.drafts_max
      << " requests " << h.requests << " cancel " << h.cancel_one_in << " fail " << h.fail_one_in << " lose "
      << h.lose_one_in;
  return out.str();
}

// What the client of one request has seen.
struct Client {
  GenerationRequest request;
  ReferenceRun expected;
  std::size_t received = 0;
  bool ended = false, cancelled = false, failed = false;
  bool ready = false;       // a decode row may go out
  bool prefilling = false;  // has had rows, no token yet
  std::int64_t since = 0;   // micro-batches sent when it became so
};

class Simulation {
 public:
  Simulation(const History& history, Rng& rng)
      : h_(history),
        rng_(rng),
        scheduler_(std::make_unique<Scheduler>(history.options)),
        stages_(history.model, history.options) {}

  // Empty when nothing was wrong.
  std::string Run() {
    for (int step = 0; step < kStepsMax && error_.empty(); ++step) {
      Pump();
      if (!stages_.violation().empty()) Fault(stages_.violation());
      if (!error_.empty()) break;
      if (!RandomStep()) {
        CheckEnd();
        return error_;
      }
    }
    return error_.empty() ? "not finished after many steps" : error_;
  }
  const ScheduleStats& totals() const { return totals_; }
  int copies() const { return copies_; }
  int errors() const { return errors_; }
  int losses() const { return losses_; }
  const RecoveryStats& recovery() const { return recovery_; }
  std::uint64_t refused_replays() const { return stages_.refused_replays(); }

 private:
  void Fault(const std::string& what) {
    if (error_.empty()) error_ = what;
  }
  std::string Name(GenerationId id) const { return "generation " + std::to_string(id); }

  void Pump() {
    while (std::optional<MicroBatch> batch = scheduler_->Next()) {
      CheckBatch(*batch);
      stages_.Send(std::move(*batch));
      if (!error_.empty()) return;
    }
    totals_ = scheduler_->stats();
    if (totals_.in_flight != in_flight_) Fault("the scheduler counts other micro-batches in flight than there are");
  }

  void CheckBatch(const MicroBatch& batch) {
    for (const ControlOp& op : batch.ops) {
      copies_ += std::holds_alternative<CopySequence>(op);
      const auto* close = std::get_if<CloseSequence>(&op);
      if (close == nullptr || clients_.at(close->generation).ended) continue;
      clients_.at(close->generation).ready = clients_.at(close->generation).prefilling = false;  // preempted
    }
    if (batch.rows.size() != batch.tokens.size()) Fault("rows and tokens differ in number");
    if (batch.rows.empty()) {
      if (batch.ops.empty()) Fault("an empty micro-batch");
      return;
    }
    if (++in_flight_ > std::max(h_.options.in_flight_max, h_.options.decode_groups_max) + h_.options.drafts_max)
      Fault("too many micro-batches in flight");
    std::set<SequenceId> sequences;
    int outputs = 0;
    for (const BatchRow& row : batch.rows) {
      sequences.insert(row.sequence);
      outputs += row.output;
    }
    const auto& o = h_.options;
    if (static_cast<int>(batch.rows.size()) > o.batch_rows_max) Fault("too many rows");
    if (static_cast<int>(sequences.size()) > (o.reproducible ? 1 : o.batch_sequences_max)) Fault("too many sequences");
    if (outputs > o.output_rows_max) Fault("too many outputs");
    CheckFairness(batch);
    ++sent_;
  }

  // Running answers and prefills get their turn within a bounded number of micro-batches.
  void CheckFairness(const MicroBatch& batch) {
    const auto& o = h_.options;
    const int tightest = std::min({o.batch_rows_max, o.reproducible ? 1 : o.batch_sequences_max, o.output_rows_max});
    // Uncapped, the decoders that are ready go out in about as many groups as there are stages (the last ones in
    // smaller groups when others end meanwhile); a cap cuts those in more, and gives prefills every other place at
    // worst.
    const std::int32_t groups = std::min(o.stages, o.in_flight_max);
    const bool stage_groups = tightest > o.slots_max && o.decode_groups_max == 0;
    std::int64_t decode_wait = stage_groups ? (groups == 1 ? 0 : groups) : 2 * o.slots_max + o.stages;
    std::int64_t prefill_wait = tightest > o.slots_max ? o.slots_max : 2 * o.slots_max * (o.slots_max + 1);
    if (losses_ > 0) {  // stages that are filled up have every second micro-batch
      decode_wait = 2 * decode_wait + 1;
      prefill_wait = 2 * prefill_wait + 2 * o.slots_max;
    }
    bool decodes = true;
    GenerationId previous = 0;
    for (const BatchRow& row : batch.rows) {
      Client& client = clients_.at(row.generation);
      if (row.generation == previous) {
        client.prefilling = !row.output;
        continue;
      }
      previous = row.generation;
      const bool is_decode = client.ready;
      if (is_decode && !decodes) Fault("a decode row behind a prefill row");
      decodes = decodes && is_decode;
      if (client.cancelled || client.ended) Fault(Name(row.generation) + " has rows after its end");
      const std::int64_t waited = sent_ - client.since;
      if (is_decode && waited > decode_wait) Fault(Name(row.generation) + " waited too long for a decode row");
      if (client.prefilling && waited > prefill_wait) Fault(Name(row.generation) + " waited too long for prefill rows");
      client.ready = false;
      client.prefilling = !row.output;
    }
    for (const BatchRow& row : batch.rows) clients_.at(row.generation).since = sent_ + 1;
  }

  bool RandomStep() {
    std::vector<int> stages, failures;
    for (int i = 0; i < h_.options.stages; ++i) {
      if (stages_.CanStep(i)) stages.push_back(i);
      if (stages_.HasFailure(i)) failures.push_back(i);
    }
    if (h_.lose_one_in != 0 && rng_.Below(h_.lose_one_in) == 0) {
      LoseStages();
      return true;
    }
    const bool arrivals_left = submitted_ < h_.requests;
    if (stages.empty() && failures.empty() && !stages_.HasResult() && !arrivals_left) return false;
    if (arrivals_left && rng_.Below(h_.burst_one_in) == 0) Submit();
    if (h_.cancel_one_in != 0 && rng_.Below(h_.cancel_one_in) == 0) CancelOne();
    if (h_.fail_one_in != 0 && rng_.Below(h_.fail_one_in * 4) == 0 && !clients_.empty()) {
      stages_.failing_generations.insert(1 + rng_.Below(clients_.size()));
    }
    const std::uint64_t choices = stages.size() + failures.size() + (stages_.HasResult() ? 1 : 0);
    if (choices == 0) return true;
    std::uint64_t choice = rng_.Below(choices);
    if (choice < stages.size()) {
      stages_.Step(stages[choice], h_.fail_one_in != 0 && rng_.Below(h_.fail_one_in) == 0);
      return true;
    }
    choice -= stages.size();
    std::vector<ScheduleEvent> events;
    if (choice < failures.size()) {
      const FailureMessage failure = stages_.TakeFailure(failures[choice]);
      if (failure.generation == 0) --in_flight_;
      scheduler_->OnFailure(failure, events);
    } else {
      --in_flight_;
      ResultMessage result = stages_.TakeResult();
      // Any timings may come: what is learned from them must never stop anything.
      for (int i = 0; i < h_.options.stages; ++i) {
        result.timings.push_back({static_cast<std::uint32_t>(rng_.Below(1000)), 0, 0});
      }
      scheduler_->OnResult(result, events);
    }
    for (const ScheduleEvent& event : events) Receive(event);
    return true;
  }

  void Submit() {
    ++submitted_;
    GenerationRequest request;
    request.id = static_cast<GenerationId>(clients_.size() + 1);
    // Prompts share beginnings, continue earlier conversations, or repeat one.
    if (!clients_.empty() && rng_.Below(2) == 0) {
      const Client& earlier = clients_.at(1 + rng_.Below(clients_.size()));
      request.tokens = earlier.request.tokens;
      if (rng_.Below(2) == 0) {
        for (std::size_t i = 0; i < earlier.received; ++i) request.tokens.push_back(earlier.expected.tokens[i].token);
      }
      if (rng_.Below(3) == 0) request.tokens.resize(1 + rng_.Below(request.tokens.size()));
    }
    const int more = Between(rng_, request.tokens.empty() ? 1 : 0, h_.prompt_max);
    for (int i = 0; i < more; ++i) request.tokens.push_back(static_cast<TokenId>(rng_.Below(3)));
    request.tokens_max = Between(rng_, 1, h_.answer_max);
    request.sampling.seed = rng_.Below(3);
    const std::int64_t context = h_.options.kv_tokens_max;
    Client client;
    client.expected = RunAlone(h_.model, request, context);
    // Resume somebody in the middle of an answer.
    const std::size_t done = client.expected.tokens.size();
    if (rng_.Below(6) == 0 && done > 1 && static_cast<std::int64_t>(request.tokens.size()) < context) {
      const auto emitted = static_cast<std::uint32_t>(1 + rng_.Below(done - 1));
      for (std::uint32_t i = 0; i < emitted; ++i) request.tokens.push_back(client.expected.tokens[i].token);
      request.emitted = emitted;
      request.tokens_max -= static_cast<std::int32_t>(emitted);
      client.expected.tokens.erase(client.expected.tokens.begin(), client.expected.tokens.begin() + emitted);
    }
    client.request = request;
    const std::size_t waiting = scheduler_->stats().waiting;
    const Status status = scheduler_->Submit(request);
    if (status.ok()) {
      clients_.emplace(request.id, std::move(client));
      if (static_cast<std::int64_t>(request.tokens.size()) >= context) Fault("a prompt beyond the context was taken");
    } else if (status.error().code == ErrorCode::kContextFull) {
      if (static_cast<std::int64_t>(request.tokens.size()) < context) Fault("a prompt that fits was refused");
    } else if (status.error().code != ErrorCode::kOverloaded || static_cast<int>(waiting) < h_.options.queue_max) {
      Fault("refused: " + status.error().message);
    }
  }

  // A new epoch: some stages are fresh, what was in flight is gone, everybody asks again with what it has.
  void LoseStages() {
    std::set<int> lost;
    for (int i = 0; i < h_.options.stages; ++i) {
      if (rng_.Below(h_.options.stages + 1) == 0) lost.insert(i);
    }
    ++losses_;
    recovery_ += scheduler_->stats().recovery;
    stages_.NextEpoch(lost);
    if (rng_.Below(3) == 0) stages_.ForgetSent(Between(rng_, 0, h_.options.stages - 1), 1 + rng_.Below(20));
    stages_.ForgetSent(h_.options.stages - 1, h_.options.kv_tokens_max);  // the last one sends nothing
    scheduler_ = std::make_unique<Scheduler>(h_.options);
    const Status adopted = scheduler_->Adopt(stages_.Inventories());
    if (!adopted.ok()) Fault(adopted.error().message);
    if (rng_.Below(6) == 0) stages_.ForgetSent(Between(rng_, 0, h_.options.stages - 1), 1 + rng_.Below(20));
    in_flight_ = 0;
    for (auto& [id, client] : clients_) {
      if (client.ended || client.cancelled) continue;
      client.ready = client.prefilling = false;
      if (rng_.Below(10) == 0) {  // its entry node is gone, too
        client.cancelled = true;
        continue;
      }
      for (std::size_t i = 0; i < client.received; ++i)
        client.request.tokens.push_back(client.expected.tokens[i].token);
      client.request.emitted += static_cast<std::uint32_t>(client.received);
      client.request.tokens_max -= static_cast<std::int32_t>(client.received);
      client.expected.tokens.erase(client.expected.tokens.begin(),
                                   client.expected.tokens.begin() + static_cast<std::ptrdiff_t>(client.received));
      client.received = 0;
      const Status status = scheduler_->Submit(client.request);
      if (!status.ok()) Fault(Name(id) + " cannot go on: " + status.error().message);
    }
  }

  void CancelOne() {
    if (clients_.empty()) return;
    const GenerationId id = 1 + rng_.Below(clients_.size());
    Client& client = clients_.at(id);
    const std::int32_t free_before = scheduler_->stats().slots_free + scheduler_->stats().waiting;
    scheduler_->Cancel(id);
    const std::int32_t free_after = scheduler_->stats().slots_free + scheduler_->stats().waiting;
    if (!client.ended && !client.cancelled && free_after == free_before) Fault("a cancel freed nothing");
    client.cancelled = true;
  }

  void Receive(const ScheduleEvent& event) {
    Client& client = clients_.at(event.generation);
    const std::string name = Name(event.generation);
    if (client.cancelled) return Fault(name + " emits after its cancel");
    if (client.ended) return Fault(name + " emits after its end");
    if (event.token) {
      const auto& expected = client.expected.tokens;
      if (client.received >= expected.size()) return Fault(name + " emits more than it would alone");
      if (!(*event.token == expected[client.received])) return Fault(name + " emits another token than alone");
      const auto position = static_cast<Position>(client.request.tokens.size() + client.received);
      if (event.position != position) return Fault(name + " emits at a wrong position");
      ++client.received;
      client.ready = true;
      client.prefilling = false;
      client.since = sent_;
    }
    if (!event.finish) return;
    client.ended = true;
    if (*event.finish == FinishReason::kError) {
      ++errors_;
      if (!stages_.touched_by_failure().contains(event.generation)) Fault(name + " failed for another's failure");
      return;
    }
    if (client.received != client.expected.tokens.size()) Fault(name + " ended early");
    if (*event.finish != client.expected.finish) Fault(name + " ended for another reason than alone");
  }

  void CheckEnd() {
    for (const auto& [id, client] : clients_) {
      if (!client.ended && !client.cancelled) Fault(Name(id) + " never ended");
    }
    const ScheduleStats stats = scheduler_->stats();
    if (stats.running != 0 || stats.waiting != 0 || stats.in_flight != 0) Fault("something is left at the end");
    if (stats.slots_free != h_.options.slots_max) Fault("a slot leaked");
    if (stages_.samplers() != 0) Fault("a sampler leaked");
  }

  const History& h_;
  Rng& rng_;
  std::unique_ptr<Scheduler> scheduler_;
  FakeStages stages_;
  std::map<GenerationId, Client> clients_;
  int submitted_ = 0, in_flight_ = 0, copies_ = 0, errors_ = 0, losses_ = 0;
  std::int64_t sent_ = 0;
  ScheduleStats totals_;
  RecoveryStats recovery_;
  std::string error_;
};

TEST(SchedulerSimulation, EveryHistoryEqualsRequestsRunAlone) {
  const char* only = std::getenv("SHOAL_SIM_SEED");
  const char* count = std::getenv("SHOAL_SIM_RUNS");
  const std::uint64_t first = only != nullptr ? std::strtoull(only, nullptr, 10) : 1;
  const std::uint64_t runs = only != nullptr ? 1 : count != nullptr ? std::strtoull(count, nullptr, 10) : 4000;
  std::uint64_t preemptions = 0, reused = 0, copies = 0, errors = 0, decoded = 0, losses = 0, refused = 0;
  std::uint64_t drafts = 0, drafts_right = 0;
  RecoveryStats recovery;
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    Rng rng(seed);
    History history = HistoryOf(seed, rng);
    AddDrafts(history, seed);
    Simulation simulation(history, rng);
    const std::string error = simulation.Run();
    ASSERT_EQ(error, "") << "SHOAL_SIM_SEED=" << seed << ": " << Describe(history);
    preemptions += simulation.totals().preemptions;
    reused += simulation.totals().tokens_reused;
    decoded += simulation.totals().tokens_decoded;
    drafts += simulation.totals().drafts.sent;
    drafts_right += simulation.totals().drafts.right;
    copies += simulation.copies();
    errors += simulation.errors();
    losses += simulation.losses();
    refused += simulation.refused_replays();
    recovery += simulation.recovery();
  }
  std::printf("%llu histories: %llu tokens, %llu reused, %llu copies, %llu preemptions, %llu errors\n",
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(decoded),
              static_cast<unsigned long long>(reused), static_cast<unsigned long long>(copies),
              static_cast<unsigned long long>(preemptions), static_cast<unsigned long long>(errors));
  std::printf("%llu drafts, %llu of them right\n", static_cast<unsigned long long>(drafts),
              static_cast<unsigned long long>(drafts_right));
  std::printf("%llu losses: %llu generations recovered with %llu of %llu row-layers, %llu replays refused\n",
              static_cast<unsigned long long>(losses), static_cast<unsigned long long>(recovery.generations),
              static_cast<unsigned long long>(recovery.row_layers),
              static_cast<unsigned long long>(recovery.row_layers_from_nothing),
              static_cast<unsigned long long>(refused));
  if (only != nullptr) return;
  // The histories are worth something only if they come to these corners.
  EXPECT_GT(preemptions, runs / 10);
  EXPECT_GT(reused, runs);
  EXPECT_GT(copies, runs / 20);
  EXPECT_GT(drafts_right, runs / 20);
  EXPECT_GT(drafts - drafts_right, runs / 10);
  EXPECT_GT(errors, runs / 50);
  EXPECT_GT(losses, runs / 10);
  EXPECT_GT(recovery.generations, runs / 10);
  EXPECT_LT(recovery.row_layers, recovery.row_layers_from_nothing);
  EXPECT_GT(refused, 0U);
}

// They once ended generations that had only come behind somebody else's failure (its report was overtaken; the slot
// had changed hands meanwhile; a copy of a copy), or let short prompts take every output.
TEST(SchedulerSimulation, HistoriesThatOnceFailed) {
  for (const std::uint64_t seed : {4822, 6578, 109638, 169515}) {
    Rng rng(seed);
    const History history = HistoryOf(seed, rng);
    EXPECT_EQ(Simulation(history, rng).Run(), "") << "SHOAL_SIM_SEED=" << seed << ": " << Describe(history);
  }
}

// Two generations with rows in each other's micro-batches once restarted each other for ever after a failure.
TEST(SchedulerSimulation, RestartsAfterAFailureComeToAnEnd) {
  Rng rng(125215);
  const History history = RandomHistory(rng);
  EXPECT_EQ(Simulation(history, rng).Run(), "") << Describe(history);
}

}  // namespace
}  // namespace shoal
