// The engine on the real test models: memory accounting, refusals, and the KV cache under rewinds, copies, aborts.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "base/test_models.h"
#include "base/units.h"
#include "device/cpu_affinity.h"
#include "device/test_busy_programs.h"
#include "engine/compute_threads.h"

namespace shoal {
namespace {

using testing::HasSubstr;

std::shared_ptr<const ModelFile> Model(const std::string& name) {
  static std::map<std::string, std::shared_ptr<const ModelFile>> models;
  auto& model = models[name];
  if (model == nullptr) {
    auto opened = OpenModelFile(TestModelPath(name));
    if (opened.ok()) model = *opened;
    EXPECT_TRUE(opened.ok()) << opened.error().message << "; ./dev model " << name << " fetches this test model";
  }
  return model;
}

class EngineTest : public testing::Test {
 protected:
  void SetUp() override { Use("smollm2", {0, 30}); }

  void Use(const std::string& name, LayerRange layers) {
    model_ = Model(name);
    ASSERT_NE(model_, nullptr);
    options_ = {};
    options_.layers = layers;
    options_.kv_tokens_max = 512;
    options_.sequences_max = 4;
    options_.batch_rows_max = 64;
  }

  std::unique_ptr<Engine> Open() {
    auto engine = Engine::Open(model_, options_);
    EXPECT_TRUE(engine.ok()) << engine.error().message;
    return engine.ok() ? std::move(engine).value() : nullptr;
  }

  Error OpenError() {
    auto engine = Engine::Open(model_, options_);
    EXPECT_FALSE(engine.ok());
    return engine.ok() ? Error{} : engine.error();
  }

  // Runs `tokens` as one batch of `sequence` from its length on; logits after the last.
  static Result<std::vector<float>> Run(Engine& engine, SequenceId sequence, const std::vector<TokenId>& tokens) {
    std::vector<EngineRow> rows;
    Position at = engine.Length(sequence);
    for (std::size_t i = 0; i < tokens.size(); ++i) rows.push_back({sequence, at++, i + 1 == tokens.size()});
    std::vector<float> hidden, out;
    SHOAL_RETURN_IF_ERROR(engine.Embed(tokens, hidden));
    SHOAL_RETURN_IF_ERROR(engine.Forward(rows, hidden, out));
    return out;
  }

  static std::vector<float> MustRun(Engine& engine, SequenceId sequence, const std::vector<TokenId>& tokens) {
    auto out = Run(engine, sequence, tokens);
    EXPECT_TRUE(out.ok()) << out.error().message;
    return out.ok() ? *out : std::vector<float>{};
  }

  // `n` tokens that depend on `seed`.
  static std::vector<TokenId> Tokens(std::size_t n, int seed) {
    std::vector<TokenId> tokens;
    for (std::size_t i = 0; i < n; ++i)
      tokens.push_back(static_cast<TokenId>((i * 7919 + seed * 104729 + 500) % 30000));
    return tokens;
  }

