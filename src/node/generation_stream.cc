// Both ends of a generate stream. Each end has a thread that only reads: at the entry node it turns frames into events,
// at the head it waits for the stream to close, which is how a cancelled request shows.
#include "node/generation_stream.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "runtime/bounded_queue.h"
#include "runtime/start_thread.h"
#include "wire/messages.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

constexpr std::size_t kEventsMax = 1024;               // then the stream's own back-pressure holds the head
constexpr std::chrono::milliseconds kCancelPoll{100};  // how soon a head sees that nobody listens any more

Error Lost() { return {ErrorCode::kUnavailable, "the connection to the head of the placement was lost"}; }

GenerationEvent Ended(GenerationEnd end, Error error = {}) {
  GenerationEvent event;
  event.end = end;
  event.error = std::move(error);
  return event;
}

GenerationEnd EndOf(GeneratedKind kind) {
  switch (kind) {
    case GeneratedKind::kStop: return GenerationEnd::kStop;
    case GeneratedKind::kLength: return GenerationEnd::kLength;
    case GeneratedKind::kCancelled: return GenerationEnd::kCancelled;
    case GeneratedKind::kAccepted: break;
  }
  return GenerationEnd::kError;
}

GeneratedKind KindOf(GenerationEnd end) {
  switch (end) {
    case GenerationEnd::kStop: return GeneratedKind::kStop;
    case GenerationEnd::kLength: return GeneratedKind::kLength;
    case GenerationEnd::kCancelled:
    case GenerationEnd::kError: break;
  }
  return GeneratedKind::kCancelled;
}

Result<FailureMessage> AsFailure(std::span<const std::uint8_t> frame) {
  SHOAL_ASSIGN_OR_RETURN(DecodedFrame decoded, DecodeFrame(frame));
  if (auto* failure = std::get_if<FailureMessage>(&decoded.message)) return std::move(*failure);
  return Error{ErrorCode::kCorrupt, "a frame of another type than expected"};
}

class RemoteGeneration final : public GenerationHandle {
 public:
  explicit RemoteGeneration(StreamLink stream) : stream_(std::move(stream)), events_(kEventsMax) {}
  Status Start() {
    SHOAL_ASSIGN_OR_RETURN(reader_, StartThread("shoal-remote", [this] { Read(); }));
    return {};
  }
  ~RemoteGeneration() override {
    events_.Close();
    stream_.sender->Close();
    stream_.receiver->Close();
    if (reader_.joinable()) reader_.join();
  }
  RemoteGeneration(const RemoteGeneration&) = delete;
  RemoteGeneration& operator=(const RemoteGeneration&) = delete;

  std::optional<GenerationEvent> Next(std::chrono::milliseconds timeout) override { return events_.PopFor(timeout); }
  std::int32_t reused_tokens() const override { return reused_tokens_.load(); }

 private:
  void Read() {
    while (std::optional<FrameBytes> frame = stream_.receiver->Receive()) {
      const Result<bool> more = Take(*frame);
      if (more.ok() && *more) continue;
      if (!more.ok()) events_.Push(Ended(GenerationEnd::kError, more.error()));
      return;
    }
    events_.Push(Ended(GenerationEnd::kError, Lost()));
  }

  // False after the last frame of the generation.
  Result<bool> Take(const FrameBytes& frame) {
    SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrame(frame));
    if (header.type == FrameType::kGenerated) {
      SHOAL_ASSIGN_OR_RETURN(const GeneratedMessage message, DecodeGenerated(frame));
      reused_tokens_ = message.reused_tokens;
      if (message.kind == GeneratedKind::kAccepted) return true;
      events_.Push(Ended(EndOf(message.kind)));
      return false;
    }
    SHOAL_ASSIGN_OR_RETURN(DecodedFrame decoded, DecodeFrame(frame));
    if (auto* failure = std::get_if<FailureMessage>(&decoded.message)) {
      return Error{failure->code, std::move(failure->message)};
    }
    auto* result = std::get_if<ResultMessage>(&decoded.message);
    if (result == nullptr) return Error{ErrorCode::kCorrupt, "the head sent a frame that is not an answer"};
    for (RowResult& row : result->rows) {
      GenerationEvent event;
      event.token = std::move(row.sampled);
      events_.Push(std::move(event));
    }
    return true;
  }

  StreamLink stream_;
  BoundedQueue<GenerationEvent> events_;
  std::atomic<std::int32_t> reused_tokens_{0};
  std::thread reader_;
};

// What the head reads before it starts: Generate, then a Control with one Open.
struct Asked {
  Epoch epoch = 0;
  std::string model;
  GenerateOptions options;
};

