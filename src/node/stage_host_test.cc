// Stages of one node on the real model: several of one placement, gone over to the next epoch, taken from a copy.
#include "node/stage_host.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/ask_loop.h"
#include "wire/copy_messages.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;

std::string SmolLm2() {
  if (const char* path = std::getenv("SHOAL_TEST_SMOLLM2")) return path;
  const char* cache = std::getenv("SHOAL_CACHE_DIR");
  const char* home = std::getenv("HOME");
  return (cache != nullptr ? std::string(cache) : std::string(home != nullptr ? home : "") + "/.cache/shoal") +
         "/models/smollm2.gguf";
}

class StageHostTest : public testing::Test {
 protected:
  StageHostTest() : library_({}), tasks_(64) {
    const Result<LibraryModel> model = library_.Find(SmolLm2());
    EXPECT_TRUE(model.ok()) << "the model comes from `./dev model smollm2`";
    if (!model.ok()) std::abort();
    fingerprint_ = model->fingerprint;
    self_.bytes.fill(7);
    StageHostOptions options;
    options.self = self_;
    options.threads = [](const std::string&) { return 1; };
    options.obtain = [this](const PlacementRecord& placement, LayerRange, const std::function<bool()>&) {
      return library_.FindFingerprint(placement.request.fingerprint);
    };
    options.open_pipe = [](const NodeId&) -> Result<StreamLink> {
      return Error{ErrorCode::kUnavailable, "there is no other node"};
    };
    options.open_copy = [this](const NodeId&) { return OpenCopy(); };
    options.on_ready = [this](const std::string&, Epoch epoch, std::int32_t, const Status& status) {
      const std::lock_guard lock(mutex_);
      ++(status.ok() ? ready_ : failed_)[epoch];
      changed_.notify_all();
    };
    options.on_broken = [this](const std::string&, Epoch epoch) {
      const std::lock_guard lock(mutex_);
      ++broken_[epoch];
    };
    options.on_copy_ready = [this](const std::string&, LayerRange, const Status& status) {
      const std::lock_guard lock(mutex_);
      copies_ += status.ok() ? 1 : 0;
      changed_.notify_all();
    };
    host_ = std::make_unique<StageHost>(loop_, library_, tasks_, pipes_, options);
  }
  ~StageHostTest() override {
    pipes_.Close();
    host_->Stop();
    tasks_.Join();
    loop_.Stop();
    for (std::thread& reader : readers_) reader.join();
  }

  // Another node's end of a stream to a copy: notes what it is told.
  Result<StreamLink> OpenCopy() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return Error{ErrorCode::kIo, "no socketpair"};
    const std::lock_guard lock(mutex_);
    readers_.emplace_back([this, fd = fds[1]] {
      const StreamLink link = MakeStreamLink(fd, kCopyFrameBytesMax);
      while (const std::optional<FrameBytes> frame = link.receiver->Receive()) {
        const Result<CopyHello> hello = DecodeCopyHello(*frame);
        const Result<CopyRows> rows = DecodeCopyRows(*frame);
        const std::lock_guard told(mutex_);
        hellos_ += hello.ok() ? 1 : 0;
        if (rows.ok()) rows_told_ += rows->tokens.size();
        changed_.notify_all();
      }
    });
    return MakeStreamLink(fds[0], kCopyFrameBytesMax);
  }

  PlacementRecord Placement(Epoch epoch, Epoch continues) const {
    PlacementRecord record;
    record.model = "smollm2";
    record.epoch = epoch;
    record.continues = continues;
    record.request.fingerprint = fingerprint_;
    record.request.options.context_tokens = 512;
    record.request.options.wire_type = WireType::kF32;
    record.stages = {{self_, 1, {0, 10}}, {self_, 1, {10, 20}}, {self_, 1, {20, 30}}};
    return record;
  }
  void Load(const PlacementRecord& record, StageSource::Kind kind) {
    AskLoop(loop_, [&] {
      for (std::int32_t i = 0; i < 3; ++i) host_->Load(record, i, {kind, record.continues, i});
      return 0;
    });
  }
  // As the cluster does it: the new one first, then the old one goes.
  void Activate(const PlacementRecord& record) {
    AskLoop(loop_, [&] {
      for (std::int32_t i = 0; i < 3; ++i) host_->Activate(record, i);
      for (std::int32_t i = 0; i < 3; ++i) host_->Unload("smollm2", record.continues, i);
      return 0;
    });
  }
  bool WaitFor(const std::function<bool()>& check) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), check);
  }
  std::unique_ptr<GenerationHandle> Ask(Epoch epoch, std::int32_t tokens) {
    GenerateOptions options;
    options.prompt = {1, 504, 3575, 282, 4649, 314};
    options.tokens_max = tokens;
    options.sampling.temperature = 0;
    Result<std::unique_ptr<GenerationHandle>> handle = host_->Generate("smollm2", epoch, std::move(options));
    EXPECT_TRUE(handle.ok()) << handle.error().message;
    return handle.ok() ? *std::move(handle) : nullptr;
  }
  // The tokens until the end, or until so many.
  static std::vector<TokenId> Read(GenerationHandle& handle, std::size_t most, GenerationEnd* end = nullptr) {
    std::vector<TokenId> tokens;
    for (int waits = 0; waits < 600 && tokens.size() < most; ++waits) {
      const auto event = handle.Next(milliseconds(100));
      if (event && event->token) tokens.push_back(event->token->token);
      if (event && event->end && end != nullptr) *end = *event->end;
      if (event && event->end) break;
    }
    return tokens;
  }
  std::vector<TokenId> Answer(Epoch epoch) {
    const auto handle = Ask(epoch, 16);
    return handle ? Read(*handle, 100) : std::vector<TokenId>{};
  }

  NodeId self_;
  RealLoop loop_;
  ModelLibrary library_;
  BlockingTasks tasks_;
  PipeRendezvous pipes_;
  std::uint64_t fingerprint_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Epoch, int> ready_, failed_, broken_;  // guarded by mutex_
  int copies_ = 0;                                // guarded by mutex_
  int hellos_ = 0;                                // guarded by mutex_: of streams to copies elsewhere
  std::size_t rows_told_ = 0;                     // guarded by mutex_: on them
  std::vector<std::thread> readers_;              // guarded by mutex_ while the host runs
  std::unique_ptr<StageHost> host_;
};