  std::shared_ptr<const ModelFile> model_;
  EngineOptions options_;
};

void ExpectSame(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_FALSE(a.empty());
  ASSERT_EQ(a.size(), b.size());
  EXPECT_TRUE(a == b) << "logits differ";
}

TEST_F(EngineTest, UsesWhatItPlanned) {
  for (const LayerRange layers : {LayerRange{0, 30}, LayerRange{0, 10}, LayerRange{20, 30}}) {
    options_.layers = layers;
    auto plan = Engine::Plan(model_, options_);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    const auto engine = Open();
    ASSERT_NE(engine, nullptr);
    EXPECT_EQ(engine->memory().weight_bytes, plan->weight_bytes);
    EXPECT_EQ(engine->memory().kv_bytes, plan->kv_bytes);
    EXPECT_LE(engine->memory().compute_bytes, plan->compute_bytes);
    EXPECT_EQ(plan->kv_bytes, model_->info.KvBytesPerToken(layers, KvType::kF16) * 512);
    // The head is held once, the input embeddings not at all.
    const auto expected = static_cast<double>(model_->info.StageWeightBytes(layers));
    EXPECT_NEAR(static_cast<double>(plan->weight_bytes), expected, 0.05 * expected + 1e6);
  }
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which take some themselves
// The figures are what the system sees, also for a large vocabulary: its zero input embeddings hold no memory.
TEST_F(EngineTest, ResidentMemoryIsWhatItSays) {
  const auto resident = [] {
    std::uint64_t size = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> size >> pages;
    return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  };
  Use("gemma3", {9, 18});
  const std::uint64_t before = resident();
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  std::vector<float> hidden(64 * static_cast<std::size_t>(engine->n_embd()), 0.01F), out;
  std::vector<EngineRow> rows;
  for (Position i = 0; i < 64; ++i) rows.push_back({0, i, i == 63});
  ASSERT_TRUE(engine->Forward(rows, hidden, out).ok());
  const EngineMemory memory = engine->memory();
  const auto bound = static_cast<std::uint64_t>(static_cast<double>(memory.weight_bytes + memory.kv_bytes) * 1.05);
  EXPECT_LE(resident() - before, bound + 40 * kMiB);
  EXPECT_LE(resident() - before, memory.total() + 20 * kMiB);
}
#endif

TEST_F(EngineTest, KvTypesAndSeparateCachesCount) {
  options_.layers = {0, 10};
  options_.kv_type = KvType::kQ8_0;
  options_.kv_shared = false;
  auto plan = Engine::Plan(model_, options_);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->kv_bytes, model_->info.KvBytesPerToken({0, 10}, KvType::kQ8_0) * 512 * 4);
}

TEST_F(EngineTest, RefusesMoreMemoryThanAllowedBeforeLoading) {
  options_.memory_bytes_max = 50 * kMiB;
  options_.on_progress = [](float) -> bool {
    ADD_FAILURE() << "it loads";
    return false;
  };
  const Error error = OpenError();
  EXPECT_EQ(error.code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(error.message, HasSubstr("50.0 MiB are allowed"));
  EXPECT_THAT(error.message, HasSubstr("are missing"));
}

TEST_F(EngineTest, RefusesMoreMemoryThanTheMachineHas) {
  options_.kv_tokens_max = 1 << 24;
  options_.sequences_max = 64;
  options_.kv_shared = false;  // some 20 TiB: even to count it in a dry run would take more than there is
  const Error error = OpenError();
  EXPECT_EQ(error.code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(error.message, HasSubstr("available"));
}

TEST_F(EngineTest, RefusesOptionsOutOfRange) {
  const EngineOptions good = options_;
  const auto refused = [&](auto change) {
    options_ = good;
    change(options_);
    return OpenError().code;
  };
  EXPECT_EQ(refused([](EngineOptions& o) { o.threads = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) { o.kv_tokens_max = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) { o.sequences_max = 1000; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) { o.batch_rows_max = -1; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) { o.output_rows_max = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) { o.cpus = {kCpusMax - 1}; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) { o.layers = {5, 31}; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](EngineOptions& o) {
              o.kv_type = KvType::kQ8_0;
              o.flash_attention = false;
            }),
            ErrorCode::kInvalidArgument);
}

TEST_F(EngineTest, ProgressRisesAndCancels) {
  options_.layers = {0, 5};
  float last = -1;
  options_.on_progress = [&](float done) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, 1.0F);
    last = done;
    return true;
  };
  ASSERT_NE(Open(), nullptr);
  EXPECT_GT(last, 0.5F);

  options_.on_progress = [](float done) { return done < 0.3F; };
  EXPECT_EQ(OpenError().code, ErrorCode::kCancelled);
}

// Facts that libllama asserts, or that make its shapes disagree: an error, not the end of the process.
TEST_F(EngineTest, BrokenMetadataIsAnError) {
  options_.layers = {0, 30};
  const auto original = model_;
  const std::pair<const char*, GgufValue> changes[] = {
      {"llama.attention.head_count", GgufValue::U32(7)},
      {"llama.attention.head_count_kv", GgufValue::U32(1000)},
      {"llama.rope.dimension_count", GgufValue::U32(12)},
      {"llama.feed_forward_length", GgufValue::U32(3)},
      {"llama.block_count", GgufValue::U32(100000)},
      {"llama.expert_count", GgufValue::U32(5)},
      {"llama.embedding_length", GgufValue::U32(577)},
      {"llama.attention.layer_norm_rms_epsilon", GgufValue::String("x")},
  };
  for (const auto& [key, value] : changes) {
    auto broken = std::make_shared<ModelFile>(*original);
    broken->gguf.Set(key, value);
    model_ = broken;
    const Error error = OpenError();
    EXPECT_TRUE(error.code == ErrorCode::kUnsupported || error.code == ErrorCode::kCorrupt) << key << error.message;
    EXPECT_FALSE(error.message.empty());
  }
}

TEST_F(EngineTest, AFileThatEndsEarlyIsAnIoError) {
  const std::string copy = testing::TempDir() + "engine_test_" + std::to_string(::getpid()) + ".gguf";
  std::filesystem::copy_file(model_->path, copy, std::filesystem::copy_options::overwrite_existing);
  auto opened = OpenModelFile(copy);
  ASSERT_TRUE(opened.ok());
  model_ = *opened;
  std::filesystem::resize_file(copy, model_->gguf.file_bytes / 2);
  EXPECT_EQ(OpenError().code, ErrorCode::kIo);
  std::filesystem::remove(copy);
}

TEST_F(EngineTest, EmbedRefusesUnknownTokens) {
  options_.layers = {0, 1};
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  std::vector<float> hidden;
  EXPECT_FALSE(engine->Embed(std::vector<TokenId>{-1}, hidden).ok());
  EXPECT_FALSE(engine->Embed(std::vector<TokenId>{engine->n_vocab()}, hidden).ok());
  EXPECT_TRUE(engine->Embed(std::vector<TokenId>{0, engine->n_vocab() - 1}, hidden).ok());
  EXPECT_EQ(hidden.size(), 2U * static_cast<std::size_t>(engine->n_embd()));
}

TEST_F(EngineTest, RewindAndCopyContinueExactly) {
  for (const bool shared : {true, false}) {
    SCOPED_TRACE(shared);
    options_.kv_shared = shared;
    const auto engine = Open();
    ASSERT_NE(engine, nullptr);
    MustRun(*engine, 0, Tokens(40, 1));
    const std::vector<float> expected = MustRun(*engine, 0, Tokens(20, 2));
    EXPECT_EQ(engine->Length(0), 60);

    ASSERT_TRUE(engine->Rewind(0, 40).ok());
    EXPECT_EQ(engine->Length(0), 40);
    ExpectSame(MustRun(*engine, 0, Tokens(20, 2)), expected);

    MustRun(*engine, 2, Tokens(7, 3));
    ASSERT_TRUE(engine->Copy(0, 2, 40).ok());
    EXPECT_EQ(engine->Length(2), 40);
    EXPECT_EQ(engine->Length(0), 60);
    const std::vector<float> copied = MustRun(*engine, 2, Tokens(20, 2));
    // In a shared cache the copy's new cells lie elsewhere, so attention sums in another order.
    if (!shared) ExpectSame(copied, expected);
    ASSERT_EQ(copied.size(), expected.size());
    for (std::size_t i = 0; i < copied.size(); ++i) ASSERT_NEAR(copied[i], expected[i], 0.05) << i;

    EXPECT_FALSE(engine->Copy(0, 1, 61).ok());
    EXPECT_FALSE(engine->Copy(0, 0, 1).ok());
    EXPECT_FALSE(engine->Rewind(9, 0).ok());
    ASSERT_TRUE(engine->Rewind(0, 0).ok());
    EXPECT_EQ(engine->Length(0), 0);
    EXPECT_EQ(engine->Length(2), 60);
  }
}

TEST_F(EngineTest, AFullCacheChangesNothing) {
  options_.kv_tokens_max = 256;
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  for (int i = 0; i < 3; ++i) MustRun(*engine, 0, Tokens(64, i));
  MustRun(*engine, 1, Tokens(40, 5));
  const auto full = Run(*engine, 1, Tokens(64, 6));
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kKvFull);
  EXPECT_EQ(engine->Length(0), 192);
  EXPECT_EQ(engine->Length(1), 40);
  ASSERT_TRUE(engine->Rewind(0, 64).ok());
  EXPECT_TRUE(Run(*engine, 1, Tokens(64, 6)).ok());
}

// Gemma 3's sliding window is 512: libllama would give old cells of the windowed layers away once the search for free
// cells comes by, and a later rewind would then read another sequence's keys.
TEST_F(EngineTest, SlidingWindowsForgetNothing) {
  Use("gemma3", {0, 6});
  options_.kv_tokens_max = 2048;
  options_.sequences_max = 3;
  const auto run_all = [&](Engine& engine, SequenceId sequence, std::size_t n, int seed) {
    std::vector<float> out;
    for (std::size_t i = 0; i < n; i += 64) out = MustRun(engine, sequence, Tokens(64, seed + static_cast<int>(i)));
    return out;
  };
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  run_all(*engine, 0, 512, 10);     // cells 0 to 511
  run_all(*engine, 1, 1024, 1000);  // cells 512 to 1535
  ASSERT_TRUE(engine->Rewind(0, 0).ok());
  run_all(*engine, 2, 960, 5000);  // fills the hole and must go around sequence 1
  ASSERT_TRUE(engine->Rewind(1, 128).ok());
  const std::vector<float> after = MustRun(*engine, 1, Tokens(64, 1000 + 128));

  const auto fresh = Open();
  run_all(*fresh, 1, 128, 1000);
  const std::vector<float> expected = MustRun(*fresh, 1, Tokens(64, 1000 + 128));
  ASSERT_EQ(after.size(), expected.size());
  double sum = 0, difference = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    sum += std::fabs(expected[i]);
    difference += std::fabs(after[i] - expected[i]);
  }
  EXPECT_LT(difference, 1e-3 * sum);  // cells lie elsewhere: another order of the same sums
}

