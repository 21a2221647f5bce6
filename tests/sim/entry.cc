// Attempts at one end, served streams at the other.
#include "sim/entry.h"

#include <algorithm>
#include <utility>

#include "wire/stream_messages.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kLostMaxUs = 60 * kSecond, kAttemptEveryUs = 100 * kMillisecond;
constexpr DurationUs kSilentUs = 200 * kMillisecond;

}  // namespace

Entry::Entry(Network& network, SimHost& host, int self, EntryRules rules, FindPlacement find)
    : network_(network), host_(host), self_(self), rules_(rules), find_(std::move(find)) {}

// ---- The side that asks ---------------------------------------------------------------------------------------------

void Entry::Start(std::uint64_t id, EntryAsk ask, EntryEvents events) {
  Resumption generation({std::move(ask.history), ask.emitted, ask.tokens_max, ask.context_tokens_max, kLostMaxUs},
                        network_.now());
  running_.emplace(
      id, Running{ask.model, ask.seed, std::move(events), std::move(generation), network_.now(), network_.now()});
  WatchSilence(id);
  Try(id);
}

void Entry::Cancel(std::uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  found->second.events = {};
  Fail(id, EndCause::kNone, {});
}

GenerationRequest Entry::RequestOf(const Running& running) const {
  GenerationRequest request;
  request.tokens = running.generation.history();
  request.emitted = running.generation.emitted();
  request.tokens_max = running.generation.tokens_max();
  request.sampling.seed = running.seed;
  if (rules_.break_resume && request.emitted > 0) {
    request.tokens.pop_back();
    --request.emitted;
    ++request.tokens_max;
  }
  return request;
}

void Entry::Try(std::uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  const Resumption& generation = found->second.generation;
  if (const std::optional<Resumption::End> ended = generation.ended()) {
    return End(id, {*ended == Resumption::End::kStop ? FinishReason::kStop : FinishReason::kLength});
  }
  const std::optional<PlacementView> placement = find_(found->second.model);
  if (!placement) return Refused(id, {ErrorCode::kUnavailable, "not placed"}, EndCause::kNotPlaced, false);
  found->second.knew_placement = true;
  if (placement->broken)
    return Refused(id, {ErrorCode::kUnavailable, "cannot run now"},
                   placement->hopeless ? EndCause::kHopeless : EndCause::kNone, !placement->hopeless);
  AskHead(id, placement->record);
}

void Entry::AskHead(std::uint64_t id, const PlacementRecord& placement) {
  const std::uint64_t number = ++last_attempt_;
  const int head = NumberOf(placement.stages.front().node);
  const Epoch epoch = placement.epoch;
  attempts_[number] = {id, 0, placement.model, epoch, 0, false, false};
  if (head == self_) {
    return host_.Generate(
        placement.model, epoch, RequestOf(running_.at(id)),
        [this, number, model = placement.model, epoch](const Result<GenerationId>& accepted) {
          const auto attempt = attempts_.find(number);
          if (attempt == attempts_.end()) return accepted.ok() ? host_.Cancel(model, epoch, *accepted) : void();
          if (!accepted.ok()) return OnEnd(number, FinishReason::kError, accepted.error());
          attempt->second.local = *accepted;
          OnAccepted(number);
        },
        [this, number](const ScheduleEvent& event) {
          if (event.token) OnToken(number, event.position, *event.token);
          if (event.finish) OnEnd(number, *event.finish, event.error);
        });
  }
  const StreamId stream = network_.Open(self_, head, Protocol::kGenerate);
  attempts_[number].stream = stream;
  by_stream_[stream] = number;
  network_.Post(self_, kStreamOpenUs, [this, number] {
    const auto attempt = attempts_.find(number);
    if (attempt != attempts_.end() && !attempt->second.open) {
      OnEnd(number, FinishReason::kError, {ErrorCode::kUnavailable, "the head cannot be reached"});
    }
  });
}

void Entry::Refused(std::uint64_t id, const Error& why, EndCause cause, bool possible) {
  const Running& running = running_.at(id);
  if (!running.generation.MayAskAgain(why, possible, network_.now())) {
    const bool late = network_.now() - running.headless_since >= kLostMaxUs;
    return Fail(id, late ? EndCause::kLost : cause, why);
  }
  network_.Post(self_, kAttemptEveryUs, [this, id] { Try(id); });
}

