// Frames over a socketpair: whole, bounded, ended by word or cut.
#include "transport/stream_link.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "wire/frame.h"

namespace shoal {
namespace {

constexpr std::size_t kFrameMax = 1U << 20;

FrameBytes Frame(std::size_t payload_bytes, std::uint8_t fill = 7) {
  FrameBytes frame(kFrameHeaderBytes + payload_bytes, fill);
  SealFrame(FrameType::kBatch, 3, frame);
  return frame;
}

struct Ends {
  Ends() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a = MakeStreamLink(fds[0], kFrameMax);
    b = MakeStreamLink(fds[1], kFrameMax);
  }
  StreamLink a, b;
};

TEST(StreamLink, FramesArriveWholeAndInOrderBothWays) {
  Ends ends;
  std::thread writer([&] {
    for (std::size_t i = 0; i < 200; ++i) ASSERT_TRUE(ends.a.sender->Send(Frame(i * 997 % 50'000)).ok());
  });
  for (std::size_t i = 0; i < 200; ++i) EXPECT_EQ(ends.b.receiver->Receive(), Frame(i * 997 % 50'000));
  writer.join();
  ASSERT_TRUE(ends.b.sender->Send(Frame(0)).ok());
  EXPECT_EQ(ends.a.receiver->Receive(), Frame(0));
}

TEST(StreamLink, WhoSaysNothingInTimeIsNotHeardAnyMore) {
  Ends ends;
  LimitFirstFrames(*ends.b.receiver, 2, std::chrono::milliseconds(50));
  ASSERT_TRUE(ends.a.sender->Send(Frame(1)).ok());
  EXPECT_EQ(ends.b.receiver->Receive(), Frame(1));
  EXPECT_EQ(ends.b.receiver->Receive(), std::nullopt) << "nothing came";
  ASSERT_TRUE(ends.a.sender->Send(Frame(2)).ok());
  EXPECT_EQ(ends.b.receiver->Receive(), std::nullopt) << "too late";
}

TEST(StreamLink, AFrameThatComesInDripsIsNotWaitedForLonger) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  StreamLink link = MakeStreamLink(fds[0], kFrameMax);
  LimitFirstFrames(*link.receiver, 1, std::chrono::milliseconds(100));
  std::atomic<bool> done{false};
  std::thread dripper([&] {
    const FrameBytes frame = Frame(1 << 16);
    for (std::size_t at = 0; !done; at = (at + 1) % frame.size()) {
      static_cast<void>(write(fds[1], &frame[at], 1));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  EXPECT_EQ(link.receiver->Receive(), std::nullopt);
  done = true;
  dripper.join();
  close(fds[1]);
}

TEST(StreamLink, AfterItsFirstFramesAStreamHasAllTheTime) {
  Ends ends;
  LimitFirstFrames(*ends.b.receiver, 1, std::chrono::milliseconds(20));
  ASSERT_TRUE(ends.a.sender->Send(Frame(1)).ok());
  EXPECT_EQ(ends.b.receiver->Receive(), Frame(1));
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    EXPECT_TRUE(ends.a.sender->Send(Frame(2)).ok());
  });
  EXPECT_EQ(ends.b.receiver->Receive(), Frame(2));
  later.join();
}

// Long frames are read in growing pieces: sizes around every border of theirs.
TEST(StreamLink, LongFramesArriveWhole) {
  Ends ends;
  std::vector<std::size_t> payloads;
  for (std::size_t border = 256U << 10; border <= kFrameMax; border *= 2) {
    for (std::size_t more = 0; more < 3; ++more) payloads.push_back(border - kFrameHeaderBytes - more);
    if (border < kFrameMax) payloads.push_back(border + 1);
  }
  const auto nth = [&](std::size_t i) {
    FrameBytes frame = Frame(payloads[i]);
    for (std::size_t at = kFrameHeaderBytes; at < frame.size(); ++at)
      frame[at] = static_cast<std::uint8_t>(at * 31 >> 3);
    SealFrame(FrameType::kBatch, i, frame);
    return frame;
  };
  std::thread writer([&] {
    for (std::size_t i = 0; i < payloads.size(); ++i) ASSERT_TRUE(ends.a.sender->Send(nth(i)).ok());
  });
  for (std::size_t i = 0; i < payloads.size(); ++i) EXPECT_TRUE(ends.b.receiver->Receive() == nth(i)) << payloads[i];
  writer.join();
}

TEST(StreamLink, AnEndThatWasSaidIsToldFromACut) {
  {
    Ends ends;
    ASSERT_TRUE(ends.a.sender->Send(Frame(10)).ok());
    ends.a.sender->Close();
    EXPECT_EQ(ends.b.receiver->Receive(), Frame(10));
    EXPECT_FALSE(ends.b.receiver->Receive());
    EXPECT_TRUE(EndedCleanly(*ends.b.receiver));
    EXPECT_FALSE(ends.a.sender->Send(Frame(1)).ok());
  }
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  StreamLink link = MakeStreamLink(fds[0], kFrameMax);
  close(fds[1]);
  EXPECT_FALSE(link.receiver->Receive());
  EXPECT_FALSE(EndedCleanly(*link.receiver));
}

// Every prefix of a frame: the stream ends, nothing is made up.
TEST(StreamLink, ACutFrameIsNoFrame) {
  const FrameBytes whole = Frame(40);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    int fds[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    StreamLink link = MakeStreamLink(fds[0], kFrameMax);
    ASSERT_EQ(write(fds[1], whole.data(), size), static_cast<ssize_t>(size));
    close(fds[1]);
    EXPECT_FALSE(link.receiver->Receive()) << size;
    EXPECT_FALSE(EndedCleanly(*link.receiver));
  }
}

TEST(StreamLink, AHeaderThatIsNoneOrTooLongEndsTheStreamBeforeAnyAllocation) {
  FrameBytes garbage(kFrameHeaderBytes, 0x5A);
  FrameBytes huge = Frame(0);
  huge[8] = huge[9] = huge[10] = 0xFF;  // 16 MiB of payload announced
  for (const FrameBytes& bad : {garbage, huge}) {
    int fds[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    StreamLink link = MakeStreamLink(fds[0], kFrameMax);
    const FrameBytes good = Frame(5);
    ASSERT_EQ(write(fds[1], bad.data(), bad.size()), static_cast<ssize_t>(bad.size()));
    ASSERT_EQ(write(fds[1], good.data(), good.size()), static_cast<ssize_t>(good.size()));
    EXPECT_FALSE(link.receiver->Receive());
    EXPECT_FALSE(link.receiver->Receive()) << "what follows is not trusted either";
    close(fds[1]);
  }
}

TEST(StreamLink, ClosingWakesWhoeverWaits) {
  Ends ends;
  std::atomic<bool> received{false};
  std::thread reader([&] {
    EXPECT_FALSE(ends.a.receiver->Receive());
    received = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(received);
  ends.a.receiver->Close();
  reader.join();

  // A writer that nobody reads from: the socket's buffers fill, Send blocks until Close cuts it off.
  std::atomic<std::uint64_t> sent{0};
  std::thread writer([&] {
    while (ends.b.sender->Send(Frame(60'000)).ok()) ++sent;
  });
  std::uint64_t before = 0;
  do {
    before = sent;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  } while (sent != before);
  ends.b.sender->Close();
  writer.join();
  EXPECT_LT(sent, 100U) << "back-pressure must come long before this";
}

}  // namespace
}  // namespace shoal