TEST_F(EngineTest, RowsOfTheCacheGoOnInAnotherEngineBitForBit) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    options_.kv_type = type;
    const auto from = Open(), to = Open();
    ASSERT_NE(from, nullptr);
    ASSERT_NE(to, nullptr);
    // Cells that lie elsewhere, and a prefix whose cells two sequences share.
    MustRun(*to, 3, Tokens(10, 9));
    for (int i = 0; i < 3; ++i) MustRun(*from, 0, Tokens(50, i));
    ASSERT_TRUE(from->Copy(0, 1, 70).ok());
    MustRun(*from, 1, Tokens(30, 7));
    for (const SequenceId sequence : {0, 1}) {
      for (Position at = 0; at < from->Length(sequence);) {
        const Position end = std::min<Position>(at + 37, from->Length(sequence));
        const auto rows = from->ReadRows(sequence, at, end);
        ASSERT_TRUE(rows.ok()) << rows.error().message;
        const Status put = to->WriteRows(sequence + 1, at, end, *rows);
        ASSERT_TRUE(put.ok()) << put.error().message;
        at = end;
      }
      EXPECT_EQ(to->Length(sequence + 1), from->Length(sequence));
      const auto again = to->ReadRows(sequence + 1, 20, 40), first = from->ReadRows(sequence, 20, 40);
      ASSERT_TRUE(again.ok() && first.ok());
      EXPECT_EQ(*again, *first);
      const auto want = MustRun(*from, sequence, Tokens(1, 5)), got = MustRun(*to, sequence + 1, Tokens(1, 5));
      ASSERT_EQ(want.size(), got.size());
      double sum = 0, difference = 0;
      for (std::size_t i = 0; i < want.size(); ++i) {
        sum += std::fabs(want[i]);
        difference += std::fabs(want[i] - got[i]);
      }
      EXPECT_LT(difference, 1e-3 * sum);  // cells lie elsewhere: another order of the same sums
    }
    EXPECT_EQ(to->Length(3), 10);
  }
}

