// Stages are lost in the middle of answers and replaced by fresh ones: the others go over to a new epoch with what they
// hold. The answers are those of an undisturbed run, and only what was lost is computed again.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/test_models.h"
#include "engine/test_vocabularies.h"
#include "engine/vocabulary.h"
#include "model/model_info.h"
#include "pipeline/fake_engine.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr std::chrono::seconds kPatience{600};  // only a hang takes so long, also with sanitizers

// The entry nodes' part: every generation with what it has, asked for again after each loss.
class Clients {
 public:
  void Add(GenerationId id, std::vector<TokenId> prompt, int answer) {
    Client& client = clients_[id];
    client.prompt = std::move(prompt);
    client.wanted = answer;
  }
  void SubmitAll(FakePlacement& placement) {
    placement.OnLoop([&] {
      const std::lock_guard lock(mutex_);
      for (auto& [id, client] : clients_) {
        if (client.ended) continue;
        GenerationRequest request;
        request.id = id;
        request.tokens = client.prompt;
        request.tokens.insert(request.tokens.end(), client.tokens.begin(), client.tokens.end());
        request.emitted = static_cast<std::uint32_t>(client.tokens.size());
        request.tokens_max = client.wanted - static_cast<int>(client.tokens.size());
        request.sampling = Greedy();
        const Status status = placement.pipeline().Submit(std::move(request), [this](const auto& e) { Take(e); });
        EXPECT_TRUE(status.ok()) << status.error().message;
      }
    });
  }
  // Until all have ended, or `tokens` have come in all.
  bool Wait(std::size_t tokens) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return received_ >= tokens || ended_ == clients_.size(); });
  }
  bool WaitForAll() { return Wait(static_cast<std::size_t>(-1)); }
  std::size_t received() {
    const std::lock_guard lock(mutex_);
    return received_;
  }
  std::size_t tokens_of(GenerationId id) {
    const std::lock_guard lock(mutex_);
    return clients_[id].prompt.size() + clients_[id].tokens.size();
  }
  std::vector<TokenId> answer(GenerationId id) {
    const std::lock_guard lock(mutex_);
    return clients_[id].tokens;
  }
  void Expect(std::int32_t n_vocab) {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, client] : clients_) {
      EXPECT_EQ(client.error, "") << "generation " << id;
      EXPECT_EQ(client.tokens, FakeAnswer(client.prompt, client.wanted, n_vocab)) << "generation " << id;
    }
  }

 private:
  struct Client {
    std::vector<TokenId> prompt, tokens;
    int wanted = 0;
    bool ended = false;
    std::string error;
  };
  void Take(const ScheduleEvent& event) {
    const std::lock_guard lock(mutex_);
    Client& client = clients_[event.generation];
    if (event.token) {
      EXPECT_EQ(event.position, static_cast<Position>(client.prompt.size() + client.tokens.size()));
      client.tokens.push_back(event.token->token);
      ++received_;
    }
    if (event.finish && (event.finish != FinishReason::kError || event.error.code != ErrorCode::kUnavailable)) {
      if (event.finish == FinishReason::kError) client.error = event.error.message;
      client.ended = true;
      ++ended_;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<GenerationId, Client> clients_;
  std::size_t received_ = 0, ended_ = 0;
};

std::vector<TokenId> Prompt(std::uint64_t seed, int count) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>((seed * 7919 + i * 31) % 40000));
  return tokens;
}

ScheduleStats StatsOf(FakePlacement& placement) {
  ScheduleStats stats;
  placement.OnLoop([&] { stats = placement.pipeline().stats(); });
  return stats;
}

// A placement through its epochs.
struct Takeover {
  Takeover() { options.sent_bytes_max = 1 << 20; }
  void Make() { placement = std::make_unique<FakePlacement>(options); }
  // The next epoch, with fresh stages where some are lost.
  void Lose(const std::set<int>& lost) {
    std::vector<std::unique_ptr<Stage>> stages = placement->TakeStages();
    for (const int stage : lost) stages[stage].reset();
    ++options.epoch;
    placement = std::make_unique<FakePlacement>(options, std::move(stages));
    clients.SubmitAll(*placement);
  }

  FakePlacement::Options options;
  Clients clients;  // outlives the pipelines
  std::unique_ptr<FakePlacement> placement;
};

