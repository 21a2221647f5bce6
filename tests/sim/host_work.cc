// What a linked stage does: frames in, through the layers one after the other, frames out; and how it ends.
#include "sim/host.h"
#include "sim/hosted.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kBatchUs = 1'500, kRowUs = 300;  // of computing

// As in pipeline/stage_worker.
constexpr std::size_t kCopyRowsAtOnce = 16;
constexpr DurationUs kCopyEveryUs = 60 * kMillisecond;
constexpr int kCopyFramesMax = 4;

}  // namespace

std::string SimHost::Describe() const {
  std::string text;
  for (const auto& [key, hosted] : hosted_) {
    text += " '" + std::get<0>(key) + "' epoch " + std::to_string(std::get<1>(key)) + " stage " +
            std::to_string(hosted->index) + " of " + std::to_string(hosted->placement.stages.size()) +
            (hosted->started ? " started" : "") + (hosted->ended ? " ended" : "") + (hosted->busy ? " busy" : "") +
            " queue " + std::to_string(hosted->queue.size()) + (hosted->next.lost ? " next lost" : "") +
            (hosted->results.lost ? " results lost" : "");
    if (hosted->head) text += hosted->head->Describe();
    text += ";";
  }
  return text;
}

bool SimHost::Knows(StreamId stream) const {
  return fresh_.contains(stream) || waiting_by_stream_.contains(stream) || routes_.contains(stream) ||
         outlets_.Knows(stream);
}

void SimHost::OnFrame(StreamId stream, FrameBytes frame) {
  if (const auto fresh = fresh_.find(stream); fresh != fresh_.end()) {
    const int peer = fresh->second;
    fresh_.erase(fresh);
    const Result<PipeHelloFrame> hello = DecodePipeHello(frame);
    if (!hello.ok() || closed_.contains(hello->epoch)) return CloseOn(stream);
    const PipeKey key{peer, hello->epoch, hello->hello.kind, hello->hello.from, hello->hello.to};
    Waiting& waits = waiting_[key];
    if (waits.stream != 0) {  // of two for the same end the later stays
      CloseOn(waits.stream);
      waiting_by_stream_.erase(waits.stream);
    }
    waits = {stream, {}, false};
    waiting_by_stream_[stream] = key;
    return LinkAll(hello->epoch);
  }
  if (const auto waits = waiting_by_stream_.find(stream); waits != waiting_by_stream_.end()) {
    return waiting_[waits->second].early.push_back(std::move(frame));
  }
  const auto found = routes_.find(stream);
  if (found == routes_.end()) return;
  const Route route = found->second;
  Hosted* hosted = Find(route.key);
  if (hosted == nullptr) return;
  switch (route.use) {
    case Use::kNext:
    case Use::kResults: return;  // nothing comes back
    case Use::kInput: hosted->queue.push_back(std::move(frame)); return Process(route.key);
    case Use::kResultsOf:
      if (!hosted->head) return hosted->early_results.push_back(std::move(frame));
      return hosted->head->OnResultFrame(frame);
  }
}

void SimHost::OnStreamEnd(StreamId stream) {
  if (outlets_.Knows(stream)) return outlets_.OnStreamEnd(stream);
  fresh_.erase(stream);
  if (const auto waits = waiting_by_stream_.find(stream); waits != waiting_by_stream_.end()) {
    waiting_[waits->second].ended = true;
    return;
  }
  const auto found = routes_.find(stream);
  if (found == routes_.end()) return;
  const Route route = found->second;
  routes_.erase(found);
  Hosted* hosted = Find(route.key);
  if (hosted == nullptr) return;
  switch (route.use) {
    case Use::kNext:
    case Use::kResults: {
      Outgoing& outgoing = route.use == Use::kNext ? hosted->next : hosted->results;
      if (outgoing.stream != stream) return;
      if (!hosted->started) return DialFailed(route.key, outgoing);
      outgoing.lost = true;  // shows when something is to be sent
      return;
    }
    case Use::kInput: hosted->input_ended = true; return Process(route.key);
    case Use::kResultsOf:
      hosted->input_ended = true;
      if (hosted->head) hosted->head->Break("the link from a stage to the head was lost");
      return;
  }
}

void SimHost::Process(const Key& key) {
  for (;;) {
    Hosted* hosted = Find(key);
    if (hosted == nullptr || !hosted->started || hosted->ended || hosted->busy) return;
    if (hosted->queue.empty()) {
      if (hosted->input_ended && hosted->index > 0) EndWorker(*hosted, "its input ended");
      return;
    }
    const FrameBytes frame = std::move(hosted->queue.front());
    hosted->queue.pop_front();
    if (!HandleFrame(key, *hosted, frame)) return;
  }
}

// False when there is no more to do for now.
bool SimHost::HandleFrame(const Key& key, Hosted& hosted, const FrameBytes& frame) {
  Result<DecodedFrame> decoded = DecodeFrame(frame);
  SHOAL_CHECK(decoded.ok());
  if (decoded->header.epoch != std::get<1>(key)) return true;  // refused
  if (const auto* control = std::get_if<ControlMessage>(&decoded->message)) {
    const Status applied = hosted.stage->Apply(*control, hosted.index);
    SHOAL_CHECK(applied.ok());
    checks_.recovery.row_layers_spared += hosted.stage->TakeSpared();
    const bool last = hosted.stage->is_last();
    return last || PassOn(hosted, frame);
  }
  auto* batch = std::get_if<BatchFrame>(&decoded->message);
  SHOAL_CHECK(batch != nullptr);
  if (hosted.index < batch->batch.first_stage) return PassBy(hosted, std::move(batch->batch));
  hosted.busy = true;
  const DurationUs base = kBatchUs + kRowUs * static_cast<DurationUs>(batch->batch.rows.size());
  const auto kept = std::make_shared<BatchMessage>(std::move(batch->batch));
  Later(key, Scaled(network_.rng(), base, hardware_.compute_slowness), [this, key, kept](Hosted& computing) {
    if (computing.ended) return;
    computing.busy = false;
    Compute(key, computing, std::move(*kept));
    Process(key);
  });
  return false;
}