void Entry::OnAccepted(std::uint64_t number) {
  Attempt& attempt = attempts_.at(number);
  attempt.accepted = true;
  Running& running = running_.at(attempt.id);
  running.heard = network_.now();
  if (running.generation.was_lost()) ++resumed_;
  if (!std::exchange(running.had_head, true)) running.events.on_started();
}

void Entry::OnToken(std::uint64_t number, Position position, const SampledToken& token) {
  const auto attempt = attempts_.find(number);
  if (attempt == attempts_.end()) return;
  Running& running = running_.at(attempt->second.id);
  running.heard = network_.now();
  running.generation.OnToken(token);
  running.events.on_token(position, token);
}

void Entry::OnEnd(std::uint64_t number, FinishReason reason, const Error& error) {
  const auto found = attempts_.find(number);
  if (found == attempts_.end()) return;
  const Attempt attempt = found->second;
  Drop(number);
  if (reason == FinishReason::kStop || reason == FinishReason::kLength) { return End(attempt.id, {reason}); }
  Running& running = running_.at(attempt.id);
  if (!attempt.accepted) {
    const bool busy = error.code == ErrorCode::kOverloaded && !running.had_head;
    return Refused(attempt.id, error, busy ? EndCause::kBusy : EndCause::kNone, true);
  }
  if (!Resumption::MayPass(error)) {
    const bool engine = error.message.find(kEngineFailure) != std::string::npos;
    return Fail(attempt.id, engine ? EndCause::kEngine : EndCause::kNone, error);
  }
  running.headless_since = network_.now();
  running.generation.OnLost(network_.now());
  network_.Post(self_, 0, [this, id = attempt.id] { Try(id); });
}

// The head of a placement that was replaced may be frozen, and say nothing.
void Entry::WatchSilence(std::uint64_t id) {
  network_.Post(self_, kSilentUs, [this, id] {
    const auto found = running_.find(id);
    if (found == running_.end()) return;
    if (network_.now() - found->second.heard >= kSilentUs) LeaveSuperseded(id);
    WatchSilence(id);
  });
}

void Entry::LeaveSuperseded(std::uint64_t id) {
  const std::optional<PlacementView> placement = find_(running_.at(id).model);
  for (const auto& [number, attempt] : attempts_) {
    if (attempt.id != id || !attempt.accepted || !placement || placement->record.epoch <= attempt.epoch) continue;
    return OnEnd(number, FinishReason::kError, {ErrorCode::kUnavailable, "the model was placed anew"});
  }
}

void Entry::Drop(std::uint64_t number) {
  const auto found = attempts_.find(number);
  const Attempt attempt = found->second;
  attempts_.erase(found);
  if (attempt.stream != 0) {
    by_stream_.erase(attempt.stream);
    network_.Close(self_, attempt.stream);
  } else if (attempt.local != 0) {
    host_.Cancel(attempt.model, attempt.epoch, attempt.local);
  }
}

void Entry::Fail(std::uint64_t id, EndCause cause, const Error& error) {
  End(id, {std::nullopt, cause, running_.at(id).knew_placement, error});
}

void Entry::End(std::uint64_t id, const EntryEnd& end) {
  const EntryEvents events = std::move(running_.at(id).events);
  running_.erase(id);
  for (auto attempt = attempts_.begin(); attempt != attempts_.end();) {
    const auto one = attempt++;
    if (one->second.id == id) Drop(one->first);
  }
  if (events.on_end) events.on_end(end);
}

std::string Entry::Describe(std::uint64_t id) const {
  std::string text;
  for (const auto& [number, attempt] : attempts_) {
    if (attempt.id != id) continue;
    text += " '" + attempt.model + "' epoch " + std::to_string(attempt.epoch) +
            (attempt.stream == 0 ? " here" : " by stream " + std::to_string(attempt.stream)) +
            (attempt.accepted ? ", accepted;" : ", not accepted;");
  }
  return text.empty() ? " no attempt" : text;
}

// ---- Streams --------------------------------------------------------------------------------------------------------

void Entry::OnOpened(StreamId stream) {
  const auto found = by_stream_.find(stream);
  if (found == by_stream_.end()) return;
  Attempt& attempt = attempts_.at(found->second);
  attempt.open = true;
  const GenerationRequest request = RequestOf(running_.at(attempt.id));
  network_.Send(self_, stream, EncodeGenerate({attempt.model, request.tokens_max}, attempt.epoch));
  OpenSequence open;
  open.sampling = request.sampling;
  open.history = request.tokens;
  open.emitted = request.emitted;
  network_.Send(self_, stream, EncodeControl({{open}}, attempt.epoch));
}

