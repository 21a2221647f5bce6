// One question at a time; while its answer is awaited, what the process asks of the model file is answered.
#include "offload/remote_engine.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "offload/channel.h"
#include "offload/process.h"

namespace shoal {
namespace {

// Of a process that opens an engine, without a word: drivers compile.
constexpr std::chrono::milliseconds kOpenSilenceMax{300'000};

// How often somebody who waits for such a process is asked whether to go on.
constexpr std::chrono::milliseconds kAskEvery{250};

// The node's end of a process.
class Remote {
 public:
  static Result<std::unique_ptr<Remote>> Start(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                               const std::vector<std::string>& command) {
    SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<TensorReader> reader, model->source->Open());
    SHOAL_ASSIGN_OR_RETURN(OffloadProcess::Started started, OffloadProcess::Start(command));
    return std::unique_ptr<Remote>(new Remote(std::move(model), options, std::move(reader), std::move(started)));
  }
  ~Remote() {
    channel_.Shutdown();
    (void)process_->End();
  }

  // The first question. `what`: kOpen or kCheck.
  Result<OffloadReply> Open(OffloadKind what) {
    const OffloadOpen open{model_->path, model_->gguf.file_bytes, model_->gguf.data_offset, options_};
    Result<OffloadReply> reply = Call(what, EncodeOpen(open), kOffloadSmallBytesMax, kOpenSilenceMax);
    opened_ = true;
    return reply;
  }

  // Errors: kUnavailable (it is gone, and was ended if need be), kCancelled (by on_progress). What went wrong there,
  // and only that, is in the reply. `reply_bytes_max`: of the data that is asked for.
  Result<OffloadReply> Call(OffloadKind kind, std::span<const std::uint8_t> bytes, std::uint64_t reply_bytes_max,
                            std::chrono::milliseconds silence_max) {
    if (lost_) return *lost_;
    Status sent = channel_.Send(kind, bytes);
    while (sent.ok()) {
      if (!opened_ && !GoOn(silence_max)) return Lose({ErrorCode::kCancelled, "loading was cancelled"});
      Result<OffloadChannel::Message> got = channel_.Receive(reply_bytes_max + kOffloadSmallBytesMax, silence_max);
      if (!got.ok()) return Lose(got.error());
      if (got->kind == OffloadKind::kReply) {
        Result<OffloadReply> reply = DecodeReply(got->bytes, options_.sequences_max);
        if (!reply.ok()) return Lose(reply.error());
        return reply;
      }
      sent = Serve(*got);
    }
    return Lose(sent.error());
  }

  void Abort() { (void)channel_.Send(OffloadKind::kAbort, {}); }
  const std::optional<Error>& lost() const { return lost_; }

  // Ends the process. kCancelled stays what it is; else how the process ended is part of what is said.
  Error Lose(const Error& why) {
    if (lost_) return *lost_;
    channel_.Shutdown();
    const bool silent = why.code == ErrorCode::kCancelled && !cancelled_;
    const std::string how = process_->End();
    lost_ = cancelled_ ? why
                       : Error{ErrorCode::kUnavailable, "the process of " + DeviceChoiceText(options_.device) + " " +
                                                            (silent ? "said nothing for long, and " : "") + how};
    if (!cancelled_ && !silent && why.code != ErrorCode::kUnavailable) lost_->message += ": " + why.message;
    return *lost_;
  }

 private:
  Remote(std::shared_ptr<const ModelFile> model, const EngineOptions& options, std::unique_ptr<TensorReader> reader,
         OffloadProcess::Started started)
      : model_(std::move(model)),
        options_(options),
        reader_(std::move(reader)),
        process_(std::move(started.process)),
        channel_(started.socket) {}

  // Waits for a word of the process; false when none came for `silence_max`, or nobody wants it any more.
  bool GoOn(std::chrono::milliseconds silence_max) {
    for (auto waited = kAskEvery; !channel_.Await(kAskEvery); waited += kAskEvery) {
      cancelled_ = options_.on_progress && !options_.on_progress(done_);
      if (cancelled_ || waited >= silence_max) return false;
    }
    return true;
  }

  Status Serve(const OffloadChannel::Message& message) {
    if (message.kind == OffloadKind::kProgress) {
      SHOAL_ASSIGN_OR_RETURN(done_, DecodeProgress(message.bytes));
      cancelled_ = options_.on_progress && !options_.on_progress(done_);
      return cancelled_ ? Status(Error{ErrorCode::kCancelled, "loading was cancelled"}) : Status();
    }
    if (message.kind != OffloadKind::kRead) return Error{ErrorCode::kCorrupt, "a broken message: of no known kind"};
    SHOAL_ASSIGN_OR_RETURN(const OffloadRead read, DecodeRead(message.bytes));
    piece_.resize(read.bytes);
    const Status done = reader_->Read(read.offset, piece_);
    return channel_.Send(OffloadKind::kBytes, EncodeBytes(done, done.ok() ? piece_ : OffloadBytes()));
  }

  const std::shared_ptr<const ModelFile> model_;
  const EngineOptions options_;
  const std::unique_ptr<TensorReader> reader_;
  const std::unique_ptr<OffloadProcess> process_;
  OffloadChannel channel_;
  OffloadBytes piece_;
  std::optional<Error> lost_;
  bool opened_ = false;
  float done_ = 0;  // of what is loaded
  bool cancelled_ = false;
};

class RemoteEngine final : public Engine {
 public:
  RemoteEngine(std::unique_ptr<Remote> remote, const ModelInfo& info, const EngineOptions& options,
               const EngineMemory& memory, OffloadOptions offload)
      : remote_(std::move(remote)),
        options_(options),
        memory_(memory),
        n_embd_(info.n_embd),
        n_vocab_(info.n_vocab),
        is_last_(options.layers.last == info.n_layer),
        offload_(std::move(offload)),
        lengths_(static_cast<std::size_t>(options.sequences_max), 0) {}

