// The hashing engine of fake_engine.h and a placement over it. Knows no libllama.
#include "pipeline/fake_engine.h"

#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "engine/test_vocabularies.h"
#include "transport/memory.h"

namespace shoal {
namespace {

constexpr std::int32_t kFakeEmbd = 8;

std::uint64_t Mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = (a ^ (b + 0x9E3779B97F4A7C15 + (a << 6))) * 0xBF58476D1CE4E5B9;
  return x ^ (x >> 29);
}

std::uint64_t FromFloats(const float* values) {
  std::uint64_t hash = 0;
  for (int i = 0; i < kFakeEmbd; ++i) hash |= static_cast<std::uint64_t>(values[i]) << (8 * i);
  return hash;
}

void ToFloats(std::uint64_t hash, float* values) {
  for (int i = 0; i < kFakeEmbd; ++i) values[i] = static_cast<float>((hash >> (8 * i)) & 0xFF);
}

// Greedy sampling that ignores the end gives any token but those that end a text, which come first in the vocabulary.
TokenId TokenOf(std::uint64_t state, std::int32_t n_vocab) {
  constexpr std::int32_t kSpecial = 100;
  return static_cast<TokenId>(kSpecial + state % static_cast<std::uint64_t>(n_vocab - kSpecial));
}

std::uint64_t Embedding(TokenId token) { return Mix(0x51, static_cast<std::uint64_t>(token)); }

// One layer at one position: `before` is its cache's hash up to there.
std::uint64_t Cached(std::uint64_t before, std::uint64_t in, Position position) {
  return Mix(before, Mix(in, position));
}
std::uint64_t LayerOutput(std::uint64_t cached, std::int32_t layer) { return Mix(cached, layer); }

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(const FakeEngineOptions& fake) : fake_(fake) {
    options_.layers = fake.layers;
    options_.sequences_max = fake.sequences_max;
    options_.batch_rows_max = fake.batch_rows_max;
    options_.output_rows_max = fake.batch_rows_max;
    options_.kv_tokens_max = fake.kv_tokens_max;
    caches_.assign(fake.layers.count(), std::vector<std::vector<std::uint64_t>>(fake.sequences_max));
  }
  const EngineOptions& options() const override { return options_; }
  EngineMemory memory() const override { return {}; }
  std::int32_t n_embd() const override { return kFakeEmbd; }
  std::int32_t n_vocab() const override { return fake_.n_vocab; }
  bool is_first() const override { return fake_.layers.first == 0; }
  bool is_last() const override { return fake_.layers.last == kFakeLayers; }

