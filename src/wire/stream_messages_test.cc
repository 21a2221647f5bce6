// Round trips and refusals of the messages on streams between nodes.
#include "wire/stream_messages.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

TEST(StreamMessages, ComeBackAsTheyWere) {
  const PipeHello hello{PipeKind::kResults, 2, 0};
  const Result<PipeHelloFrame> pipe = DecodePipeHello(EncodePipeHello(hello, 77));
  ASSERT_TRUE(pipe.ok());
  EXPECT_EQ(pipe->hello, hello);
  EXPECT_EQ(pipe->epoch, 77U);

  const GenerateMessage generate{"SmolLM2", 32};
  const Result<GenerateMessage> generate_back = DecodeGenerate(EncodeGenerate(generate, 5));
  ASSERT_TRUE(generate_back.ok());
  EXPECT_EQ(*generate_back, generate);

  const GeneratedMessage generated{GeneratedKind::kLength, 17};
  const Result<GeneratedMessage> generated_back = DecodeGenerated(EncodeGenerated(generated, 5));
  ASSERT_TRUE(generated_back.ok());
  EXPECT_EQ(*generated_back, generated);
}

TEST(StreamMessages, ALongModelNameIsCut) {
  const Result<GenerateMessage> back = DecodeGenerate(EncodeGenerate({std::string(1000, 'm'), 1}, 1));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->model.size(), kGenerateModelBytesMax);
}

TEST(StreamMessages, AnotherTypeIsRefused) {
  const auto frame = EncodeGenerated({}, 1);
  EXPECT_EQ(DecodePipeHello(frame).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(DecodeGenerate(frame).error().code, ErrorCode::kCorrupt);
}

// Every prefix, and every value of every byte, under a sound header: never a crash, and what is accepted is in range.
TEST(StreamMessages, BrokenBytesAreRefused) {
  const auto whole = EncodePipeHello({PipeKind::kInput, 1, 2}, 3);
  for (std::size_t size = kFrameHeaderBytes; size < whole.size(); ++size) {
    std::vector<std::uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    SealFrame(FrameType::kPipeHello, 3, cut);
    EXPECT_FALSE(DecodePipeHello(cut).ok()) << size;
  }
  for (std::size_t at = kFrameHeaderBytes; at < whole.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      auto frame = whole;
      frame[at] = static_cast<std::uint8_t>(value);
      SealFrame(FrameType::kPipeHello, 3, frame);
      const Result<PipeHelloFrame> decoded = DecodePipeHello(frame);
      if (decoded.ok()) {
        EXPECT_GE(decoded->hello.from, 0);
        EXPECT_LT(decoded->hello.to, 4096);
      }
    }
  }
}

}  // namespace
}  // namespace shoal