// One generation is lost after a while; the stages `computed`, and no others, run again what they had run before.
void ExpectCost(FakePlacement::Options options, const std::set<int>& lost, const std::set<int>& computed) {
  Takeover run;
  run.options = options;
  run.options.compute = std::chrono::microseconds(50);
  run.Make();
  run.clients.Add(1, Prompt(5, 300), 60);
  run.clients.SubmitAll(*run.placement);
  ASSERT_TRUE(run.clients.Wait(30));
  run.placement->pipeline().Stop();
  const auto rows = static_cast<std::uint64_t>(run.clients.tokens_of(1)) - 1;
  run.Lose(lost);
  ASSERT_TRUE(run.clients.WaitForAll());
  run.clients.Expect(run.placement->n_vocab());

  const ScheduleStats stats = StatsOf(*run.placement);
  std::uint64_t layers = 0, rows_run = 0;
  for (const int stage : computed) layers += static_cast<std::uint64_t>(FakeLayers(stage, options.stages).count());
  EXPECT_EQ(stats.recovery.generations, 1U);
  EXPECT_EQ(stats.recovery.row_layers, rows * layers);
  EXPECT_EQ(stats.recovery.row_layers_from_nothing, rows * kFakeLayers);
  EXPECT_EQ(stats.preemptions, 0U);
  for (int i = 0; i < options.stages; ++i) {
    const StageWorkerStats worker = run.placement->worker(i).stats();
    rows_run += worker.rows * static_cast<std::uint64_t>(FakeLayers(i, options.stages).count());
    EXPECT_LE(worker.sent_bytes, options.sent_bytes_max);
  }
  EXPECT_EQ(rows_run, stats.row_layers_whole + stats.row_layers_filled);  // what is counted was run
}

FakePlacement::Options Stages(int count, std::uint64_t sent_bytes_max = 1 << 20) {
  FakePlacement::Options options;
  options.stages = count;
  options.sent_bytes_max = sent_bytes_max;
  return options;
}

TEST(TakeoverCost, OneLostStageOfAnyIsAllThatIsComputedAgain) {
  for (int stages = 1; stages <= 5; ++stages) {
    for (int lost = 0; lost < stages; ++lost) {
      SCOPED_TRACE(std::to_string(lost) + " of " + std::to_string(stages));
      ExpectCost(Stages(stages), {lost}, {lost});
    }
  }
}

TEST(TakeoverCost, AnyTwoLostAtOnce) {
  for (int stages = 3; stages <= 5; ++stages) {
    for (int a = 0; a < stages; ++a) {
      for (int b = a + 1; b < stages; ++b) {
        SCOPED_TRACE(std::to_string(a) + " and " + std::to_string(b) + " of " + std::to_string(stages));
        ExpectCost(Stages(stages), {a, b}, {a, b});
      }
    }
  }
}

TEST(TakeoverCost, WithoutALogTheStagesBeforeComputeAgain) { ExpectCost(Stages(4, 0), {2}, {0, 1, 2}); }

TEST(TakeoverCost, ALogThatLacksTheBeginningIsOfNoUseToAFreshStage) {
  ExpectCost(Stages(4, 8 << 10), {3}, {0, 1, 2, 3});
}

TEST(TakeoverCost, NothingLostButTheLinksCostsNothing) { ExpectCost(Stages(3), {}, {}); }

// A copy in this process: takes what its stage tells it at once.
class CopyHere final : public CopySink {
 public:
  explicit CopyHere(std::unique_ptr<Stage> copy) : stage(std::move(copy)) {}
  std::uint64_t session() const override { return session_; }
  bool TryPut(FrameBytes& frame) override {
    const std::lock_guard lock(mutex_);
    if (refuse-- > 0) return false;
    const Result<CopyRows> rows = DecodeCopyRows(frame);
    EXPECT_TRUE(rows.ok());
    const Status taken = stage ? stage->TakeRows(*rows) : Status();
    EXPECT_TRUE(taken.ok()) << taken.error().message;
    return true;
  }
  void Forget() {
    const std::lock_guard lock(mutex_);
    stage->EmptyAll();
    ++session_;
  }
  std::unique_ptr<Stage> Take() {
    const std::lock_guard lock(mutex_);
    return std::move(stage);
  }
  std::atomic<int> refuse{0};
  std::unique_ptr<Stage> stage;

 private:
  std::mutex mutex_;
  std::atomic<std::uint64_t> session_{1};
};

