// The compute thread of one stage: receive, decode, run, encode, pass on. Knows no scheduler and no model.
//
// A worker that ends, for whatever reason, says so to the head (kUnavailable, batch 0) and closes its links: micro-
// batches that were on their way here would otherwise be waited for forever.
#include "pipeline/stage_worker.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "wire/copy_messages.h"

namespace shoal {
namespace {

// How long Stop leaves the thread to tell the head before the link to it is cut.
constexpr std::chrono::milliseconds kFarewellMax{500};

// Copies hear of so many rows at once or, at the pace of single tokens, so often: each time costs the compute thread a
// walk over the cache's cells.
constexpr std::size_t kCopyRowsAtOnce = 16;
constexpr std::chrono::milliseconds kCopyEvery{60};
constexpr int kCopyFramesMax = 4;  // for each copy, before the next micro-batch

// What a micro-batch of some size takes at full speed is the least that one took; without rests that is slowly
// forgotten, for rows get slower with what they look back on.
constexpr double kFastestForgotten = 1.01;

using SteadyTime = std::chrono::steady_clock::time_point;

SteadyTime Now() { return std::chrono::steady_clock::now(); }

std::uint64_t MicrosecondsBetween(SteadyTime from, SteadyTime to) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(to - from).count());
}

std::uint32_t Clamp32(std::uint64_t us) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(us, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

struct StageWorker::State {
  std::unique_ptr<Stage> stage;
  StageWorkerOptions options;
  std::unique_ptr<FrameReceiver> input;
  std::unique_ptr<FrameSender> next;  // null on the last stage
  std::unique_ptr<FrameSender> results;
  std::string name;

  std::thread thread;
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;  // guarded by mutex
  std::string reason;  // of the end; compute thread only

  using Counters = std::array<std::atomic<std::uint64_t>, CountedRows().size()>;
  Counters more_rows = {}, output_more_rows = {};
  std::atomic<std::uint64_t> kv_rows{0}, kv_many_rows{0}, output_batches{0};
  std::vector<std::shared_ptr<CopySink>> copies;                     // compute thread only
  std::size_t rows_untold = 0;                                       // compute thread only
  SteadyTime told;                                                   // compute thread only
  std::optional<std::vector<std::shared_ptr<CopySink>>> new_copies;  // guarded by mutex

  std::atomic<double> rest{0};
  std::array<double, 16> fastest_us{};  // by the binary order of the number of rows; 0: none yet; compute thread only

  std::atomic<std::uint64_t> rest_us{0};
  std::atomic<std::uint64_t> batches{0}, rows{0}, compute_us{0}, wait_us{0}, wire_us{0}, frames_refused{0},
      bytes_out{0}, rows_replayed{0}, sent_bytes{0}, rows_copied{0};
  // Of the micro-batch at hand. Encoding and sending end after its timings are written, so they count for the next.
  std::uint64_t waited_us = 0, wired_us = 0;

  void Run();
  bool HandleFrame(FrameBytes bytes, SteadyTime received);
  bool HandleControl(const ControlMessage& control, FrameBytes bytes);
  bool HandleBatch(BatchFrame frame, SteadyTime received);
  bool PassBy(BatchFrame frame, SteadyTime received);
  void PassedOn(BatchId batch);
  StageTiming TakeTiming(std::uint64_t batch_compute_us);
  bool PassOn(BatchMessage batch, StageOutput output, std::vector<StageTiming> timings);
  bool ReportResult(BatchId batch, std::vector<RowResult> rows, std::vector<StageTiming> timings);
  bool ReportFailure(const FailureMessage& failure);
  bool Send(FrameSender& sender, FrameBytes bytes, const char* to);
  void Refuse(const std::string& why);
  void Rest(std::size_t n_rows, SteadyTime start, SteadyTime computed);
  void CountWork(const std::vector<BatchRow>& batch);
  void CountRows(Counters& counters, std::size_t n_rows);
  void TellCopies(std::size_t rows_more);
  void TakeNewCopies();
  void Count(std::atomic<std::uint64_t>& counter, std::uint64_t n) { counter.fetch_add(n, std::memory_order_relaxed); }
};

void StageWorker::State::Run() {
  reason = "its input ended";
  const bool said = Send(*results, EncodeInventory(stage->Inventory(options.index), options.epoch), "the head");
  while (said) {
    const SteadyTime idle = Now();
    std::optional<FrameBytes> bytes = input->Receive();
    if (!bytes || stopping) break;
    const SteadyTime received = Now();
    waited_us += MicrosecondsBetween(idle, received);
    if (!HandleFrame(std::move(*bytes), received)) break;
  }
  if (stopping) reason = "stopped";
  FailureMessage farewell;
  farewell.stage = options.index;
  farewell.code = ErrorCode::kUnavailable;
  farewell.message = "the stage has ended: " + reason;
  (void)results->Send(EncodeFailure(farewell, options.epoch));  // the head may be gone already
  input->Close();
  if (next) next->Close();
  results->Close();
  const std::lock_guard lock(mutex);
  ended = true;
  changed.notify_all();
}

// False when the worker cannot go on.
bool StageWorker::State::HandleFrame(FrameBytes bytes, SteadyTime received) {
  Result<DecodedFrame> decoded = DecodeFrame(bytes);
  if (!decoded.ok()) {
    Refuse(decoded.error().message);
    return true;
  }
  if (decoded->header.epoch != options.epoch) {
    Refuse("epoch " + std::to_string(decoded->header.epoch) + ", here it is " + std::to_string(options.epoch));
    return true;
  }
  if (const auto* control = std::get_if<ControlMessage>(&decoded->message)) {
    return HandleControl(*control, std::move(bytes));
  }
  if (auto* batch = std::get_if<BatchFrame>(&decoded->message)) return HandleBatch(std::move(*batch), received);
  Refuse("a result or failure where micro-batches come in");
  return true;
}

bool StageWorker::State::HandleControl(const ControlMessage& control, FrameBytes bytes) {
  const Status applied = stage->Apply(control, options.index);
  if (!applied.ok()) { return ReportFailure({0, 0, options.index, applied.error().code, applied.error().message}); }
  const SteadyTime start = Now();
  const bool sent = next == nullptr || Send(*next, std::move(bytes), "the next stage");
  wired_us += MicrosecondsBetween(start, Now());
  return sent;
}

StageTiming StageWorker::State::TakeTiming(std::uint64_t batch_compute_us) {
  const StageTiming timing{Clamp32(batch_compute_us), Clamp32(waited_us), Clamp32(wired_us)};
  Count(compute_us, timing.compute_us);
  Count(wait_us, timing.wait_us);
  Count(wire_us, timing.wire_us);
  waited_us = wired_us = 0;
  return timing;
}

// A micro-batch that starts at a later stage. Right before that, what was sent for its rows goes with it again.
bool StageWorker::State::PassBy(BatchFrame frame, SteadyTime received) {
  BatchMessage& batch = frame.batch;
  if (next == nullptr || batch.n_embd != 0) {
    return ReportFailure({batch.batch, 0, options.index, ErrorCode::kInvalidArgument,
                          "a micro-batch for stage " + std::to_string(batch.first_stage) + " ended up here"});
  }
  if (batch.first_stage == options.index + 1) {
    const Status replayed = stage->Replay(batch);
    if (!replayed.ok()) {
      return ReportFailure({batch.batch, 0, options.index, replayed.error().code, replayed.error().message});
    }
    Count(rows_replayed, batch.rows.size());
  }
  wired_us += MicrosecondsBetween(received, Now());
  if (frame.timings.size() < kTimingsMax) frame.timings.push_back(TakeTiming(0));
  const bool sent = Send(*next, EncodeBatch(batch, frame.timings, options.epoch), "the next stage");
  PassedOn(batch.batch);
  return sent;
}

void StageWorker::State::PassedOn(BatchId batch) {
  if (options.on_passed_on) options.on_passed_on(batch);
}

bool StageWorker::State::HandleBatch(BatchFrame frame, SteadyTime received) {
  if (options.index < frame.batch.first_stage) return PassBy(std::move(frame), received);
  const BatchId batch = frame.batch.batch;
  const SteadyTime start = Now();
  wired_us += MicrosecondsBetween(received, start);
  const std::size_t n_rows = frame.batch.rows.size();
  Result<StageOutput> output = stage->Forward(frame.batch);
  const SteadyTime computed = Now();
  const StageTiming timing = TakeTiming(MicrosecondsBetween(start, computed));
  Count(batches, 1);
  Count(rows, frame.batch.rows.size());
  CountWork(frame.batch.rows);
  if (!output.ok() && output.error().code == ErrorCode::kUnavailable) {  // with its engine the stage is gone
    reason = output.error().message;
    return false;
  }
  if (!output.ok()) {
    const bool reported = ReportFailure({batch, 0, options.index, output.error().code, output.error().message});
    PassedOn(batch);
    return reported;
  }
  // Before the result: the head then knows why a row has none.
  for (FailureMessage& failure : output->failures) {
    failure.batch = batch;
    failure.stage = options.index;
    if (!ReportFailure(failure)) return false;
  }
  if (frame.timings.size() < kTimingsMax) frame.timings.push_back(timing);  // a peer chose how many there are
  const bool sent = next != nullptr ? PassOn(std::move(frame.batch), std::move(*output), std::move(frame.timings))
                                    : ReportResult(batch, std::move(output->results), std::move(frame.timings));
  wired_us += MicrosecondsBetween(computed, Now());
  PassedOn(batch);
  TellCopies(n_rows);
  Rest(n_rows, start, computed);
  return sent;
}

void StageWorker::State::Rest(std::size_t n_rows, SteadyTime start, SteadyTime computed) {
  const double share = rest.load(std::memory_order_relaxed);
  double& fastest = fastest_us[std::min<std::size_t>(std::bit_width(n_rows), fastest_us.size() - 1)];
  const auto took = static_cast<double>(MicrosecondsBetween(start, computed));
  if (fastest == 0 || took < fastest) fastest = took;
  if (share <= 0) {
    fastest *= kFastestForgotten;
    return;
  }
  constexpr double kRestMax_us = std::chrono::microseconds(kRestMax).count();
  const double least_us = fastest + std::min(fastest * share, kRestMax_us);
  const auto due = start + std::chrono::microseconds(static_cast<std::int64_t>(least_us));
  const SteadyTime begin = Now();
  if (due <= begin) return;
  std::unique_lock lock(mutex);
  changed.wait_until(lock, due, [&] { return stopping.load(); });
  lock.unlock();
  Count(rest_us, MicrosecondsBetween(begin, Now()));
}

void StageWorker::State::CountWork(const std::vector<BatchRow>& batch) {
  std::uint64_t outputs = 0, seen = 0;
  for (const BatchRow& row : batch) {
    outputs += row.output ? 1 : 0;
    seen += static_cast<std::uint64_t>(row.position) + 1;
  }
  Count(batch.size() > kCountedFewRows ? kv_many_rows : kv_rows, seen);
  CountRows(more_rows, batch.size());
  if (outputs == 0) return;
  Count(output_batches, 1);
  CountRows(output_more_rows, outputs);
}

void StageWorker::State::CountRows(Counters& counters, std::size_t n_rows) {
  for (std::size_t i = 0; i < counters.size(); ++i) {
    const auto from = static_cast<std::size_t>(kCountedRows[i]), to = static_cast<std::size_t>(kCountedRows[i + 1]);
    if (n_rows > from) Count(counters[i], std::min(n_rows, to) - from);
  }
}

void StageWorker::State::TakeNewCopies() {
  const std::lock_guard lock(mutex);
  if (new_copies) copies = *std::exchange(new_copies, std::nullopt);
}

// After what came in has gone on: the next stage does not wait for this.
void StageWorker::State::TellCopies(std::size_t rows_more) {
  rows_untold += rows_more;
  const SteadyTime now = Now();
  if (rows_untold < kCopyRowsAtOnce && now - told < kCopyEvery) return;
  rows_untold = 0;
  told = now;
  TakeNewCopies();
  for (const std::shared_ptr<CopySink>& copy : copies) {
    const std::uint64_t session = copy->session();
    CopySink::Told& told_it = copy->told;
    if (session != told_it.session) told_it = {session, {}, {}};
    for (int i = 0; session != 0 && i < kCopyFramesMax; ++i) {
      if (!told_it.waiting) {
        const std::optional<CopyRows> more = stage->RowsForCopy(told_it.knows);
        if (!more) break;
        Count(rows_copied, more->tokens.size());
        told_it.waiting = EncodeCopyRows(*more);
      }
      if (!copy->TryPut(*told_it.waiting)) break;
      told_it.waiting.reset();
    }
  }
}

bool StageWorker::State::PassOn(BatchMessage batch, StageOutput output, std::vector<StageTiming> timings) {
  batch.n_embd = static_cast<std::uint32_t>(stage->engine().n_embd());
  SHOAL_CHECK(output.hidden.size() == batch.rows.size() * batch.n_embd);
  batch.wire_type = options.wire_type;
  batch.hidden = std::move(output.hidden);
  FrameBytes bytes = EncodeBatch(batch, timings, options.epoch);
  stage->Sent(batch.rows, EncodedHidden(bytes, batch));
  sent_bytes.store(stage->sent_bytes(), std::memory_order_relaxed);
  if (batch.last_stage <= options.index) return ReportResult(batch.batch, {}, std::move(timings));
  return Send(*next, std::move(bytes), "the next stage");
}

bool StageWorker::State::ReportResult(BatchId batch, std::vector<RowResult> row_results,
                                      std::vector<StageTiming> timings) {
  const ResultMessage result{batch, std::move(row_results), std::move(timings)};
  return Send(*results, EncodeResult(result, options.epoch), "the head");
}

bool StageWorker::State::ReportFailure(const FailureMessage& failure) {
  Log(LogLevel::kWarning, name, "micro-batch " + std::to_string(failure.batch) + ": " + failure.message);
  return Send(*results, EncodeFailure(failure, options.epoch), "the head");
}

bool StageWorker::State::Send(FrameSender& sender, FrameBytes bytes, const char* to) {
  const std::size_t size = bytes.size();
  if (sender.Send(std::move(bytes)).ok()) {
    Count(bytes_out, size);
    return true;
  }
  reason = std::string("the link to ") + to + " is closed";
  return false;
}

void StageWorker::State::Refuse(const std::string& why) {
  const std::uint64_t refused = frames_refused.fetch_add(1, std::memory_order_relaxed) + 1;
  // A peer that floods us with nonsense shall not flood the log: the 1st, 2nd, 4th, 8th, ...
  if ((refused & (refused - 1)) != 0) return;
  Log(LogLevel::kWarning, name, "frame refused (" + std::to_string(refused) + " so far): " + why);
}

StageWorker::StageWorker(std::unique_ptr<Stage> stage, const StageWorkerOptions& options,
                         std::unique_ptr<FrameReceiver> input, std::unique_ptr<FrameSender> next,
                         std::unique_ptr<FrameSender> results)
    : state_(std::make_unique<State>()) {
  SHOAL_CHECK(stage != nullptr && input != nullptr && results != nullptr);
  state_->stage = std::move(stage);
  state_->options = options;
  state_->input = std::move(input);
  state_->next = std::move(next);
  state_->results = std::move(results);
  state_->name = "stage " + std::to_string(options.index);
  state_->stage->KeepSent(options.wire_type, options.sent_bytes_max);
}

StageWorker::~StageWorker() { Stop(); }

void StageWorker::Start() {
  SHOAL_CHECK(!state_->thread.joinable() && !state_->stopping);
  state_->thread = std::thread([state = state_.get()] {
    NameThisThread("shoal-compute");
    state->Run();
  });
}

void StageWorker::SetCopies(std::vector<std::shared_ptr<CopySink>> copies) {
  const std::lock_guard lock(state_->mutex);
  state_->new_copies = std::move(copies);
}

void StageWorker::SetRest(double rest) { state_->rest.store(rest, std::memory_order_relaxed); }

void StageWorker::Stop() {
  State& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    s.stopping = true;
    s.changed.notify_all();
  }
  s.input->Close();
  if (s.next) s.next->Close();
  if (s.thread.joinable()) {
    s.stage->Abort();
    {
      std::unique_lock lock(s.mutex);
      s.changed.wait_for(lock, kFarewellMax, [&] { return s.ended; });
    }
    s.results->Close();
    s.thread.join();
  }
  s.results->Close();
}

