// A real head and a real server on a Unix socket; of the periods of its passes what they did not compute is the cost.
#include "node/token_cost.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>
#include <utility>

#include "api/server.h"
#include "api/unix_socket.h"
#include "base/socket.h"
#include "device/cpu_affinity.h"
#include "engine/pass_time.h"
#include "engine/vocabulary.h"
#include "node/head.h"

namespace shoal {
namespace {

constexpr double kPass_s = 2e-3;               // of processor time on each core, in place of a stage's
constexpr std::size_t kReadBytes = 32U << 20;  // more than most caches hold; by all cores together
constexpr std::size_t kLineWords = 8;          // of a cache's line, 64 bytes
constexpr std::size_t kLinesAtOnce = 256;      // between two looks at the clock
constexpr int kTokens = 96, kTokensMin = 16;
constexpr std::int32_t kContext = 256;
constexpr std::chrono::seconds kSilenceMax{60};  // only a hang takes so long, also on a machine that is busy
constexpr double kLeast_s = 1e-7;

// Threads on given cores, which wait for their next turn awake, as a stage's do between two passes. They read memory
// all the time, as a stage reads weights: what other threads left in caches is not there when these run again.
class BusyCores {
 public:
  explicit BusyCores(std::vector<int> cpus) : cpus_(std::move(cpus)), memory_(kReadBytes / sizeof(std::uint64_t), 1) {
    for (std::size_t i = 1; i < cpus_.size(); ++i) {
      threads_.emplace_back([this, i] { Follow(i); });
    }
  }
  ~BusyCores() {
    ending_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  BusyCores(const BusyCores&) = delete;
  BusyCores& operator=(const BusyCores&) = delete;

  // All cores compute for kPass_s; the calling thread is the first core's.
  void Pass() {
    if (!std::exchange(placed_, true)) (void)PinThisThread(std::vector<int>{cpus_.front()});
    done_ = 0;
    ++turn_;
    at_ = Read(at_);
    while (done_ < threads_.size() && !ending_) {}
  }

 private:
  // From word `at` on, around. Where to go on.
  std::size_t Read(std::size_t at) {
    const double end = PassTime(true) + kPass_s;
    std::uint64_t sum = 0;
    while (PassTime(true) < end) {
      for (std::size_t i = 0; i < kLinesAtOnce; ++i, at = (at + kLineWords) % memory_.size()) sum += memory_[at];
    }
    sum_ += sum;
    return at;
  }
  void Follow(std::size_t index) {
    (void)PinThisThread(std::vector<int>{cpus_[index]});
    std::size_t at = memory_.size() / cpus_.size() * index / kLineWords * kLineWords;
    for (std::uint64_t seen = 0; !ending_;) {
      if (turn_ == seen) continue;
      seen = turn_;
      at = Read(at);
      ++done_;
    }
  }

  const std::vector<int> cpus_;
  const std::vector<std::uint64_t> memory_;
  bool placed_ = false;
  std::size_t at_ = 0;
  std::atomic<std::uint64_t> sum_{0};  // so that the reads are not left out
  std::atomic<bool> ending_{false};
  std::atomic<std::uint64_t> turn_{0};
  std::atomic<std::size_t> done_{0};
  std::vector<std::thread> threads_;
};

// Periods of the passes of one row, on `cores` cores; of processor time where a ration would be in them.
class Periods {
 public:
  Periods(bool rationed, std::size_t cores) : rationed_(rationed), cores_(static_cast<double>(cores)) {}
  void Begins() {
    // While this is measured the process does little else.
    const double now = rationed_ ? ClockSeconds(CLOCK_PROCESS_CPUTIME_ID) / cores_ : PassTime(false);
    const std::lock_guard lock(mutex_);
    if (last_ > 0) seconds_.push_back(now - last_);
    last_ = now;
  }
  std::vector<double> Take() {
    const std::lock_guard lock(mutex_);
    return std::move(seconds_);
  }