// Losses of any stage whose copy was told what it holds: the copy goes on, and hardly anything is computed again.
TEST(TakeoverTest, ACopyThatWasToldGoesOnWhereTheStageWas) {
  for (int lost = 0; lost < 3; ++lost) {
    Takeover run;
    run.options.stages = 3;
    run.options.compute = std::chrono::microseconds(200);
    run.Make();
    FakeEngineOptions fake;
    fake.layers = FakeLayers(lost, 3);
    fake.n_vocab = run.placement->n_vocab();
    fake.sequences_max = run.options.schedule.slots_max;
    const auto copy =
        std::make_shared<CopyHere>(Stage::Over(MakeFakeEngine(fake), lost == 2 ? SmolLm2Vocabulary() : nullptr));
    copy->stage->KeepSent(run.options.wire_type, run.options.sent_bytes_max);
    copy->refuse = 5;
    run.placement->worker(lost).SetCopies({copy});
    for (GenerationId id = 1; id <= 3; ++id) run.clients.Add(id, Prompt(id, 250), 400);
    run.clients.SubmitAll(*run.placement);
    ASSERT_TRUE(run.clients.Wait(100));
    copy->Forget();  // its stream broke once
    ASSERT_TRUE(run.clients.Wait(600));
    std::vector<std::unique_ptr<Stage>> stages = run.placement->TakeStages();
    stages[lost] = copy->Take();
    ++run.options.epoch;
    run.placement = std::make_unique<FakePlacement>(run.options, std::move(stages));
    run.clients.SubmitAll(*run.placement);
    ASSERT_TRUE(run.clients.WaitForAll());
    run.clients.Expect(run.placement->n_vocab());
    const RecoveryStats recovery = StatsOf(*run.placement).recovery;
    EXPECT_GE(recovery.row_layers_from_nothing, 3U * 250 * kFakeLayers);
    EXPECT_LE(5 * recovery.row_layers, recovery.row_layers_from_nothing) << "stage " << lost;
  }
}

TEST(TakeoverTest, InTheMiddleOfAPrompt) {
  for (const int lost : {0, 1, 2}) {
    SCOPED_TRACE(lost);
    Takeover run;
    run.options.stages = 3;
    run.options.compute = std::chrono::microseconds(300);
    run.Make();
    run.clients.Add(1, Prompt(1, 3000), 10);
    run.clients.SubmitAll(*run.placement);
    const auto start = std::chrono::steady_clock::now();
    while (run.placement->worker(2).stats().rows < 640 && std::chrono::steady_clock::now() - start < kPatience) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    run.Lose({lost});
    ASSERT_TRUE(run.clients.WaitForAll());
    run.clients.Expect(run.placement->n_vocab());
    const ScheduleStats stats = StatsOf(*run.placement);
    EXPECT_EQ(stats.recovery.generations, 1U);
    EXPECT_LT(stats.row_layers_whole, (3000U - 600U) * kFakeLayers);
  }
}

TEST(TakeoverTest, AReproducibleRunComputesAllAgain) {
  Takeover run;
  run.options.stages = 3;
  run.options.schedule.reproducible = true;
  run.options.schedule.kv_shared = false;
  run.options.compute = std::chrono::microseconds(50);
  run.Make();
  run.clients.Add(1, Prompt(5, 300), 60);
  run.clients.SubmitAll(*run.placement);
  ASSERT_TRUE(run.clients.Wait(30));
  run.Lose({1});
  ASSERT_TRUE(run.clients.WaitForAll());
  run.clients.Expect(run.placement->n_vocab());
  const ScheduleStats stats = StatsOf(*run.placement);
  EXPECT_EQ(stats.recovery.row_layers, stats.recovery.row_layers_from_nothing);
  EXPECT_EQ(stats.row_layers_filled, 0U);
}

// Answers that begin alike, continue each other, do not fit together, over losses of any stages at any time.
TEST(TakeoverTest, RandomLossesChangeNoAnswer) {
  RecoveryStats total;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    Takeover run;
    run.options.stages = static_cast<int>(1 + rng.Below(5));
    run.options.compute = std::chrono::microseconds(rng.Below(200));
    run.options.wire_type = static_cast<WireType>(rng.Below(3));
    run.options.sent_bytes_max = rng.Below(4) == 0 ? rng.Below(32 << 10) : 1 << 20;
    run.options.schedule.kv_tokens_max = rng.Below(4) == 0 ? 400 : 4096;
    run.options.schedule.batch_rows_max = static_cast<std::int32_t>(4 + rng.Below(64));
    run.Make();
    const auto generations = static_cast<GenerationId>(1 + rng.Below(12));
    for (GenerationId id = 1; id <= generations; ++id) {
      std::vector<TokenId> prompt = Prompt(rng.Below(3), static_cast<int>(1 + rng.Below(150)));
      for (const TokenId token : Prompt(id, static_cast<int>(rng.Below(20)))) prompt.push_back(token);
      run.clients.Add(id, std::move(prompt), static_cast<int>(1 + rng.Below(60)));
    }
    run.clients.SubmitAll(*run.placement);
    for (auto losses = rng.Below(4); losses > 0; --losses) {
      ASSERT_TRUE(run.clients.Wait(run.clients.received() + rng.Below(generations * 20)));
      std::set<int> lost;
      for (int i = 0; i < run.options.stages; ++i) {
        if (rng.Below(3) == 0) lost.insert(i);
      }
      run.Lose(lost);
    }
    ASSERT_TRUE(run.clients.WaitForAll());
    run.clients.Expect(run.placement->n_vocab());
    const ScheduleStats stats = StatsOf(*run.placement);
    EXPECT_EQ(stats.running + stats.waiting + stats.in_flight, 0);
    total += stats.recovery;
  }
  EXPECT_GT(total.generations, 30U);
  EXPECT_LT(total.row_layers, total.row_layers_from_nothing);
  std::printf("%llu generations recovered with %llu of %llu row-layers\n",
              static_cast<unsigned long long>(total.generations), static_cast<unsigned long long>(total.row_layers),
              static_cast<unsigned long long>(total.row_layers_from_nothing));
}

