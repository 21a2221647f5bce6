// The link's order, its limit and its end from either side; and a long run between two threads (run with TSan too).
#include "transport/memory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace shoal {
namespace {

TEST(MemoryLink, CarriesWholeFramesInOrder) {
  MemoryLink link = MakeMemoryLink(3);
  ASSERT_TRUE(link.sender->Send({1, 2, 3}).ok());
  ASSERT_TRUE(link.sender->Send({}).ok());
  ASSERT_TRUE(link.sender->Send({4}).ok());
  EXPECT_EQ(link.receiver->Receive(), (FrameBytes{1, 2, 3}));
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{});
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{4});
}

TEST(MemoryLink, ReceiverDrainsWhatWasSentBeforeTheSenderClosed) {
  MemoryLink link = MakeMemoryLink(2);
  ASSERT_TRUE(link.sender->Send({1}).ok());
  link.sender->Close();
  link.sender->Close();
  const Status late = link.sender->Send({2});
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{1});
  EXPECT_EQ(link.receiver->Receive(), std::nullopt);
  EXPECT_EQ(link.receiver->Receive(), std::nullopt);
}

TEST(MemoryLink, EitherEndMayOutliveTheOther) {
  MemoryLink link = MakeMemoryLink(2);
  ASSERT_TRUE(link.sender->Send({7}).ok());
  link.sender.reset();
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{7});
  EXPECT_EQ(link.receiver->Receive(), std::nullopt);

  link = MakeMemoryLink(2);
  link.receiver.reset();
  EXPECT_EQ(link.sender->Send({7}).error().code, ErrorCode::kUnavailable);
}

TEST(MemoryLink, SendWaitsWhileTheReceiverLags) {
  MemoryLink link = MakeMemoryLink(1);
  ASSERT_TRUE(link.sender->Send({1}).ok());
  std::atomic<bool> sent{false};
  std::thread sender([&] {
    EXPECT_TRUE(link.sender->Send({2}).ok());
    sent = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(sent);
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{1});
  sender.join();
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{2});
}

TEST(MemoryLink, CloseWakesABlockedReceiveAndABlockedSend) {
  MemoryLink idle = MakeMemoryLink(1), full = MakeMemoryLink(1);
  ASSERT_TRUE(full.sender->Send({1}).ok());
  std::thread receiver([&] { EXPECT_EQ(idle.receiver->Receive(), std::nullopt); });
  std::thread sender([&] { EXPECT_FALSE(full.sender->Send({2}).ok()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  idle.receiver->Close();
  full.receiver->Close();
  receiver.join();
  sender.join();
}

TEST(MemoryLink, NothingIsLostBetweenTwoThreads) {
  constexpr std::uint32_t kFrames = 5000;
  MemoryLink link = MakeMemoryLink(4);
  std::thread sender([&] {
    for (std::uint32_t i = 0; i < kFrames; ++i) {
      FrameBytes frame(i % 50 + 2);
      frame.front() = static_cast<std::uint8_t>(i);
      frame.back() = static_cast<std::uint8_t>(i >> 8);
      ASSERT_TRUE(link.sender->Send(std::move(frame)).ok());
    }
    link.sender->Close();
  });
  std::uint32_t received = 0;
  while (const auto frame = link.receiver->Receive()) {
    ASSERT_EQ(frame->size(), received % 50 + 2);
    ASSERT_EQ(frame->front(), static_cast<std::uint8_t>(received));
    ASSERT_EQ(frame->back(), static_cast<std::uint8_t>(received >> 8));
    ++received;
  }
  EXPECT_EQ(received, kFrames);
  sender.join();
}

TEST(MemoryLinkDeathTest, NeedsRoomForOneFrame) { EXPECT_DEATH(MakeMemoryLink(0), "capacity > 0"); }

}  // namespace
}  // namespace shoal