StageWorkerStats StageWorker::stats() const {
  const State& s = *state_;
  StageWorkerStats stats;
  stats.batches = s.batches;
  stats.rows = s.rows;
  std::copy(s.more_rows.begin(), s.more_rows.end(), stats.more_rows.begin());
  std::copy(s.output_more_rows.begin(), s.output_more_rows.end(), stats.output_more_rows.begin());
  stats.kv_rows = s.kv_rows;
  stats.kv_many_rows = s.kv_many_rows;
  stats.output_batches = s.output_batches;
  stats.compute_us = s.compute_us;
  stats.wait_us = s.wait_us;
  stats.wire_us = s.wire_us;
  stats.rest_us = s.rest_us;
  stats.frames_refused = s.frames_refused;
  stats.bytes_out = s.bytes_out;
  stats.rows_replayed = s.rows_replayed;
  stats.sent_bytes = s.sent_bytes;
  stats.rows_copied = s.rows_copied;
  return stats;
}

std::unique_ptr<Stage> StageWorker::TakeStage() {
  State& s = *state_;
  SHOAL_CHECK(s.stopping && !s.thread.joinable() && s.stage != nullptr);
  std::unique_ptr<Stage> stage = std::move(s.stage);
  if (stage->failed()) return nullptr;
  stage->CloseAll();
  return stage;
}

const Stage& StageWorker::stage() const { return *state_->stage; }

}  // namespace shoal