Result<Asked> ReadRequest(FrameReceiver& receiver) {
  std::optional<FrameBytes> first = receiver.Receive();
  if (!first) return Lost();
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrame(*first));
  SHOAL_ASSIGN_OR_RETURN(GenerateMessage generate, DecodeGenerate(*first));
  std::optional<FrameBytes> second = receiver.Receive();
  if (!second) return Lost();
  SHOAL_ASSIGN_OR_RETURN(DecodedFrame decoded, DecodeFrame(*second));
  auto* control = std::get_if<ControlMessage>(&decoded.message);
  auto* open =
      control != nullptr && control->ops.size() == 1 ? std::get_if<OpenSequence>(control->ops.data()) : nullptr;
  if (open == nullptr) return Error{ErrorCode::kCorrupt, "a generation's request without its prompt"};
  Asked asked;
  asked.epoch = header.epoch;
  asked.model = std::move(generate.model);
  asked.options = {std::move(open->history), std::move(open->sampling), generate.tokens_max, open->emitted};
  return asked;
}

FrameBytes FailureFrame(const Error& error, Epoch epoch) {
  return EncodeFailure(FailureMessage{0, 0, 0, error.code, error.message}, epoch);
}

// From events to frames until the end; false once nobody reads them.
bool Forward(GenerationHandle& handle, FrameSender& sender, Epoch epoch, const std::atomic<bool>& cancelled) {
  while (!cancelled) {
    std::optional<GenerationEvent> event = handle.Next(kCancelPoll);
    if (!event) continue;
    if (event->end == GenerationEnd::kError) return sender.Send(FailureFrame(event->error, epoch)).ok();
    if (event->token) {
      ResultMessage result;
      result.rows.emplace_back();
      result.rows.back().sampled = std::move(*event->token);
      if (!sender.Send(EncodeResult(result, epoch)).ok()) return false;
    }
    if (event->end) return sender.Send(EncodeGenerated({KindOf(*event->end), handle.reused_tokens()}, epoch)).ok();
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<GenerationHandle>> OpenRemoteGeneration(StreamLink stream, Epoch epoch, const std::string& model,
                                                               GenerateOptions options) {
  const std::int32_t tokens_max =
      options.tokens_max > 0 ? options.tokens_max : std::numeric_limits<std::int32_t>::max();
  SHOAL_RETURN_IF_ERROR(stream.sender->Send(EncodeGenerate({model, tokens_max}, epoch)));
  OpenSequence open;
  open.sampling = std::move(options.sampling);
  open.history = std::move(options.prompt);
  open.emitted = options.emitted;
  if (open.history.size() > kHistoryMax) {
    return Error{ErrorCode::kContextFull, "the prompt has more than " + std::to_string(kHistoryMax) + " tokens"};
  }
  ControlMessage control;
  control.ops.emplace_back(std::move(open));
  SHOAL_RETURN_IF_ERROR(stream.sender->Send(EncodeControl(control, epoch)));

  const std::optional<FrameBytes> answer = stream.receiver->Receive();
  if (!answer) return Lost();
  if (!DecodeGenerated(*answer).ok()) {
    SHOAL_ASSIGN_OR_RETURN(FailureMessage failure, AsFailure(*answer));
    return Error{failure.code, std::move(failure.message)};
  }
  auto generation = std::make_unique<RemoteGeneration>(std::move(stream));
  SHOAL_RETURN_IF_ERROR(generation->Start());
  return std::unique_ptr<GenerationHandle>(std::move(generation));
}

void ServeGeneration(StreamLink stream, const StartGenerationAt& start) {
  Result<Asked> asked = ReadRequest(*stream.receiver);
  const Epoch epoch = asked.ok() ? asked->epoch : 0;
  Result<std::unique_ptr<GenerationHandle>> handle =
      asked.ok() ? start(epoch, asked->model, std::move(asked->options)) : asked.error();
  if (!handle.ok()) {
    static_cast<void>(stream.sender->Send(FailureFrame(handle.error(), epoch)));  // nobody there: nobody to tell
    stream.sender->Close();
    return;
  }
  std::atomic<bool> cancelled{false};
  Result<std::thread> reader = StartThread("shoal-remote", [&] {
    while (stream.receiver->Receive()) {}  // the asker says nothing more: what matters is the end
    cancelled = true;
  });
  if (!reader.ok()) {
    static_cast<void>(stream.sender->Send(FailureFrame(reader.error(), epoch)));
    return stream.sender->Close();
  }
  if (stream.sender->Send(EncodeGenerated({GeneratedKind::kAccepted, (*handle)->reused_tokens()}, epoch)).ok()) {
    Forward(**handle, *stream.sender, epoch, cancelled);
  }
  handle->reset();
  stream.sender->Close();
  stream.receiver->Close();
  reader->join();
}

}  // namespace shoal