void Entry::OnFrame(StreamId stream, FrameBytes frame) {
  if (const auto found = by_stream_.find(stream); found != by_stream_.end()) return OnAnswer(found->second, frame);
  if (served_.contains(stream)) Serve(stream, frame);
}

void Entry::OnAnswer(std::uint64_t number, const FrameBytes& frame) {
  if (const Result<GeneratedMessage> generated = DecodeGenerated(frame); generated.ok()) {
    switch (generated->kind) {
      case GeneratedKind::kAccepted: return OnAccepted(number);
      case GeneratedKind::kStop: return OnEnd(number, FinishReason::kStop, {});
      case GeneratedKind::kLength: return OnEnd(number, FinishReason::kLength, {});
      case GeneratedKind::kCancelled: return OnEnd(number, FinishReason::kCancelled, {});
    }
  }
  const Result<DecodedFrame> decoded = DecodeFrame(frame);
  SHOAL_CHECK(decoded.ok());
  if (const auto* failure = std::get_if<FailureMessage>(&decoded->message)) {
    return OnEnd(number, FinishReason::kError, {failure->code, failure->message});
  }
  for (const RowResult& row : std::get<ResultMessage>(decoded->message).rows) {
    OnToken(number, row.position, row.sampled);
  }
}

void Entry::OnStreamEnd(StreamId stream) {
  if (const auto found = by_stream_.find(stream); found != by_stream_.end()) {
    return OnEnd(found->second, FinishReason::kError, {ErrorCode::kUnavailable, "the connection to the head was lost"});
  }
  const auto served = served_.find(stream);
  if (served == served_.end()) return;
  const Served one = served->second;
  served_.erase(served);
  if (one.generation != 0) host_.Cancel(one.model, one.epoch, one.generation);
  network_.Close(self_, stream);
}

// At the head: Generate, then its Open.
void Entry::Serve(StreamId stream, const FrameBytes& frame) {
  Served& served = served_.at(stream);
  if (!served.asked) {
    const Result<GenerateMessage> asked = DecodeGenerate(frame);
    const Result<FrameHeader> header = ParseFrame(frame);
    SHOAL_CHECK(asked.ok() && header.ok());
    served.asked = true;
    served.model = asked->model;
    served.epoch = header->epoch;
    served.tokens_max = asked->tokens_max;
    return;
  }
  const Result<DecodedFrame> decoded = DecodeFrame(frame);
  SHOAL_CHECK(decoded.ok());
  const auto& open = std::get<OpenSequence>(std::get<ControlMessage>(decoded->message).ops.at(0));
  GenerationRequest request;
  request.tokens = open.history;
  request.emitted = open.emitted;
  request.tokens_max = served.tokens_max;
  request.sampling = open.sampling;
  const Epoch epoch = served.epoch;
  host_.Generate(
      served.model, epoch, std::move(request),
      [this, stream, model = served.model, epoch](const Result<GenerationId>& accepted) {
        const auto found = served_.find(stream);
        if (found == served_.end()) {  // cancelled meanwhile
          return accepted.ok() ? host_.Cancel(model, epoch, *accepted) : void();
        }
        if (accepted.ok()) {
          found->second.generation = *accepted;
          return network_.Send(self_, stream, EncodeGenerated({GeneratedKind::kAccepted, 0}, epoch));
        }
        const Error& error = accepted.error();
        network_.Send(self_, stream, EncodeFailure({0, 0, 0, error.code, error.message}, epoch));
        network_.Close(self_, stream);
        served_.erase(found);
      },
      [this, stream, epoch](const ScheduleEvent& event) { SendEvent(stream, epoch, event); });
}

void Entry::SendEvent(StreamId stream, Epoch epoch, const ScheduleEvent& event) {
  if (!served_.contains(stream)) return;
  if (event.token) {
    ResultMessage result;
    result.rows.push_back({0, 0, event.position, *event.token});
    network_.Send(self_, stream, EncodeResult(result, epoch));
  }
  if (!event.finish) return;
  if (*event.finish == FinishReason::kError) {
    network_.Send(self_, stream, EncodeFailure({0, 0, 0, event.error.code, event.error.message}, epoch));
  } else {
    const GeneratedKind kind = *event.finish == FinishReason::kStop ? GeneratedKind::kStop : GeneratedKind::kLength;
    network_.Send(self_, stream, EncodeGenerated({kind, 0}, epoch));
  }
  network_.Close(self_, stream);
  served_.erase(stream);
}

}  // namespace shoal::sim