  Status Embed(std::span<const TokenId> tokens, std::vector<float>& hidden) override {
    hidden.resize(tokens.size() * kFakeEmbd);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= fake_.n_vocab) return Error{ErrorCode::kInvalidArgument, "token outside"};
      ToFloats(Embedding(tokens[i]), &hidden[i * kFakeEmbd]);
    }
    return {};
  }

  Status Forward(std::span<const EngineRow> rows, std::span<const float> hidden, std::vector<float>& out) override {
    aborted_ = false;
    if (calls_++ == fake_.fail_at) return Error{ErrorCode::kInternal, "the fake engine was told to fail"};
    const auto end = std::chrono::steady_clock::now() + fake_.compute;
    SHOAL_CHECK(hidden.size() == rows.size() * kFakeEmbd);
    out.clear();
    if (!is_last()) out.resize(hidden.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      SHOAL_CHECK(rows[i].position == Length(rows[i].sequence));
      std::uint64_t state = FromFloats(&hidden[i * kFakeEmbd]);
      for (std::int32_t layer = 0; layer < fake_.layers.count(); ++layer) {
        auto& cache = caches_[layer][rows[i].sequence];
        cache.push_back(Cached(cache.empty() ? 0 : cache.back(), state, rows[i].position));
        state = LayerOutput(cache.back(), fake_.layers.first + layer);
      }
      if (!is_last()) {
        ToFloats(state, &out[i * kFakeEmbd]);
      } else if (rows[i].output) {
        out.resize(out.size() + fake_.n_vocab, 0.0F);
        out[out.size() - static_cast<std::size_t>(fake_.n_vocab - TokenOf(state, fake_.n_vocab))] = 10.0F;
      }
    }
    while (!aborted_ && std::chrono::steady_clock::now() < end) std::this_thread::sleep_until(end);
    return {};
  }
  void Abort() override { aborted_ = true; }
  Status Rewind(SequenceId sequence, Position position) override {
    for (auto& layer : caches_) {
      if (static_cast<Position>(layer[sequence].size()) > position) layer[sequence].resize(position);
    }
    return {};
  }
  Status Copy(SequenceId from, SequenceId to, Position position) override {
    for (auto& layer : caches_) {
      const auto length = std::min<std::size_t>(position, layer[from].size());
      layer[to].assign(layer[from].begin(), layer[from].begin() + static_cast<std::ptrdiff_t>(length));
    }
    return {};
  }
  Position Length(SequenceId sequence) const override { return static_cast<Position>(caches_[0][sequence].size()); }
  Result<std::vector<std::uint8_t>> ReadRows(SequenceId sequence, Position from, Position to) override {
    SHOAL_CHECK(from >= 0 && from < to && to <= Length(sequence));
    std::vector<std::uint8_t> rows;
    for (const auto& layer : caches_) {
      const auto* first = reinterpret_cast<const std::uint8_t*>(layer[sequence].data() + from);
      rows.insert(rows.end(), first, first + static_cast<std::size_t>(to - from) * sizeof(std::uint64_t));
    }
    return rows;
  }
  Status WriteRows(SequenceId sequence, Position from, Position to, std::span<const std::uint8_t> rows) override {
    const auto count = static_cast<std::size_t>(to - from);
    if (from != Length(sequence) || rows.size() != caches_.size() * count * sizeof(std::uint64_t)) {
      return Error{ErrorCode::kInvalidArgument, "not the rows that follow"};
    }
    for (std::size_t i = 0; i < caches_.size(); ++i) {
      auto& cache = caches_[i][sequence];
      cache.resize(cache.size() + count);
      std::memcpy(cache.data() + from, rows.data() + i * count * sizeof(std::uint64_t), count * sizeof(std::uint64_t));
    }
    return {};
  }

 private:
  const FakeEngineOptions fake_;
  EngineOptions options_;
  std::vector<std::vector<std::vector<std::uint64_t>>> caches_;  // [layer][sequence][position]
  std::int64_t calls_ = 0;
  std::atomic<bool> aborted_{false};
};

// One more sender into a link that somebody else sends into as well.
class SharedSender final : public FrameSender {
 public:
  SharedSender(std::shared_ptr<FrameSender> sender, std::shared_ptr<std::mutex> mutex)
      : sender_(std::move(sender)), mutex_(std::move(mutex)) {}
  Status Send(FrameBytes frame) override {
    const std::lock_guard lock(*mutex_);
    return sender_->Send(std::move(frame));
  }
  void Close() override { sender_->Close(); }

 private:
  const std::shared_ptr<FrameSender> sender_;
  const std::shared_ptr<std::mutex> mutex_;
};

}  // namespace

std::unique_ptr<Engine> MakeFakeEngine(const FakeEngineOptions& options) {
  return std::make_unique<FakeEngine>(options);
}

std::vector<TokenId> FakeAnswer(std::vector<TokenId> prompt, int count, std::int32_t n_vocab) {
  std::vector<TokenId> answer;
  std::vector<std::uint64_t> caches(kFakeLayers, 0);
  for (std::size_t i = 0; static_cast<int>(answer.size()) < count; ++i) {
    std::uint64_t state = Embedding(prompt[i]);
    for (std::int32_t layer = 0; layer < kFakeLayers; ++layer) {
      caches[layer] = Cached(caches[layer], state, static_cast<Position>(i));
      state = LayerOutput(caches[layer], layer);
    }
    if (i + 1 < prompt.size()) continue;
    answer.push_back(TokenOf(state, n_vocab));
    prompt.push_back(answer.back());
  }
  return answer;
}

