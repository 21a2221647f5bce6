// Both ends of a generate stream over links in memory, with a scripted head.
#include "node/generation_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/bounded_queue.h"
#include "transport/memory.h"
#include "wire/messages.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct StreamPair {
  StreamLink entry, head;
};

StreamPair MakeStreamPair() {
  MemoryLink down = MakeMemoryLink(16), up = MakeMemoryLink(16);
  return {{std::move(down.sender), std::move(up.receiver)}, {std::move(up.sender), std::move(down.receiver)}};
}

// Says what the test put into its queue.
class ScriptedGeneration final : public GenerationHandle {
 public:
  explicit ScriptedGeneration(BoundedQueue<GenerationEvent>& events, std::atomic<bool>& destroyed)
      : events_(events), destroyed_(destroyed) {}
  ~ScriptedGeneration() override { destroyed_ = true; }
  std::optional<GenerationEvent> Next(milliseconds timeout) override { return events_.PopFor(timeout); }
  std::int32_t reused_tokens() const override { return 3; }

 private:
  BoundedQueue<GenerationEvent>& events_;
  std::atomic<bool>& destroyed_;
};

class GenerationStream : public testing::Test {
 protected:
  void Serve(StreamLink stream) {
    head_ = std::thread([this, stream = std::move(stream)]() mutable {
      ServeGeneration(std::move(stream), [this](Epoch epoch, const std::string& model, GenerateOptions options) {
        epoch_ = epoch;
        model_ = model;
        options_ = std::move(options);
        return Start();
      });
    });
  }
  virtual Result<std::unique_ptr<GenerationHandle>> Start() {
    return std::unique_ptr<GenerationHandle>(std::make_unique<ScriptedGeneration>(events_, destroyed_));
  }
  void PushToken(TokenId token) {
    GenerationEvent event;
    event.token = SampledToken{token, false, -0.5F, {{token, -0.5F}}};
    events_.Push(std::move(event));
  }
  void PushEnd(GenerationEnd end, Error error = {}) {
    GenerationEvent event;
    event.end = end;
    event.error = std::move(error);
    events_.Push(std::move(event));
  }
  ~GenerationStream() override {
    if (head_.joinable()) head_.join();
  }

  BoundedQueue<GenerationEvent> events_{64};
  std::atomic<bool> destroyed_{false};
  Epoch epoch_ = 0;
  std::string model_;
  GenerateOptions options_;
  std::thread head_;
};

GenerateOptions Prompt() {
  GenerateOptions options;
  options.prompt = {1, 2, 3};
  options.sampling.seed = 42;
  options.tokens_max = 5;
  return options;
}

TEST_F(GenerationStream, TokensComeInOrderAndThenTheEnd) {
  StreamPair pair = MakeStreamPair();
  Serve(std::move(pair.head));
  auto handle = OpenRemoteGeneration(std::move(pair.entry), 7, "model", Prompt());
  ASSERT_TRUE(handle.ok());
  for (TokenId token = 10; token < 15; ++token) PushToken(token);
  PushEnd(GenerationEnd::kLength);
  for (TokenId token = 10; token < 15; ++token) {
    const auto event = (*handle)->Next(seconds(5));
    ASSERT_TRUE(event && event->token);
    EXPECT_EQ(event->token->token, token);
    EXPECT_EQ(event->token->alternatives.size(), 1U);
  }
  const auto end = (*handle)->Next(seconds(5));
  ASSERT_TRUE(end && end->end);
  EXPECT_EQ(*end->end, GenerationEnd::kLength);
  EXPECT_EQ((*handle)->reused_tokens(), 3);
  head_.join();
  EXPECT_EQ(epoch_, 7U);
  EXPECT_EQ(model_, "model");
  EXPECT_EQ(options_.prompt, Prompt().prompt);
  EXPECT_EQ(options_.sampling, Prompt().sampling);
  EXPECT_EQ(options_.tokens_max, 5);
}

TEST_F(GenerationStream, DestroyingTheHandleCancelsAtTheHead) {
  StreamPair pair = MakeStreamPair();
  Serve(std::move(pair.head));
  auto handle = OpenRemoteGeneration(std::move(pair.entry), 7, "model", Prompt());
  ASSERT_TRUE(handle.ok());
  handle->reset();
  head_.join();  // would hang if the head did not see it
  EXPECT_TRUE(destroyed_);
}

TEST_F(GenerationStream, AnErrorOfTheGenerationKeepsItsCodeAndWords) {
  StreamPair pair = MakeStreamPair();
  Serve(std::move(pair.head));
  auto handle = OpenRemoteGeneration(std::move(pair.entry), 7, "model", Prompt());
  ASSERT_TRUE(handle.ok());
  PushEnd(GenerationEnd::kError, Error{ErrorCode::kKvFull, "no room"});
  const auto end = (*handle)->Next(seconds(5));
  ASSERT_TRUE(end && end->end);
  EXPECT_EQ(*end->end, GenerationEnd::kError);
  EXPECT_EQ(end->error.code, ErrorCode::kKvFull);
  EXPECT_EQ(end->error.message, "no room");
}

TEST_F(GenerationStream, ALostHeadIsAnErrorNotAnEnd) {
  StreamPair pair = MakeStreamPair();
  StreamLink head = std::move(pair.head);
  std::thread answers([&] {
    ASSERT_TRUE(head.receiver->Receive());
    ASSERT_TRUE(head.receiver->Receive());
    ASSERT_TRUE(head.sender->Send(EncodeGenerated({GeneratedKind::kAccepted, 0}, 7)).ok());
    head.sender->Close();
  });
  auto handle = OpenRemoteGeneration(std::move(pair.entry), 7, "model", Prompt());
  answers.join();
  ASSERT_TRUE(handle.ok());
  const auto end = (*handle)->Next(seconds(5));
  ASSERT_TRUE(end && end->end);
  EXPECT_EQ(end->error.code, ErrorCode::kUnavailable);
}

class RefusedGeneration : public GenerationStream {
 protected:
  Result<std::unique_ptr<GenerationHandle>> Start() override { return Error{ErrorCode::kStale, "an old epoch"}; }
};

TEST_F(RefusedGeneration, TheRefusalReachesWhoAsked) {
  StreamPair pair = MakeStreamPair();
  Serve(std::move(pair.head));
  const auto handle = OpenRemoteGeneration(std::move(pair.entry), 7, "model", Prompt());
  ASSERT_FALSE(handle.ok());
  EXPECT_EQ(handle.error().code, ErrorCode::kStale);
  EXPECT_EQ(handle.error().message, "an old epoch");
}

TEST_F(GenerationStream, ARequestWithoutPromptIsRefused) {
  StreamPair pair = MakeStreamPair();
  Serve(std::move(pair.head));
  ASSERT_TRUE(pair.entry.sender->Send(EncodeGenerate({"model", 1}, 7)).ok());
  ASSERT_TRUE(pair.entry.sender->Send(EncodeControl({}, 7)).ok());
  const auto answer = pair.entry.receiver->Receive();
  ASSERT_TRUE(answer);
  const auto decoded = DecodeFrame(*answer);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<FailureMessage>(decoded->message).code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace shoal