TEST_F(EngineTest, RowsThatAreNoneAreRefused) {
  options_.kv_tokens_max = 256;
  const auto from = Open(), to = Open();
  ASSERT_NE(from, nullptr);
  ASSERT_NE(to, nullptr);
  MustRun(*from, 0, Tokens(20, 1));
  MustRun(*to, 1, Tokens(30, 2));
  const auto rows = from->ReadRows(0, 0, 20);
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(from->ReadRows(0, 0, 21).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(from->ReadRows(9, 0, 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(to->WriteRows(0, 1, 21, *rows).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(to->WriteRows(0, 0, 19, *rows).error().code, ErrorCode::kCorrupt);
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::uint8_t> broken = *rows;
    if (i % 2 == 0) broken.resize(random() % broken.size());
    // Positions, types and sizes; data may be anything.
    for (int k = 0; k < 3 && !broken.empty(); ++k)
      broken[random() % std::min<std::size_t>(broken.size(), 110)] ^= 1U << random() % 8;
    if (to->WriteRows(0, 0, 20, broken).ok()) { EXPECT_EQ(to->Length(0), 20); }
    ASSERT_TRUE(to->Rewind(0, 0).ok());
    EXPECT_EQ(to->Length(1), 30);
  }
  // No room.
  for (int i = 0; i < 3; ++i) MustRun(*to, 1, Tokens(64, i));
  MustRun(*to, 1, Tokens(30, 2));
  EXPECT_FALSE(to->WriteRows(0, 0, 20, *rows).ok());
  EXPECT_EQ(to->Length(0), 0);
  MustRun(*to, 1, Tokens(1, 2));
  // A sliding window is another kind of cache.
  Use("gemma3", {0, 6});
  const auto window = Open();
  MustRun(*window, 0, Tokens(20, 1));
  EXPECT_EQ(window->ReadRows(0, 0, 20).error().code, ErrorCode::kUnsupported);
}

TEST_F(EngineTest, AbortEndsAForward) {
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  const std::vector<float> expected = MustRun(*engine, 0, Tokens(64, 1));
  ASSERT_TRUE(engine->Rewind(0, 0).ok());
  bool cancelled = false;
  for (int i = 0; i < 50 && !cancelled; ++i) {
    std::atomic<bool> done{false};
    std::thread other([&] {
      while (!done.load()) {
        engine->Abort();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    const auto out = Run(*engine, 0, Tokens(64, 1));
    done = true;
    other.join();
    cancelled = !out.ok();
    if (cancelled) { EXPECT_EQ(out.error().code, ErrorCode::kCancelled); }
    ASSERT_TRUE(engine->Rewind(0, 0).ok());
  }
  EXPECT_TRUE(cancelled);
  ExpectSame(MustRun(*engine, 0, Tokens(64, 1)), expected);
}

TEST_F(EngineTest, FewerRowsThanSequences) {
  options_.sequences_max = 16;
  options_.batch_rows_max = 1;
  options_.output_rows_max = 1;
  for (const LayerRange layers : {LayerRange{0, 2}, LayerRange{0, 30}}) {
    options_.layers = layers;
    const auto engine = Open();
    ASSERT_NE(engine, nullptr);
    MustRun(*engine, 15, Tokens(1, 1));
    EXPECT_EQ(engine->Length(15), 1);
  }
}

TEST_F(EngineTest, RefusesSeveralSequencesWithSeparateCaches) {
  options_.layers = {0, 1};
  options_.kv_shared = false;
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  std::vector<float> hidden, out;
  ASSERT_TRUE(engine->Embed(Tokens(2, 1), hidden).ok());
  const Status mixed = engine->Forward(std::vector<EngineRow>{{0, 0, false}, {1, 0, false}}, hidden, out);
  ASSERT_FALSE(mixed.ok());
  EXPECT_EQ(mixed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(engine->Length(0), 0);
}

TEST_F(EngineTest, ThreadsOnGivenCpusComputeTheSame) {
  options_.layers = {0, 3};
  const auto one = Open();
  ASSERT_NE(one, nullptr);
  const std::vector<float> expected = MustRun(*one, 0, Tokens(64, 1));
  const std::vector<int> cpus = AllowedCpus();
  options_.threads = 2;
  options_.cpus.assign(cpus.begin(), cpus.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(cpus.size(), 2)));
  const auto two = Open();
  ASSERT_NE(two, nullptr);
  EXPECT_EQ(AllowedCpus(), cpus) << "Open pinned its caller";
  std::vector<float> actual;
  std::vector<int> placed;
  std::thread([&] {
    actual = MustRun(*two, 0, Tokens(64, 1));
    placed = AllowedCpus();
  }).join();
  ExpectSame(actual, expected);
  if (!cpus.empty()) {
    EXPECT_EQ(placed, options_.cpus.size() == 2 ? std::vector<int>{options_.cpus.back()} : options_.cpus);
  }
}

std::size_t ThreadsHere() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}));
}

// The pool is made anew each time, under an engine that computes.
TEST_F(EngineTest, CoresThatAreTakenAndGivenBackChangeNothing) {
  const std::vector<int> cpus = AllowedCpus();
  if (cpus.size() < 2) GTEST_SKIP() << "needs two cores";
  options_.layers = {0, 3};
  options_.threads = 2;
  options_.cpus = {cpus[0], cpus[1]};
  const auto engine = Open();
  ASSERT_NE(engine, nullptr);
  const auto compute = [&] {
    std::vector<float> out;
    std::thread([&] { out = MustRun(*engine, 0, Tokens(8, 1)); }).join();
    EXPECT_TRUE(engine->Rewind(0, 0).ok());
    return out;
  };
  const std::vector<float> expected = compute();
  const std::size_t others = ThreadsHere() - 1;  // but for the pool's
  for (const std::vector<int>& allowed : {std::vector<int>{cpus[0]}, cpus, std::vector<int>{cpus[1]}, cpus}) {
    ASSERT_TRUE(PinThisThread(allowed).ok());  // the first thread's cores are the process's
    std::this_thread::sleep_for(ComputeThreads::kLookEvery);
    for (int pass = 0; pass < 3; ++pass) ExpectSame(compute(), expected);
    EXPECT_EQ(ThreadsHere(), others + allowed.size() - 1);
  }
}

TEST_F(EngineTest, ThreadsThatYieldToOthersComputeTheSame) {
  options_.layers = {0, 3};
  const auto alone = Open();
  ASSERT_NE(alone, nullptr);
  options_.threads = 4;  // so that they are in each other's way, too
  options_.yields = true;
  const auto yielding = Open();
  ASSERT_NE(yielding, nullptr);
  ExpectSame(MustRun(*yielding, 0, Tokens(4, 0)), MustRun(*alone, 0, Tokens(4, 0)));
  const std::size_t all = ThreadsHere();
  // Processes: time that is another thread's of this one is not lost to others.
  const BusyPrograms others(AllowedCpuCount());
  // On as many cores as there are, or fewer, some threads are in the way sooner or later.
  bool fewer = false;
  const auto start = std::chrono::steady_clock::now();
  for (int seed = 0; std::chrono::steady_clock::now() < start + std::chrono::seconds(fewer ? 3 : 30); ++seed) {
    ExpectSame(MustRun(*yielding, 0, Tokens(4, seed)), MustRun(*alone, 0, Tokens(4, seed)));
    fewer = fewer || ThreadsHere() < all;
    if (yielding->Length(0) < 200) continue;
    EXPECT_TRUE(yielding->Rewind(0, 0).ok() && alone->Rewind(0, 0).ok());
  }
  if (AllowedCpuCount() <= 4) { EXPECT_TRUE(fewer) << "no survey in half a minute"; }
}

}  // namespace
}  // namespace shoal