SamplingParams Greedy() {
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.ignore_end = true;
  return sampling;
}

LayerRange FakeLayers(int stage, int stages) {
  return {kFakeLayers * stage / stages, kFakeLayers * (stage + 1) / stages};
}

FakePlacement::FakePlacement(const Options& options, std::vector<std::unique_ptr<Stage>> stages)
    : n_vocab_(SmolLm2Vocabulary()->size()) {
  stages.resize(static_cast<std::size_t>(options.stages));
  std::vector<std::unique_ptr<FrameReceiver>> results;
  MemoryLink input = MakeMemoryLink(kPipelineLinkFramesMax);
  const std::shared_ptr<FrameSender> first = std::move(input.sender);
  const auto mutex = std::make_shared<std::mutex>();
  injector_ = std::make_unique<SharedSender>(first, mutex);
  for (int i = 0; i < options.stages; ++i) {
    MemoryLink next, result = MakeMemoryLink(kPipelineLinkFramesMax);
    results.push_back(std::move(result.receiver));
    const std::shared_ptr<FrameSender> to_head = std::move(result.sender);
    const auto to_head_mutex = std::make_shared<std::mutex>();
    result_injector_ = std::make_unique<SharedSender>(to_head, to_head_mutex);  // the last one stays
    const bool last = i + 1 == options.stages;
    if (!last) next = MakeMemoryLink(kPipelineLinkFramesMax);
    FakeEngineOptions fake;
    fake.layers = FakeLayers(i, options.stages);
    fake.n_vocab = n_vocab_;
    fake.sequences_max = options.schedule.slots_max;
    fake.batch_rows_max = options.schedule.batch_rows_max;
    fake.kv_tokens_max = options.schedule.kv_tokens_max;
    fake.compute = options.compute;
    if (i == options.failing_stage) fake.fail_at = options.fail_at;
    if (!stages[i]) stages[i] = Stage::Over(MakeFakeEngine(fake), last ? SmolLm2Vocabulary() : nullptr);
    StageWorkerOptions worker{i, options.epoch, options.wire_type, options.sent_bytes_max};
    if (i == 0 && options.first_tells) worker.on_passed_on = [this](BatchId batch) { pipeline_->FirstPassedOn(batch); };
    workers_.push_back(std::make_unique<StageWorker>(std::move(stages[i]), worker, std::move(input.receiver),
                                                     std::move(next.sender),
                                                     std::make_unique<SharedSender>(to_head, to_head_mutex)));
    input = std::move(next);
  }
  PipelineOptions head;
  head.schedule = options.schedule;
  head.epoch = options.epoch;
  head.hold_events_max_us = options.hold_events_max_us;
  head.schedule.stages = options.stages;
  head.schedule.in_flight_max = options.stages + 1;
  for (int i = 0; i < options.stages; ++i) {
    head.schedule.stage_layers.push_back(FakeLayers(i, options.stages).count());
  }
  pipeline_ = std::make_unique<Pipeline>(loop_, head, std::make_unique<SharedSender>(first, mutex), std::move(results));
  for (const auto& worker : workers_) worker->Start();
  pipeline_->Start();
}

FakePlacement::~FakePlacement() {
  pipeline_->Stop();
  for (const auto& worker : workers_) worker->Stop();
  loop_.Stop();
}

std::vector<std::unique_ptr<Stage>> FakePlacement::TakeStages() {
  std::vector<std::unique_ptr<Stage>> stages;
  pipeline_->Stop();
  for (const auto& worker : workers_) worker->Stop();
  for (const auto& worker : workers_) stages.push_back(worker->TakeStage());
  return stages;
}

void FakePlacement::OnLoop(const std::function<void()>& task) {
  std::promise<void> done;
  loop_.Post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

}  // namespace shoal
