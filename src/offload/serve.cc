// The main thread computes; a second one reads, so that a call can be aborted and the node's end is seen at any time.
#include "offload/serve.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "engine/ggml_device.h"
#include "engine/llama_guard.h"
#include "offload/channel.h"
#include "offload/device_check.h"
#include "offload/process.h"
#include "runtime/bounded_queue.h"

namespace shoal {
namespace {

constexpr std::size_t kQuestionsMax = 2;                // the node asks one thing at a time
constexpr std::uint64_t kMessageBytesMax = 4ULL << 30;  // of the node, which this process trusts
constexpr std::chrono::milliseconds kForever{-1};
constexpr int kDescriptorsMax = 65536;

using Message = OffloadChannel::Message;

// Asks the node for bytes of the model file. Any thread: one question at a time.
class NodeReads {
 public:
  NodeReads(OffloadChannel& channel, BoundedQueue<Message>& inbox) : channel_(channel), inbox_(inbox) {}

  Status Read(std::uint64_t offset, std::span<std::uint8_t> out) {
    const std::lock_guard lock(asking_);
    while (!out.empty()) {
      const auto piece = static_cast<std::uint32_t>(std::min<std::size_t>(out.size(), kOffloadReadBytesMax));
      SHOAL_RETURN_IF_ERROR(channel_.Send(OffloadKind::kRead, EncodeRead({offset, piece})));
      const std::optional<Message> answer = inbox_.Pop();
      if (!answer || answer->kind != OffloadKind::kBytes) return Error{ErrorCode::kIo, "the node does not answer"};
      SHOAL_RETURN_IF_ERROR(DecodeBytes(answer->bytes, out.first(piece)));
      out = out.subspan(piece);
      offset += piece;
    }
    return {};
  }

 private:
  OffloadChannel& channel_;
  BoundedQueue<Message>& inbox_;
  std::mutex asking_;
};

class NodeReader final : public TensorReader {
 public:
  explicit NodeReader(NodeReads& reads) : reads_(reads) {}
  Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override { return reads_.Read(offset, out); }

 private:
  NodeReads& reads_;
};

class NodeSource final : public TensorSource {
 public:
  explicit NodeSource(NodeReads& reads) : reads_(reads) {}
  Result<std::unique_ptr<TensorReader>> Open() const override {
    return std::unique_ptr<TensorReader>(std::make_unique<NodeReader>(reads_));
  }

 private:
  NodeReads& reads_;
};

class OffloadServer {
 public:
  explicit OffloadServer(int socket) : channel_(socket) {}

  int Run() {
    // Detached: it ends the process, whatever the driver is doing.
    std::thread([this] {
      NameThisThread("shoal-offload");
      ReadAll();
    }).detach();
    while (std::optional<Message> message = inbox_.Pop()) {
      if (!channel_.Send(OffloadKind::kReply, EncodeReply(Answer(*message))).ok()) break;
    }
    return 0;
  }

 private:
  void ReadAll() {
    for (;;) {
      Result<Message> message = channel_.Receive(kMessageBytesMax, kForever);
      if (!message.ok()) ::_exit(0);
      if (message->kind != OffloadKind::kAbort) {
        (void)inbox_.Push(std::move(*message));
      } else if (Engine* engine = running_.load()) {
        engine->Abort();
      }
    }
  }

  OffloadReply Answer(const Message& message) {
    OffloadReply reply;
    Result<OffloadBytes> data = engine_ == nullptr ? First(message) : Next(message);
    if (data.ok()) {
      reply.data = std::move(*data);
    } else {
      reply.status = std::move(data).error();
    }
    for (SequenceId s = 0; engine_ != nullptr && s < engine_->options().sequences_max; ++s) {
      reply.lengths.push_back(engine_->Length(s));
    }
    return reply;
  }