 private:
  const bool rationed_;
  const double cores_;
  std::mutex mutex_;
  double last_ = 0;
  std::vector<double> seconds_;
};

// A whole model of no layers: any token may follow.
class EmptyEngine final : public Engine {
 public:
  EmptyEngine(std::int32_t n_vocab, const std::vector<int>& cpus, Periods& periods)
      : n_vocab_(n_vocab), cores_(cpus), periods_(periods) {
    options_.kv_tokens_max = kContext;
    options_.sequences_max = 1;
  }
  const EngineOptions& options() const override { return options_; }
  EngineMemory memory() const override { return {}; }
  std::int32_t n_embd() const override { return 1; }
  std::int32_t n_vocab() const override { return n_vocab_; }
  bool is_first() const override { return true; }
  bool is_last() const override { return true; }
  Status Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) override {
    hidden.assign(tokens.size(), 0);
    return {};
  }
  Status Forward(std::span<const EngineRow> rows, std::span<const float> /*hidden*/, std::vector<float>& out) override {
    if (rows.size() == 1) periods_.Begins();
    cores_.Pass();
    length_ += static_cast<Position>(rows.size());
    const auto outputs = std::count_if(rows.begin(), rows.end(), [](const EngineRow& row) { return row.output; });
    out.resize(static_cast<std::size_t>(outputs) * static_cast<std::size_t>(n_vocab_));  // zeros when it first grows
    return {};
  }
  void Abort() override {}
  Status Rewind(SequenceId /*sequence*/, Position position) override {
    length_ = std::min(length_, position);
    return {};
  }
  Status Copy(SequenceId /*from*/, SequenceId /*to*/, Position /*position*/) override {
    return Error{ErrorCode::kUnsupported, "there is one sequence"};
  }
  Position Length(SequenceId /*sequence*/) const override { return length_; }

 private:
  EngineOptions options_;
  const std::int32_t n_vocab_;
  BusyCores cores_;
  Periods& periods_;
  Position length_ = 0;
};

// One model, by a head.
class HeadService final : public Service, public Backend, public std::enable_shared_from_this<HeadService> {
 public:
  HeadService(std::shared_ptr<Head> head, std::shared_ptr<const Vocabulary> vocabulary)
      : head_(std::move(head)), vocabulary_(std::move(vocabulary)) {}
  ModelCard model() const override { return {"model", 0, kContext}; }
  const Vocabulary& vocabulary() const override { return *vocabulary_; }
  std::shared_ptr<const Vocabulary> shared_vocabulary() const override { return vocabulary_; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return nullptr; }
  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options) override {
    return head_->Generate(std::move(options));
  }
  std::vector<ModelCard> models() override { return {model()}; }
  std::shared_ptr<Backend> Find(const std::string& /*name*/) override { return shared_from_this(); }
  bool healthy() const override { return true; }
  MetricsRegistry& metrics() override { return metrics_; }
  void RefreshMetrics() override {}

 private:
  const std::shared_ptr<Head> head_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  MetricsRegistry metrics_;
};

// Asks for an answer of kTokens and reads it to its end.
Status Ask(const std::string& socket_path) {
  const std::string body =
      R"({"prompt":[0],"temperature":0,"ignore_eos":true,"stream":true,"max_tokens":)" + std::to_string(kTokens) + "}";
  const std::string request =
      "POST /v1/completions HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
      "Content-Type: application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  SHOAL_RETURN_IF_ERROR(CheckSocketPath(socket_path));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return Error{ErrorCode::kInternal, "no socket"};
  timeval limit{};
  limit.tv_sec = static_cast<decltype(limit.tv_sec)>(kSilenceMax.count());
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  bool whole = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
               ::send(fd, request.data(), request.size(), kNoSignal) == static_cast<ssize_t>(request.size());
  char piece[4096];
  while (whole) {
    const ssize_t n = ::recv(fd, piece, sizeof piece, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) break;
    whole = n > 0;
  }
  ::close(fd);
  return whole ? Status() : Error{ErrorCode::kInternal, "the answer of nothing did not end"};
}

}  // namespace

Result<double> MeasureTokenCost(const std::shared_ptr<const ModelFile>& model, const std::vector<int>& cpus,
                                double ration, const std::string& folder) {
  if (cpus.empty()) return Error{ErrorCode::kInternal, "no cores are known"};
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const Vocabulary> vocabulary, Vocabulary::Open(model));
  Periods periods(ration < 1, cpus.size());
  HeadOptions options;
  options.schedule.slots_max = 1;
  options.schedule.kv_tokens_max = options.context_tokens = kContext;
  options.n_vocab = vocabulary->size();
  {
    const std::shared_ptr<Head> head =
        Head::Start(options, Stage::Over(std::make_unique<EmptyEngine>(vocabulary->size(), cpus, periods), vocabulary),
                    nullptr, {});
    ServerOptions server_options;
    server_options.unix_socket = folder + "/speed-test.sock";
    server_options.connections_max = 2;
    const auto server = Server::Make(std::make_shared<HeadService>(head, vocabulary), server_options);
    SHOAL_RETURN_IF_ERROR(server->Start());
    const Status asked = Ask(server_options.unix_socket);
    server->Stop(0);
    SHOAL_RETURN_IF_ERROR(asked);
  }
  std::vector<double> seconds = periods.Take();
  if (seconds.size() < kTokensMin) return Error{ErrorCode::kInternal, "the answer of nothing was too short"};
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return std::max(*middle - kPass_s, kLeast_s);
}

}  // namespace shoal
