// Every range of every parameter, at its borders and with NaN.
#include "sample/params.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

namespace shoal {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

using Change = std::function<void(SamplingParams&)>;

Status ValidateWith(const Change& change) {
  SamplingParams params;
  change(params);
  return Validate(params);
}

void ExpectRefused(const std::string& field, const std::string& value, const Change& change) {
  const Status status = ValidateWith(change);
  ASSERT_FALSE(status.ok()) << field << " = " << value;
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(status.error().message.find(field), std::string::npos) << status.error().message;
  EXPECT_NE(status.error().message.find(value), std::string::npos) << status.error().message;
}

TEST(Validate, DefaultsAreValid) { EXPECT_TRUE(Validate(SamplingParams{}).ok()); }

TEST(Validate, NumbersAtTheirBordersAreValid) {
  const Change valid[] = {[](SamplingParams& p) { p.temperature = 0; },
                          [](SamplingParams& p) { p.temperature = 100; },
                          [](SamplingParams& p) { p.top_k = 0; },
                          [](SamplingParams& p) { p.top_p = 1; },
                          [](SamplingParams& p) { p.top_p = 0; },
                          [](SamplingParams& p) { p.min_p = 1; },
                          [](SamplingParams& p) { p.typical_p = 0; },
                          [](SamplingParams& p) { p.penalty_last_n = -1; },
                          [](SamplingParams& p) { p.repeat_penalty = 0.1F; },
                          [](SamplingParams& p) { p.frequency_penalty = -2; },
                          [](SamplingParams& p) { p.presence_penalty = 2; },
                          [](SamplingParams& p) { p.logprobs = 0; },
                          [](SamplingParams& p) { p.logprobs = kLogprobsMax; }};
  for (const Change& change : valid) EXPECT_TRUE(ValidateWith(change).ok());
}

TEST(Validate, RefusesWhatIsOutOfRangeAndNamesIt) {
  ExpectRefused("temperature", "-0.1", [](SamplingParams& p) { p.temperature = -0.1F; });
  ExpectRefused("temperature", "inf", [](SamplingParams& p) { p.temperature = kInf; });
  ExpectRefused("top_k", "-1", [](SamplingParams& p) { p.top_k = -1; });
  ExpectRefused("top_p", "1.5", [](SamplingParams& p) { p.top_p = 1.5F; });
  ExpectRefused("top_p", "-1", [](SamplingParams& p) { p.top_p = -1; });
  ExpectRefused("min_p", "2", [](SamplingParams& p) { p.min_p = 2; });
  ExpectRefused("typical_p", "-2", [](SamplingParams& p) { p.typical_p = -2; });
  ExpectRefused("penalty_last_n", "-2", [](SamplingParams& p) { p.penalty_last_n = -2; });
  ExpectRefused("repeat_penalty", "0", [](SamplingParams& p) { p.repeat_penalty = 0; });
  ExpectRefused("repeat_penalty", "-1", [](SamplingParams& p) { p.repeat_penalty = -1; });
  ExpectRefused("frequency_penalty", "inf", [](SamplingParams& p) { p.frequency_penalty = kInf; });
  ExpectRefused("presence_penalty", "-inf", [](SamplingParams& p) { p.presence_penalty = -kInf; });
  ExpectRefused("logprobs", "21", [](SamplingParams& p) { p.logprobs = 21; });
  ExpectRefused("logprobs", "-2", [](SamplingParams& p) { p.logprobs = -2; });
}

TEST(Validate, NanIsNeverValid) {
  ExpectRefused("temperature", "nan", [](SamplingParams& p) { p.temperature = kNan; });
  ExpectRefused("top_p", "nan", [](SamplingParams& p) { p.top_p = kNan; });
  ExpectRefused("min_p", "nan", [](SamplingParams& p) { p.min_p = kNan; });
  ExpectRefused("typical_p", "nan", [](SamplingParams& p) { p.typical_p = kNan; });
  ExpectRefused("repeat_penalty", "nan", [](SamplingParams& p) { p.repeat_penalty = kNan; });
  ExpectRefused("frequency_penalty", "nan", [](SamplingParams& p) { p.frequency_penalty = kNan; });
  ExpectRefused("presence_penalty", "nan", [](SamplingParams& p) { p.presence_penalty = kNan; });
  ExpectRefused("logit_bias", "nan", [](SamplingParams& p) { p.logit_bias = {{1, kNan}}; });
}

TEST(Validate, LogitBias) {
  EXPECT_TRUE(ValidateWith([](SamplingParams& p) { p.logit_bias = {{5, -kInf}, {6, 100}}; }).ok());
  EXPECT_TRUE(ValidateWith([](SamplingParams& p) { p.logit_bias.resize(kLogitBiasMax); }).ok());
  ExpectRefused("logit_bias", "1025", [](SamplingParams& p) { p.logit_bias.resize(kLogitBiasMax + 1); });
  ExpectRefused("logit_bias", "-7", [](SamplingParams& p) { p.logit_bias = {{-7, 1}}; });
  ExpectRefused("logit_bias", "inf", [](SamplingParams& p) { p.logit_bias = {{7, kInf}}; });
}

TEST(Validate, Grammar) {
  EXPECT_TRUE(ValidateWith([](SamplingParams& p) { p.grammar.assign(kGrammarBytesMax, 'x'); }).ok());
  ExpectRefused("grammar", "262145", [](SamplingParams& p) { p.grammar.assign(kGrammarBytesMax + 1, 'x'); });
  EXPECT_TRUE(ValidateWith([](SamplingParams& p) { p.grammar_triggers = {{3, ""}, {-1, "<tool>"}}; }).ok());
  ExpectRefused("grammar trigger", "neither", [](SamplingParams& p) { p.grammar_triggers = {{-1, ""}}; });
  ExpectRefused("grammar_triggers", "257", [](SamplingParams& p) {
    p.grammar_triggers.resize(kGrammarTriggersMax + 1, {1, ""});
  });
  ExpectRefused("grammar_triggers", "262146", [](SamplingParams& p) {
    p.grammar_triggers.assign(2, {-1, std::string(kGrammarBytesMax / 2 + 1, 'x')});
  });
  ExpectRefused("preserved_tokens", "1025", [](SamplingParams& p) { p.preserved_tokens.resize(1025); });
  ExpectRefused("preserved token", "-1", [](SamplingParams& p) { p.preserved_tokens = {-1}; });
  EXPECT_TRUE(ValidateWith([](SamplingParams& p) { p.grammar_prefill.resize(kGrammarPrefillMax); }).ok());
  ExpectRefused("grammar_prefill", "4097", [](SamplingParams& p) { p.grammar_prefill.resize(4097); });
  ExpectRefused("grammar_prefill token", "-1", [](SamplingParams& p) { p.grammar_prefill = {-1}; });
}

}  // namespace
}  // namespace shoal
