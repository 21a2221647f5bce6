// Round trips and refusals of what is said to copies.
#include "wire/copy_messages.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace shoal {
namespace {

CopyRows SomeRows() { return {3, 7, {1, 2, 3}, {9, 8, 7, 6}, WireType::kBf16, {5, 4}}; }

TEST(CopyMessages, ComeBackAsTheyWere) {
  const CopyHello hello{"SmolLM2", 77, 10, 20, 5};
  const Result<CopyHello> hello_back = DecodeCopyHello(EncodeCopyHello(hello));
  ASSERT_TRUE(hello_back.ok());
  EXPECT_EQ(*hello_back, hello);
  for (const CopyRows& rows : {SomeRows(), CopyRows{0, 4, {}, {}, WireType::kF32, {}}}) {
    const Result<CopyRows> back = DecodeCopyRows(EncodeCopyRows(rows));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, rows);
  }
  EXPECT_EQ(DecodeCopyRows(EncodeCopyHello(hello)).error().code, ErrorCode::kCorrupt);
}

// SHOAL_FUZZ_SEEDS=tests/fuzz/stream_messages writes what the fuzz target begins with of these.
TEST(CopyMessages, SeedsOfTheFuzzTarget) {
  const auto keep = [](const char* name, const std::vector<std::uint8_t>& frame) {
    if (const char* const folder = std::getenv("SHOAL_FUZZ_SEEDS"); folder != nullptr) {
      std::ofstream(std::string(folder) + "/" + name, std::ios::binary)
          .write(reinterpret_cast<const char*>(frame.data()), static_cast<std::streamsize>(frame.size()));
    }
  };
  const auto hello = EncodeCopyHello({"SmolLM2", 77, 10, 20, 5});
  ASSERT_TRUE(DecodeCopyHello(hello).ok());
  keep("copy_hello", hello);
  const auto rows = EncodeCopyRows(SomeRows());
  ASSERT_TRUE(DecodeCopyRows(rows).ok());
  keep("copy_rows", rows);
  const auto forgotten = EncodeCopyRows({0, 4, {}, {}, WireType::kF32, {}});
  ASSERT_TRUE(DecodeCopyRows(forgotten).ok());
  keep("copy_rows_none", forgotten);
}

// Every prefix, and every value of every byte, under a sound header: what is accepted is written as it came.
TEST(CopyMessages, BrokenBytesAreRefused) {
  const auto whole = EncodeCopyRows(SomeRows());
  for (std::size_t size = kFrameHeaderBytes; size < whole.size(); ++size) {
    std::vector<std::uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    SealFrame(FrameType::kCopyRows, 0, cut);
    EXPECT_FALSE(DecodeCopyRows(cut).ok()) << size;
  }
  for (std::size_t at = kFrameHeaderBytes; at < whole.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      auto frame = whole;
      frame[at] = static_cast<std::uint8_t>(value);
      SealFrame(FrameType::kCopyRows, 0, frame);
      const Result<CopyRows> decoded = DecodeCopyRows(frame);
      if (decoded.ok()) { EXPECT_EQ(EncodeCopyRows(*decoded), frame); }
    }
  }
}

}  // namespace
}  // namespace shoal