TEST_F(StageHostTest, StagesOfOneNodeGoOverFromEpochToEpoch) {
  Load(Placement(1, 0), StageSource::Kind::kDisk);
  ASSERT_TRUE(WaitFor([&] { return ready_[1] == 3; }));
  Activate(Placement(1, 0));
  const std::vector<TokenId> want = Answer(1);
  ASSERT_EQ(want.size(), 16U);

  // Given up before it is live: the one that runs does not notice.
  Load(Placement(2, 1), StageSource::Kind::kRunning);
  AskLoop(loop_, [&] {
    for (std::int32_t i = 0; i < 3; ++i) host_->Unload("smollm2", 2, i);
    return 0;
  });
  EXPECT_EQ(Answer(1), want);

  // An answer that runs ends at once; it is for the entry to ask again.
  const auto running = Ask(1, 400);
  ASSERT_NE(running, nullptr);
  ASSERT_EQ(Read(*running, 4).size(), 4U);
  Load(Placement(3, 1), StageSource::Kind::kRunning);
  Activate(Placement(3, 1));
  GenerationEnd end = GenerationEnd::kStop;
  Read(*running, 400, &end);
  EXPECT_EQ(end, GenerationEnd::kError);
  EXPECT_EQ(Answer(3), want);

  // Two in a row, the first one never having run.
  Load(Placement(4, 3), StageSource::Kind::kRunning);
  Activate(Placement(4, 3));
  Load(Placement(5, 4), StageSource::Kind::kRunning);
  Activate(Placement(5, 4));
  EXPECT_EQ(Answer(5), want);
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(ready_.size(), 1U) << "nothing was loaded but once";
  EXPECT_TRUE(failed_.empty() && broken_.empty());
}

TEST_F(StageHostTest, CopiesTakeOver) {
  AskLoop(loop_, [&] {
    for (std::int32_t i = 0; i < 3; ++i) host_->LoadCopy(Placement(1, 0), i);
    return 0;
  });
  ASSERT_TRUE(WaitFor([&] { return copies_ == 3; }));
  Load(Placement(2, 0), StageSource::Kind::kStandby);
  Activate(Placement(2, 0));
  EXPECT_EQ(Answer(2).size(), 16U);
  const std::lock_guard lock(mutex_);
  EXPECT_TRUE(ready_.empty()) << "nothing was loaded again";
}

TEST_F(StageHostTest, ACopyElsewhereIsNotToldAnewInTheNextEpoch) {
  NodeId other;
  other.bytes.fill(8);
  const auto set_copies = [&](Epoch epoch) {
    AskLoop(loop_, [&] {
      host_->SetCopies("smollm2", epoch, {{}, {other}, {}});
      return 0;
    });
  };
  Load(Placement(1, 0), StageSource::Kind::kDisk);
  ASSERT_TRUE(WaitFor([&] { return ready_[1] == 3; }));
  Activate(Placement(1, 0));
  set_copies(1);
  ASSERT_TRUE(WaitFor([&] { return hellos_ == 1; }));
  const auto run = [&](Epoch epoch) {  // until all but the last few rows are told
    const auto handle = Ask(epoch, 64);
    return handle ? Read(*handle, 100) : std::vector<TokenId>{};
  };
  const std::vector<TokenId> want = run(1);
  ASSERT_EQ(want.size(), 64U);
  ASSERT_TRUE(WaitFor([&] { return rows_told_ > 32; }));

  Load(Placement(2, 1), StageSource::Kind::kRunning);
  set_copies(2);  // before it is active here, or after: both happen
  Activate(Placement(2, 1));
  set_copies(2);
  std::size_t before = 0;
  {
    const std::lock_guard lock(mutex_);
    before = rows_told_;
  }
  EXPECT_EQ(run(2), want);
  ASSERT_TRUE(WaitFor([&] { return rows_told_ > before; }));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(hellos_, 1) << "the stream goes on";
}

TEST_F(StageHostTest, OtherNodesThatCannotBeReachedBreakTheLinksAndNotTheStages) {
  PlacementRecord record = Placement(1, 0);
  record.stages.back().node.bytes.fill(8);
  AskLoop(loop_, [&] {
    for (std::int32_t i = 0; i < 2; ++i) host_->Load(record, i, {});
    return 0;
  });
  ASSERT_TRUE(WaitFor([&] { return ready_[1] == 2; }));
  AskLoop(loop_, [&] {
    for (std::int32_t i = 0; i < 2; ++i) host_->Activate(record, i);
    return 0;
  });
  // The cluster does not wait for that: it places the lost stage here.
  Load(Placement(2, 1), StageSource::Kind::kRunning);
  Activate(Placement(2, 1));
  EXPECT_EQ(Answer(2).size(), 16U) << "the third one had nothing to take over and was loaded";
  const std::lock_guard lock(mutex_);
  EXPECT_TRUE(failed_.empty());
}

}  // namespace
}  // namespace shoal