  const EngineOptions& options() const override { return options_; }
  EngineMemory memory() const override { return memory_; }
  std::int32_t n_embd() const override { return n_embd_; }
  std::int32_t n_vocab() const override { return n_vocab_; }
  bool is_first() const override { return options_.layers.first == 0; }
  bool is_last() const override { return is_last_; }

  Status Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) override {
    SHOAL_CHECK(is_first());
    const std::size_t values = tokens.size() * Width(n_embd());
    SHOAL_ASSIGN_OR_RETURN(const OffloadBytes data,
                           Ask(OffloadKind::kEmbed, EncodeTokens(tokens), values * sizeof(float)));
    return Take(data, values, hidden);
  }

  Status Forward(std::span<const EngineRow> rows, std::span<const float> hidden, std::vector<float>& out) override {
    SHOAL_CHECK(!rows.empty() && rows.size() <= Width(options_.batch_rows_max));
    SHOAL_CHECK(hidden.size() == rows.size() * Width(n_embd()));
    const auto outputs = static_cast<std::size_t>(
        std::count_if(rows.begin(), rows.end(), [](const EngineRow& row) { return row.output; }));
    const std::size_t values = is_last() ? outputs * Width(n_vocab()) : rows.size() * Width(n_embd());
    const std::uint64_t shape = std::uint64_t{1} << std::bit_width(rows.size());
    SHOAL_ASSIGN_OR_RETURN(const OffloadBytes data,
                           Ask(OffloadKind::kForward, EncodeForward(rows, hidden), values * sizeof(float),
                               (shapes_ & shape) == 0 ? offload_.first_silence_max : offload_.silence_max));
    shapes_ |= shape;
    return Take(data, values, out);
  }

  void Abort() override { remote_->Abort(); }

  Status Rewind(SequenceId sequence, Position position) override {
    if (remote_->lost()) return {};  // the next Forward says so
    return Done(Ask(OffloadKind::kRewind, EncodeSpan({sequence, 0, position, 0}), 0));
  }

  Status Copy(SequenceId from, SequenceId to, Position position) override {
    if (remote_->lost()) return {};
    return Done(Ask(OffloadKind::kCopy, EncodeSpan({from, to, position, 0}), 0));
  }

  Position Length(SequenceId sequence) const override { return lengths_[static_cast<std::size_t>(sequence)]; }

