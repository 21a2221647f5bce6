// What counts as one stream, many, and a prompt by itself; time is made up.
#include "planner/observed_speed.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

// Generations that prefill and decode at given speeds.
class ObservedSpeedTest : public ::testing::Test {
 protected:
  void Note(double after_s = 0) { observed_.Note(now_s_ += after_s, load_); }
  // One prompt by itself, in passes of 64 rows, up to its first token.
  void Read(int tokens, double seconds) {
    load_.prefilling = 1;
    load_.tokens_prefilled += static_cast<std::uint64_t>(tokens);  // all sent at once
    Note();
    Note(seconds / 2);  // a pass came back
    load_.prefilling = 0;
    load_.decoding = 1;
    ++load_.tokens_decoded;
    Note(seconds / 2);
  }
  void Decode(int streams, int rounds, double round_s) {
    load_.decoding = streams;
    Note();
    for (int i = 0; i < rounds; ++i) {
      load_.tokens_decoded += static_cast<std::uint64_t>(streams);
      Note(round_s);
    }
  }
  void Rest(double seconds) {
    load_.decoding = load_.prefilling = 0;
    Note();
    Note(seconds);
  }

  ObservedSpeed observed_;
  ObservedSpeed::Load load_;
  double now_s_ = 1000;
};

TEST_F(ObservedSpeedTest, NothingIsSaidBeforeItIsMeasured) {
  EXPECT_EQ(observed_.speeds(), ObservedSpeeds());
  Note();
  Note(60);
  Decode(1, 15, 0.1);  // one token too few
  EXPECT_EQ(observed_.speeds(), ObservedSpeeds());
}

TEST_F(ObservedSpeedTest, ARequestByItselfGivesItsPromptsAndItsAnswersSpeed) {
  Note();
  Read(512, 0.5);
  Decode(1, 100, 0.04);
  Rest(500);
  const ObservedSpeeds speeds = observed_.speeds();
  EXPECT_NEAR(speeds.prompt_tokens_s, 1024, 1e-6);
  EXPECT_NEAR(speeds.tokens_s, 25, 1e-6);
  EXPECT_EQ(speeds.tokens_s_many, 0);
}

TEST_F(ObservedSpeedTest, ShortPromptsAndThoseInCompanyDoNotCount) {
  Note();
  Read(20, 0.5);  // less than a pass
  Decode(1, 4, 0.04);
  load_.prefilling = 1;  // beside an answer
  load_.tokens_prefilled += 512;
  Note();
  load_.prefilling = 0;
  load_.decoding = 2;
  ++load_.tokens_decoded;
  Note(3);
  Rest(1);
  load_.prefilling = 2;  // two at once
  load_.tokens_prefilled += 600;
  Note();
  load_.prefilling = 1;
  load_.decoding = 1;
  ++load_.tokens_decoded;
  Note(2);
  Rest(1);
  load_.prefilling = 1;  // cancelled before its first token
  load_.tokens_prefilled += 512;
  Note();
  Rest(1);
  EXPECT_EQ(observed_.speeds().prompt_tokens_s, 0);
}

TEST_F(ObservedSpeedTest, ManyStreamsAreCountedTogetherWithTheirNumber) {
  Note();
  Decode(8, 50, 0.1);
  Decode(4, 50, 0.1);
  // What decodes while a prompt is read is no figure of decoding.
  load_.prefilling = 1;
  Note();
  load_.tokens_decoded += 4;
  Note(10);
  const ObservedSpeeds speeds = observed_.speeds();
  EXPECT_NEAR(speeds.tokens_s_many, 60, 1e-6);
  EXPECT_NEAR(speeds.streams, 6, 1e-6);
  EXPECT_EQ(speeds.tokens_s, 0);
}

TEST_F(ObservedSpeedTest, WhatIsLongAgoIsForgottenByWorkNotByRest) {
  Note();
  Decode(1, 300, 0.1);
  Rest(3600);
  EXPECT_NEAR(observed_.speeds().tokens_s, 10, 1e-6);
  Decode(1, 200, 0.2);  // 40 s
  EXPECT_NEAR(observed_.speeds().tokens_s, 5, 1e-6);
}

TEST(ObservedSpeeds, AFifthIsNews) {
  const ObservedSpeeds told{10, 40, 8, 500};
  EXPECT_FALSE(Differs({}, told)) << "a new placement has measured nothing yet";
  EXPECT_FALSE(Differs({11, 44, 8, 450}, told));
  EXPECT_TRUE(Differs({12.5, 40, 8, 500}, told));
  EXPECT_TRUE(Differs({10, 40, 8, 390}, told));
  EXPECT_TRUE(Differs({10, 0, 0, 0}, {}));
}

}  // namespace
}  // namespace shoal
