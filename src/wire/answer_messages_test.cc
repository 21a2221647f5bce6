// Messages about answers survive the wire, and what breaks their format is refused.
#include "wire/answer_messages.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace shoal {
namespace {

std::vector<AnswerMessage> Examples() {
  AnswerCopy copy;
  copy.number = 7;
  copy.record.dialect = Dialect::kCompletions;
  copy.record.keep = true;
  copy.record.id = "cmpl-abc";
  copy.record.model = "smollm2";
  copy.record.created_s = 1'700'000'000;
  copy.record.seed = 0xFFFF'FFFF'FFFF'FFFFU;
  copy.record.key.fill(1);
  copy.record.digest.fill(2);
  copy.record.body = R"({"prompt":"x"})";
  AnswerEntries entries{7, 3, {}};
  entries.entries.resize(5);
  entries.entries[0].kind = AnswerEntry::Kind::kReused;
  entries.entries[0].reused_tokens = 12;
  entries.entries[1].token = {42, false, 0, {}};
  entries.entries[2].choice = kAnswerChoicesMax - 1;
  entries.entries[2].token = {0, true, -0.5F, {{1, -0.5F}, {2, -2}}};
  entries.entries[3].kind = AnswerEntry::Kind::kStop;
  entries.entries[4].kind = AnswerEntry::Kind::kLength;
  AnswerAsk by_key;
  by_key.key.fill(9);
  return {copy,
          entries,
          AnswerAsk{"cmpl-abc", {}},
          by_key,
          AnswerFound{AnswerPlace::kHere, copy.record.digest},
          AnswerAttach{AnswerAttach::Mode::kStreamUsage, "17-end"},
          AnswerHeadMessage{503, 5, true},
          AnswerPiece{"data: {}\n\n"}};
}

TEST(AnswerMessages, ComeBackAsTheyWere) {
  for (const AnswerMessage& message : Examples()) {
    const Result<AnswerMessage> again = DecodeAnswerMessage(EncodeAnswerMessage(message));
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(*again, message);
  }
}

// A token without log-probabilities is what most copies are made of.
TEST(AnswerMessages, ATokenIsEightBytes) {
  AnswerEntries none{1, 0, {}}, one = none;
  one.entries.resize(1);
  one.entries[0].token.token = 99;
  EXPECT_EQ(EncodeAnswerMessage(one).size(), EncodeAnswerMessage(none).size() + 8);
}

TEST(AnswerMessages, EveryCutAndEveryExtensionIsRefused) {
  for (const AnswerMessage& message : Examples()) {
    const std::vector<std::uint8_t> whole = EncodeAnswerMessage(message);
    for (std::size_t size = kFrameHeaderBytes; size < whole.size(); ++size) {
      std::vector<std::uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      SealFrame(FrameType::kAnswer, 0, cut);
      EXPECT_FALSE(DecodeAnswerMessage(cut).ok()) << size;
    }
    std::vector<std::uint8_t> longer = whole;
    longer.push_back(0);
    SealFrame(FrameType::kAnswer, 0, longer);
    EXPECT_FALSE(DecodeAnswerMessage(longer).ok());
    std::vector<std::uint8_t> other = whole;
    SealFrame(FrameType::kGenerated, 0, other);
    EXPECT_FALSE(DecodeAnswerMessage(other).ok());
  }
}

TEST(AnswerMessages, NumbersOutOfRangeAreRefused) {
  AnswerEntries entries{1, 0, {}};
  entries.entries.resize(1);
  const std::size_t at = kFrameHeaderBytes + 13;  // of the first entry
  const auto with = [&](std::size_t offset, std::uint8_t value) {
    std::vector<std::uint8_t> frame = EncodeAnswerMessage(entries);
    frame[at + offset] = value;
    SealFrame(FrameType::kAnswer, 0, frame);
    return DecodeAnswerMessage(frame).ok();
  };
  EXPECT_TRUE(with(0, 1));
  EXPECT_FALSE(with(1, 0xFF));  // a choice
  EXPECT_FALSE(with(2, 0));     // a kind
  EXPECT_FALSE(with(2, 9));
  EXPECT_FALSE(with(6, 0x80));  // a token below 0
  EXPECT_FALSE(with(7, 4));     // a flag
}

// SHOAL_FUZZ_SEEDS=tests/fuzz/answer_messages writes the fuzz target's corpus.
TEST(AnswerMessages, SeedsOfTheFuzzTarget) {
  const char* const folder = std::getenv("SHOAL_FUZZ_SEEDS");
  if (folder == nullptr) GTEST_SKIP() << "only when asked for";
  static constexpr const char* kNames[] = {"copy", "entries", "ask_id", "ask_key", "found", "attach", "head", "piece"};
  std::size_t i = 0;
  for (const AnswerMessage& message : Examples()) {
    const std::vector<std::uint8_t> frame = EncodeAnswerMessage(message);
    std::ofstream(std::string(folder) + "/" + kNames[i++], std::ios::binary)
        .write(reinterpret_cast<const char*>(frame.data()), static_cast<std::streamsize>(frame.size()));
  }
}

}  // namespace
}  // namespace shoal