// SmolLM2 in three stages of ten layers; the one in the middle is lost in the middle of an answer.
class RealTakeover : public testing::TestWithParam<WireType> {
 protected:
  void SetUp() override {
    auto model = OpenModelFile(TestModelPath("smollm2"));
    ASSERT_TRUE(model.ok()) << model.error().message << "; ./dev model smollm2 fetches this test model";
    auto vocabulary = Vocabulary::Open(*model);
    ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().message;
    model_ = *model;
    vocabulary_ = *vocabulary;
    std::string text;
    for (int i = 1; i <= 40; ++i) {
      text += "Station " + std::to_string(i) + " lies " + std::to_string(i * 7) +
              " km from the coast. The train from the harbour stops there " + std::to_string(1 + i % 3) +
              " times a day.\n";
    }
    auto prompt = vocabulary_->Tokenize(text, true, false);
    ASSERT_TRUE(prompt.ok());
    ASSERT_GT(prompt->size(), 900U);
    prompt_ = *prompt;
  }
  void Make(Takeover& run) {
    run.options.stages = 3;
    run.options.wire_type = GetParam();
    run.options.schedule.kv_tokens_max = 1536;
    run.options.sent_bytes_max = 16 << 20;
    std::vector<std::unique_ptr<Stage>> stages;
    for (int i = 0; i < 3; ++i) stages.push_back(Open(i));
    run.placement = std::make_unique<FakePlacement>(run.options, std::move(stages));
    run.clients.Add(1, prompt_, 40);
    run.clients.SubmitAll(*run.placement);
  }
  std::unique_ptr<Stage> Open(int stage) {
    EngineOptions options;
    options.layers = {stage * 10, stage * 10 + 10};
    options.kv_tokens_max = 1536;
    auto opened = Stage::Open(model_, options, [this] { return Result(vocabulary_); });
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    return std::move(opened).value();
  }

  std::shared_ptr<const ModelFile> model_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<TokenId> prompt_;
};

TEST_P(RealTakeover, TheSameTokensForAThirdOfTheWorkAndWithACopyForHardlyAny) {
  Takeover undisturbed;
  Make(undisturbed);
  ASSERT_TRUE(undisturbed.clients.WaitForAll());
  for (const bool copied : {false, true}) {
    Takeover run;
    Make(run);
    const auto copy = std::make_shared<CopyHere>(Open(1));
    copy->stage->KeepSent(run.options.wire_type, run.options.sent_bytes_max);
    if (copied) run.placement->worker(1).SetCopies({copy});
    ASSERT_TRUE(run.clients.Wait(12));
    std::vector<std::unique_ptr<Stage>> stages = run.placement->TakeStages();
    stages[1] = copy->Take();
    ++run.options.epoch;
    run.placement = std::make_unique<FakePlacement>(run.options, std::move(stages));
    run.clients.SubmitAll(*run.placement);
    ASSERT_TRUE(run.clients.WaitForAll());
    EXPECT_EQ(run.clients.answer(1), undisturbed.clients.answer(1));
    EXPECT_EQ(run.clients.answer(1).size(), 40U);
    const RecoveryStats recovery = StatsOf(*run.placement).recovery;
    EXPECT_EQ(recovery.generations, 1U);
    EXPECT_GE(recovery.row_layers_from_nothing, (copied ? 10 : 3) * recovery.row_layers);
    EXPECT_GT(run.placement->worker(0).stats().sent_bytes, 1'000'000U);
  }
}

INSTANTIATE_TEST_SUITE_P(Wire, RealTakeover, testing::Values(WireType::kF32, WireType::kF16),
                         [](const auto& type) { return std::string(WireTypeName(type.param)); });

}  // namespace
}  // namespace shoal