  Result<std::vector<std::uint8_t>> ReadRows(SequenceId sequence, Position from, Position to) override {
    return Ask(OffloadKind::kReadRows, EncodeSpan({sequence, 0, from, to}), KvBytesMax());
  }

  Status WriteRows(SequenceId sequence, Position from, Position to, std::span<const std::uint8_t> rows) override {
    return Done(Ask(OffloadKind::kWriteRows, EncodeSpan({sequence, 0, from, to}, rows), 0));
  }

 private:
  static std::size_t Width(std::int32_t n) { return static_cast<std::size_t>(n); }
  static Status Done(Result<OffloadBytes> asked) { return asked.ok() ? Status() : Status(std::move(asked).error()); }
  // Of the cache, which may lie elsewhere and then is in nobody's count.
  std::uint64_t KvBytesMax() const { return memory_.kv_bytes + kRowsBytesMax; }

  Result<OffloadBytes> Ask(OffloadKind kind, const OffloadBytes& question, std::uint64_t bytes_max) {
    return Ask(kind, question, bytes_max, offload_.silence_max);
  }

  Result<OffloadBytes> Ask(OffloadKind kind, const OffloadBytes& question, std::uint64_t bytes_max,
                           std::chrono::milliseconds silence_max) {
    const bool was_lost = remote_->lost().has_value();
    Result<OffloadReply> reply = remote_->Call(kind, question, bytes_max, silence_max);
    if (reply.ok()) {
      if (!reply->lengths.empty()) lengths_ = std::move(reply->lengths);
      if (reply->status.ok()) return std::move(reply->data);
      // What is half done there may crash next: it is not used again.
      if (reply->status.error().code != ErrorCode::kInternal) return std::move(reply->status).error();
      reply = remote_->Lose(reply->status.error());
    }
    if (!was_lost && offload_.on_lost) offload_.on_lost(reply.error());
    return std::move(reply).error();
  }

  Status Take(const OffloadBytes& data, std::size_t values, std::vector<float>& out) {
    const Status taken = DecodeFloats(data, values, out);
    if (taken.ok()) return {};
    const Error lost = remote_->Lose(taken.error());
    if (offload_.on_lost) offload_.on_lost(lost);
    return lost;
  }

  static constexpr std::uint64_t kRowsBytesMax = 256U << 20;  // of one ReadRows whose cache is on the device

  const std::unique_ptr<Remote> remote_;
  const EngineOptions options_;
  const EngineMemory memory_;
  const std::int32_t n_embd_, n_vocab_;  // of the model as it is known here
  const bool is_last_;
  const OffloadOptions offload_;
  std::vector<Position> lengths_;
  std::uint64_t shapes_ = 0;  // passes that were run: a bit for each number of bits in a number of rows
};

}  // namespace

Result<OffloadedEngine> OpenOffloaded(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                      OffloadOptions offload) {
  SHOAL_CHECK(!options.device.none());
  SHOAL_ASSIGN_OR_RETURN(auto remote, Remote::Start(model, options, offload.command));
  SHOAL_ASSIGN_OR_RETURN(const OffloadReply reply, remote->Open(OffloadKind::kOpen));
  if (!reply.status.ok()) return reply.status.error();
  Result<OffloadEngine> about = DecodeEngine(reply.data);
  if (!about.ok()) return remote->Lose(about.error());
  return OffloadedEngine{
      std::make_unique<RemoteEngine>(std::move(remote), model->info, options, about->memory, std::move(offload)),
      std::move(about->device)};
}

Result<DeviceReport> CheckOffloaded(std::shared_ptr<const ModelFile> model, const EngineOptions& options,
                                    const std::vector<std::string>& command) {
  SHOAL_CHECK(!options.device.none());
  SHOAL_ASSIGN_OR_RETURN(auto remote, Remote::Start(std::move(model), options, command));
  SHOAL_ASSIGN_OR_RETURN(const OffloadReply reply, remote->Open(OffloadKind::kCheck));
  if (!reply.status.ok()) return reply.status.error();
  Result<DeviceReport> report = DecodeReport(reply.data);
  if (!report.ok()) return remote->Lose(report.error());
  return report;
}

}  // namespace shoal
