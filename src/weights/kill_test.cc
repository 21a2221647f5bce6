// A process that fetches and evicts is killed at any instant: the store is consistent, and what had come is not fetched
// again. Ranges by their hashes, as from peers; a model of a source that tells none, as from the hub, all of it or
// ranges.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "weights/draft.h"
#include "weights/test_store.h"

namespace shoal {
namespace {

// What a life fetched and still needs, in memory that outlives it.
struct Tally {
  std::atomic<std::uint32_t> fetched[64][16];  // [range][chunk]
  std::atomic<std::uint32_t> rounds;           // ranges that were finished
  std::atomic<bool> ending;                    // its model is whole and goes: nothing of it is needed
  void Forget() { std::memset(static_cast<void*>(fetched), 0, sizeof fetched); }
};

enum class Kind { kRanges, kDraft, kSourced };

class KillTest : public StoreTest, public testing::WithParamInterface<Kind> {
 protected:
  bool is_draft() const { return GetParam() == Kind::kDraft; }
  bool is_sourced() const { return GetParam() == Kind::kSourced; }
  // As a process that starts: no lock may be shared with the one before.
  void Start() {
    draft_.reset();
    // Room for all but one range: so fetching goes hand in hand with evicting. Of a draft nothing may be missing.
    Reopen(is_draft() ? 0 : manifest_.file_bytes - manifest_.ranges[Layer(0)].bytes);
    if (is_draft()) draft_ = *Draft::Open(*store_, "source", manifest_.header, manifest_.file_bytes);
    if (!is_sourced()) return;
    const auto sourced = std::make_shared<Manifest>(
        SourcedTestModel(manifest_, {"http://host/model.gguf", manifest_.file_bytes, "etag", {}}));
    id_ = *store_->Add(*sourced, "model", "source");
    sourced_ = store_->WithHashes(id_, sourced);
  }
  bool Has(std::size_t range) const {
    if (is_sourced()) return store_->Has(*sourced_, range);
    return is_draft() ? draft_->Has(range) : store_->Has(Blob(range));
  }
  auto BeginRange(std::size_t range) {
    if (is_sourced()) return store_->Begin(*sourced_, range, id_);
    return is_draft() ? draft_->Begin(range) : store_->Begin(manifest_, range);
  }

  // Of the child, until it is killed; the exit's code tells what went wrong.
  [[noreturn]] void Live(Tally& tally, unsigned seed) {
    Start();
    for (std::mt19937 random(seed);;) {
      const std::size_t range = random() % manifest_.ranges.size();
      if (!Has(range)) {
        FetchOne(tally, range);
      } else if (!is_draft()) {
        if (random() % 3 == 0) (void)store_->MakeRoom(manifest_.file_bytes / 2);
      } else if (WholeDraft()) {
        EndDraft(tally);
      }
    }
  }
  void FetchOne(Tally& tally, std::size_t range) {
    auto writer = BeginRange(range);
    if (!writer.ok()) _exit(3);
    for (const std::uint64_t chunk : (*writer)->Missing()) {
      tally.fetched[range][chunk].fetch_add(1);
      if (!(*writer)->Put(chunk, Chunk(range, chunk)).ok()) _exit(4);
    }
    auto finished = (*writer)->Finish();
    if (!finished.ok()) _exit(5);
    if (is_draft()) {
      draft_->Finished(range, *std::move(finished));
    } else {
      if (is_sourced()) {
        if (!store_->KeepHashes(id_, range, finished->chunks).ok()) _exit(8);
        sourced_ = store_->WithHashes(id_, sourced_);
      }
      for (auto& chunk : tally.fetched[range]) chunk = 0;  // it may be evicted now
    }
    ++tally.rounds;
  }
  bool WholeDraft() const {
    std::size_t have = 0;
    while (have < manifest_.ranges.size() && Has(have)) ++have;
    return have == manifest_.ranges.size();
  }
  void EndDraft(Tally& tally) {
    tally.ending = true;
    if (!draft_->Finish("model", "source", {}, {}).ok()) _exit(6);
    draft_.reset();
    if (!store_->Remove("model").ok()) _exit(7);
    tally.Forget();
    Start();
    tally.ending = false;
  }