// A micro-batch that starts at a later stage; from right before that one with what was sent for its rows.
bool SimHost::PassBy(Hosted& hosted, BatchMessage batch) {
  if (batch.first_stage == hosted.index + 1) {
    const Status replayed = hosted.stage->Replay(batch);
    if (!replayed.ok()) {
      const FailureMessage failure{batch.batch, 0, hosted.index, replayed.error().code, replayed.error().message};
      return Report(hosted, EncodeFailure(failure, hosted.placement.epoch));
    }
  }
  return PassOn(hosted, EncodeBatch(batch, {}, hosted.placement.epoch));
}

void SimHost::Compute(const Key& key, Hosted& hosted, BatchMessage batch) {
  ++batches_;
  checks_.OnStageWorks(self_, hosted.placement);
  if (!hooks_.may_serve(std::get<0>(key), std::get<1>(key))) {
    checks_.Violate(Invariant::kNoStaleEpoch, "node " + std::to_string(self_) + " runs epoch " +
                                                  std::to_string(std::get<1>(key)) + ", which its cluster has dropped");
  }
  const BatchId number = batch.batch;
  const std::size_t rows = batch.rows.size();
  ResultMessage result;
  std::vector<FailureMessage> failures;
  Status ran;
  if (network_.rng().Uniform() < hardware_.batch_failures) {
    ran = Error{ErrorCode::kInternal, std::string(kEngineFailure)};
    checks_.OnEngineFails(std::get<0>(key));
    hosted.failed = true;
  } else {
    ran = hosted.stage->Forward(batch, result, failures);
  }
  if (!ran.ok()) {
    (void)Report(hosted,
                 EncodeFailure({number, 0, hosted.index, ran.error().code, ran.error().message}, std::get<1>(key)));
    return;
  }
  for (FailureMessage& failure : failures) {
    failure.stage = hosted.index;
    if (!Report(hosted, EncodeFailure(failure, std::get<1>(key)))) return;
  }
  if (hosted.stage->is_last() || batch.last_stage <= hosted.index) {
    (void)Report(hosted, EncodeResult(result, std::get<1>(key)));
  } else {
    (void)PassOn(hosted, EncodeBatch(batch, {}, std::get<1>(key)));
  }
  TellCopies(hosted, rows);
}

// After what came in has gone on: so many rows at once or, at the pace of single tokens, so often.
void SimHost::TellCopies(Hosted& hosted, std::size_t rows_more) {
  hosted.rows_untold += rows_more;
  if (hosted.rows_untold < kCopyRowsAtOnce && network_.now() - hosted.told_us < kCopyEveryUs) return;
  hosted.rows_untold = 0;
  hosted.told_us = network_.now();
  for (const auto& [node, copy] : hosted.outlets) {
    const std::uint64_t session = copy->session();
    SimOutlet::Told& told = copy->told;
    if (session != told.session) told = {session, {}, {}};
    for (int i = 0; session != 0 && i < kCopyFramesMax; ++i) {
      if (!told.waiting) {
        const std::optional<CopyRows> more = hosted.stage->RowsForCopy(told.knows);
        if (!more) break;
        told.waiting = EncodeCopyRows(*more);
      }
      if (!copy->TryPut(*told.waiting)) break;
      told.waiting.reset();
    }
  }
}

// To the head. False when the link is lost: then the worker has ended.
bool SimHost::Report(Hosted& hosted, FrameBytes frame) {
  if (hosted.index == 0) {
    if (hosted.head) hosted.head->OnResultFrame(frame);
    return true;
  }
  if (hosted.results.lost) {
    EndWorker(hosted, "the link to the head is closed");
    return false;
  }
  SendOn(hosted.results.stream, std::move(frame));
  return true;
}

bool SimHost::PassOn(Hosted& hosted, FrameBytes frame) {
  if (hosted.next.lost) {
    EndWorker(hosted, "the link to the next stage is closed");
    return false;
  }
  SendOn(hosted.next.stream, std::move(frame));
  return true;
}

// Says so to the head and closes its links: what is on its way here would be waited for forever otherwise.
void SimHost::EndWorker(Hosted& hosted, const std::string& why) {
  if (std::exchange(hosted.ended, true)) return;
  const FailureMessage farewell{0, 0, hosted.index, ErrorCode::kUnavailable, "the stage has ended: " + why};
  if (hosted.index == 0) {
    if (hosted.head) hosted.head->OnResultFrame(EncodeFailure(farewell, hosted.placement.epoch));
  } else if (hosted.results.up) {
    SendOn(hosted.results.stream, EncodeFailure(farewell, hosted.placement.epoch));
  }
  const auto close = [this](StreamId stream) {
    if (stream == 0) return;
    CloseOn(stream);
    routes_.erase(stream);
  };
  close(hosted.next.stream);
  close(hosted.results.stream);
  for (const StreamId stream : hosted.inputs) close(stream);
}

}  // namespace shoal::sim