  Result<OffloadBytes> First(const Message& message) {
    if (message.kind == OffloadKind::kSee) {
      SHOAL_ASSIGN_OR_RETURN(const std::vector<SeenDevice> seen,
                             SeeGgmlDevices(std::string(message.bytes.begin(), message.bytes.end())));
      return EncodeSeen(seen);
    }
    if (message.kind != OffloadKind::kOpen && message.kind != OffloadKind::kCheck) {
      return Error{ErrorCode::kInvalidArgument, "nothing is open"};
    }
    SHOAL_ASSIGN_OR_RETURN(OffloadOpen open, DecodeOpen(message.bytes));
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelFile> model, ModelOf(open));
    DeviceReport report;
    const bool check = message.kind == OffloadKind::kCheck;
    if (check) {  // which loads the backend when it is time
      SHOAL_ASSIGN_OR_RETURN(report, CompareWithCpu(model, open.options));
    }
    SHOAL_ASSIGN_OR_RETURN(ggml_backend_device * device, OpenGgmlDevice(open.options.device));
    report.device = GgmlDeviceText(device);
    if (check) return EncodeReport(report);
    open.options.on_progress = [this](float done) {
      return channel_.Send(OffloadKind::kProgress, EncodeProgress(done)).ok();
    };
    SHOAL_ASSIGN_OR_RETURN(engine_, Engine::Open(model, open.options));
    running_ = engine_.get();
    return EncodeEngine({engine_->memory(), report.device});
  }

  Result<std::shared_ptr<const ModelFile>> ModelOf(const OffloadOpen& open) {
    OffloadBytes header(open.header_bytes);
    SHOAL_RETURN_IF_ERROR(reads_.Read(0, header));
    return MakeModelFile(open.path, header, open.file_bytes, std::make_shared<NodeSource>(reads_));
  }

  Result<OffloadBytes> Next(const Message& message) {
    const auto encode = [](std::span<const float> values) {
      const auto* first = reinterpret_cast<const std::uint8_t*>(values.data());
      return OffloadBytes(first, first + values.size_bytes());
    };
    if (message.kind == OffloadKind::kForward) {
      SHOAL_ASSIGN_OR_RETURN(
          const OffloadForward forward,
          DecodeForward(message.bytes, static_cast<std::uint32_t>(engine_->options().batch_rows_max)));
      SHOAL_RETURN_IF_ERROR(engine_->Forward(forward.rows, forward.hidden, out_));
      return encode(out_);
    }
    if (message.kind == OffloadKind::kEmbed) {
      SHOAL_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, DecodeTokens(message.bytes));
      SHOAL_RETURN_IF_ERROR(engine_->Embed(tokens, out_));
      return encode(out_);
    }
    return NextSpan(message);
  }

  Result<OffloadBytes> NextSpan(const Message& message) {
    std::span<const std::uint8_t> rows;
    SHOAL_ASSIGN_OR_RETURN(const OffloadSpan span, DecodeSpan(message.bytes, rows));
    switch (message.kind) {
      case OffloadKind::kReadRows: return engine_->ReadRows(span.sequence, span.from, span.to);
      case OffloadKind::kRewind: SHOAL_RETURN_IF_ERROR(engine_->Rewind(span.sequence, span.from)); break;
      case OffloadKind::kCopy: SHOAL_RETURN_IF_ERROR(engine_->Copy(span.sequence, span.to_sequence, span.from)); break;
      case OffloadKind::kWriteRows:
        SHOAL_RETURN_IF_ERROR(engine_->WriteRows(span.sequence, span.from, span.to, rows));
        break;
      default: return Error{ErrorCode::kInvalidArgument, "a message of no known kind"};
    }
    return OffloadBytes();
  }

  OffloadChannel channel_;
  BoundedQueue<Message> inbox_{kQuestionsMax};
  NodeReads reads_{channel_, inbox_};
  std::unique_ptr<Engine> engine_;
  std::atomic<Engine*> running_{nullptr};
  std::vector<float> out_;
};

// Nothing of the node is held open here: its ports would stay taken after it is gone.
void CloseOthers() {
  rlimit limit{};
  const int last = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
                       ? static_cast<int>(std::min<rlim_t>(limit.rlim_cur, kDescriptorsMax))
                       : kDescriptorsMax;
  for (int fd = kOffloadDescriptor + 1; fd < last; ++fd) ::close(fd);
}

}  // namespace

int ServeOffload(int socket) {
  CloseOthers();
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
  // The node says when it is over: it may have something to end first.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
  const rlimit none{0, 0};
  (void)::setrlimit(RLIMIT_CORE, &none);  // a crash is expected, and reported
  ::setenv("GGML_NO_BACKTRACE", "1", 1);  // no thread is running yet
  LetAbortsEndTheProcess();
  static OffloadServer server(socket);  // outlives the thread that reads
  const int code = server.Run();
  std::fflush(nullptr);
  ::_exit(code);  // without what a driver does at the end of a process
}

}  // namespace shoal