  std::vector<bool> Present() const {
    std::vector<bool> present;
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) present.push_back(store_->Has(Blob(i)));
    return present;
  }

  // Chunks that had come and are not there any more. What is there is verified.
  std::uint64_t Lost(const Tally& tally) {
    std::uint64_t lost = 0;
    for (std::size_t i = 0; i < manifest_.ranges.size(); ++i) {
      if (store_->Has(Blob(i))) { EXPECT_TRUE(store_->Verify(manifest_, i).ok()); }
      const auto& fetched = tally.fetched[i];
      const bool any = std::any_of(std::begin(fetched), std::end(fetched), [](const auto& n) { return n > 0; });
      if (!any || Has(i) || tally.ending) continue;  // to begin what is not asked for may evict what is
      auto writer = BeginRange(i);
      EXPECT_TRUE(writer.ok()) << writer.error().message;
      if (!writer.ok()) continue;
      for (const std::uint64_t chunk : (*writer)->Missing()) lost += fetched[chunk] > 0 ? 1 : 0;
    }
    return lost;
  }

  std::unique_ptr<Draft> draft_;  // of is_draft()
  ModelId id_{};                  // of is_sourced()
  std::shared_ptr<const Manifest> sourced_;
};

TEST_P(KillTest, AtAnyInstantNoMoreThanAChunkIsLost) {
  const int kills = 200, kills_min = 20;
  const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(40);  // where disk or cores are slow
  auto* tally =
      static_cast<Tally*>(mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(tally, MAP_FAILED);
  std::mt19937 random(20250711);
  std::uint64_t finished = 0, evicted = 0;
  std::chrono::nanoseconds range_time = std::chrono::milliseconds(5);
  int k = 0;
  for (; k < kills && (k < kills_min || std::chrono::steady_clock::now() < enough); ++k) {
    std::memset(static_cast<void*>(tally), 0, sizeof(Tally));
    draft_.reset();
    const std::vector<bool> before = Present();
    const pid_t child = fork();
    if (child == 0) Live(*tally, static_cast<unsigned>(k));
    // After so many ranges, at any instant of about the next two: at this machine's pace, whatever it is.
    const auto start = std::chrono::steady_clock::now();
    const std::uint64_t ranges = random() % 3;
    const auto lived = [&] { return std::chrono::steady_clock::now() - start; };
    while (tally->rounds < ranges && lived() < std::chrono::seconds(60)) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    if (ranges > 0) range_time = lived() / ranges;
    std::this_thread::sleep_for(range_time * (random() % 200) / 100);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child ended by itself with " << status;
    finished += tally->rounds;
    Start();
    const std::vector<bool> after = Present();
    for (std::size_t i = 0; i < before.size(); ++i) evicted += before[i] && !after[i] ? 1 : 0;
    EXPECT_LE(Lost(*tally), 1U) << "chunks at kill " << k;
  }
  EXPECT_GT(finished, static_cast<std::uint64_t>(k) / 4) << "the child hardly ever got to finish a range";
  EXPECT_GT(evicted, static_cast<std::uint64_t>(k) / 10) << "hardly anything was evicted";
  std::printf("%d kills, %llu ranges finished, %llu evicted\n", k, static_cast<unsigned long long>(finished),
              static_cast<unsigned long long>(evicted));
  munmap(tally, sizeof(Tally));
}

constexpr const char* kNames[] = {"OfRanges", "OfADraft", "OfASourcedModel"};
INSTANTIATE_TEST_SUITE_P(Kill, KillTest, testing::Values(Kind::kRanges, Kind::kDraft, Kind::kSourced),
                         [](const auto& kind) { return kNames[static_cast<int>(kind.param)]; });

}  // namespace
}  // namespace shoal
