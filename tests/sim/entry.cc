// Attempts at one end, served streams at the other.
#include "sim/entry.h"

#include <algorithm>
#include <utility>

#include "wire/stream_messages.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kMovedUs = 30 * kSecond, kMovedPollUs = 100 * kMillisecond;
constexpr DurationUs kStreamOpenUs = 3 * kSecond;
constexpr DurationUs kSilentUs = 5 * kSecond;  // with resume: then another attempt is made beside the silent one
constexpr int kAttemptsMax = 12;

bool MayRetry(ErrorCode code) { return code == ErrorCode::kStale || code == ErrorCode::kUnavailable; }

}  // namespace

Entry::Entry(Network& network, Checks& checks, SimHost& host, int self, EntryRules rules, FindPlacement find)
    : network_(network), checks_(checks), host_(host), self_(self), rules_(rules), find_(std::move(find)) {}

// ---- The client's side ----------------------------------------------------------------------------------------------

void Entry::Begin(Ask& ask) {
  running_[ask.id] = {&ask, network_.now() + kMovedUs, network_.now(), 0, false};
  if (rules_.resume) WatchSilence(ask.id);
  Try(ask.id);
}

void Entry::Cancel(Ask& ask) {
  if (running_.contains(ask.id)) End(ask.id, "cancelled by its client");
}

GenerationRequest Entry::RequestOf(const Ask& ask) const {
  GenerationRequest request;
  request.tokens = ask.prompt;
  request.tokens.insert(request.tokens.end(), ask.delivered.begin(), ask.delivered.end());
  request.emitted = static_cast<std::uint32_t>(ask.delivered.size());
  request.tokens_max = ask.tokens_max - static_cast<std::int32_t>(ask.delivered.size());
  request.sampling.seed = ask.seed;
  return request;
}

void Entry::Try(std::uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  Running& running = found->second;
  const Ask& ask = *running.ask;
  // Only the end was lost.
  const bool full = static_cast<std::int32_t>(ask.delivered.size()) >= ask.tokens_max;
  if (running.stopped || full) return Complete(id, running.stopped);
  const std::optional<PlacementView> placement = find_(ask.model);
  if (!placement) return rules_.resume ? Retry(id, {ErrorCode::kUnavailable, "not placed"}) : End(id, "not placed");
  if (placement->broken) return Retry(id, {ErrorCode::kUnavailable, "cannot run now"});
  ++running.attempts;
  const std::uint64_t number = ++last_attempt_;
  const int head = NumberOf(placement->record.stages.front().node);
  const Epoch epoch = placement->record.epoch;
  attempts_[number] = {id, 0, ask.model, epoch, 0, false, false};
  if (head == self_) {
    return host_.Generate(
        ask.model, epoch, RequestOf(ask),
        [this, number, model = ask.model, epoch](const Result<GenerationId>& accepted) {
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

void Entry::Retry(std::uint64_t id, const Error& why) {
  const Running& running = running_.at(id);
  if (network_.now() > running.deadline || running.attempts >= kAttemptsMax * 10) return End(id, why.message);
  network_.Post(self_, kMovedPollUs, [this, id] { Try(id); });
}

void Entry::OnAccepted(std::uint64_t number) {
  Attempt& attempt = attempts_.at(number);
  attempt.accepted = true;
  running_.at(attempt.ask).heard = network_.now();
}

void Entry::OnToken(std::uint64_t number, Position position, const SampledToken& token) {
  const auto attempt = attempts_.find(number);
  if (attempt == attempts_.end()) return;
  Running& running = running_.at(attempt->second.ask);
  Ask& ask = *running.ask;
  running.heard = network_.now();
  const auto at = static_cast<std::size_t>(position) - ask.prompt.size();
  if (rules_.resume && !rules_.break_dedupe && at < ask.delivered.size()) return;  // another attempt was faster
  checks_.OnToken(ask, at, token.token);
  running.stopped = running.stopped || token.end;
}

void Entry::OnEnd(std::uint64_t number, FinishReason reason, const Error& error) {
  const auto found = attempts_.find(number);
  if (found == attempts_.end()) return;
  const Attempt attempt = found->second;
  Drop(number);
  Running& running = running_.at(attempt.ask);
  if (reason == FinishReason::kStop || reason == FinishReason::kLength) {
    return Complete(attempt.ask, reason == FinishReason::kStop);
  }
  if (attempt.accepted) {
    if (!rules_.resume) return End(attempt.ask, error.message);
    running.deadline = network_.now() + kMovedUs;
  } else if (!MayRetry(error.code)) {
    return End(attempt.ask, error.message);
  }
  for (const auto& [other, one] : attempts_) {
    if (one.ask == attempt.ask) return;  // that one goes on
  }
  Retry(attempt.ask, error);
}

void Entry::Complete(std::uint64_t id, bool stopped) {
  checks_.OnComplete(*running_.at(id).ask, stopped);
  End(id, {});
}

void Entry::WatchSilence(std::uint64_t id) {
  network_.Post(self_, kSilentUs, [this, id] {
    const auto found = running_.find(id);
    if (found == running_.end()) return;
    const Running& running = found->second;
    const bool silent = network_.now() - running.heard >= kSilentUs && running.attempts < kAttemptsMax;
    const bool accepted = std::any_of(attempts_.begin(), attempts_.end(),
                                      [&](const auto& one) { return one.second.ask == id && one.second.accepted; });
    const std::optional<PlacementView> placement = find_(running.ask->model);
    if (silent && accepted && placement && !placement->broken) Try(id);
    WatchSilence(id);
  });
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

void Entry::End(std::uint64_t id, const std::string& error) {
  Ask& ask = *running_.at(id).ask;
  running_.erase(id);
  ask.ended = true;
  ask.error = error;
  for (auto attempt = attempts_.begin(); attempt != attempts_.end();) {
    const auto one = attempt++;
    if (one->second.ask == id) Drop(one->first);
  }
}

std::string Entry::Describe(const Ask& ask) const {
  std::string text;
  for (const auto& [number, attempt] : attempts_) {
    if (attempt.ask != ask.id) continue;
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
  const GenerationRequest request = RequestOf(*running_.at(attempt.ask).ask);
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
