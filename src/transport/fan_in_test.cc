// Frames of several senders arrive whole and in each sender's order; the link ends with the last of them.
#include "transport/fan_in.h"

#include <gtest/gtest.h>

#include <thread>

#include "transport/memory.h"

namespace shoal {
namespace {

TEST(FanIn, KeepsEachSendersOrderAndEndsWithTheLast) {
  MemoryLink link = MakeMemoryLink(4);
  auto senders = FanIn(std::move(link.sender), 3);
  std::vector<std::thread> threads;
  for (std::uint8_t who = 0; who < 3; ++who) {
    threads.emplace_back([&senders, who] {
      for (std::uint8_t i = 0; i < 100; ++i) ASSERT_TRUE(senders[who]->Send({who, i}).ok());
      senders[who]->Close();
    });
  }
  std::uint8_t next[3] = {0, 0, 0};
  int frames = 0;
  while (auto frame = link.receiver->Receive()) {
    ASSERT_EQ(frame->size(), 2U);
    EXPECT_EQ((*frame)[1], next[(*frame)[0]]++);
    ++frames;
  }
  EXPECT_EQ(frames, 300);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(senders[0]->Send({9, 9}).error().code, ErrorCode::kUnavailable);
}

TEST(FanIn, StaysOpenWhileOneSenderIsOpen) {
  MemoryLink link = MakeMemoryLink(4);
  auto senders = FanIn(std::move(link.sender), 2);
  senders[0].reset();
  ASSERT_TRUE(senders[1]->Send({7}).ok());
  EXPECT_EQ(link.receiver->Receive(), FrameBytes{7});
  senders[1].reset();
  EXPECT_FALSE(link.receiver->Receive().has_value());
}

}  // namespace
}  // namespace shoal
