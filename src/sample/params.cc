// The ranges of the sampling parameters, one line a field. Knows no vocabulary: a token id is checked against 0 only.
#include "sample/params.h"

#include <cmath>
#include <cstdio>
#include <limits>

namespace shoal {
namespace {

Error Invalid(const char* field, const std::string& value, const char* range) {
  return {ErrorCode::kInvalidArgument, std::string(field) + " is " + value + "; it must be " + range};
}

std::string Text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// NaN fails every range.
Status CheckReal(const char* field, float value, float low, float high, const char* range) {
  if (value >= low && value <= high) return {};
  return Invalid(field, Text(static_cast<double>(value)), range);
}

Status CheckAtLeast(const char* field, std::int64_t value, std::int64_t low, const char* range) {
  if (value >= low) return {};
  return Invalid(field, std::to_string(value), range);
}

Status CheckCount(const char* field, std::size_t count, std::size_t count_max, const char* unit) {
  if (count <= count_max) return {};
  return Error{ErrorCode::kInvalidArgument, std::string(field) + " has " + std::to_string(count) + " " + unit +
                                                "; the limit is " + std::to_string(count_max)};
}

Status CheckNumbers(const SamplingParams& p) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kLeast = std::numeric_limits<float>::min();
  SHOAL_RETURN_IF_ERROR(CheckReal("temperature", p.temperature, 0, kMax, "at least 0"));
  SHOAL_RETURN_IF_ERROR(CheckAtLeast("top_k", p.top_k, 0, "at least 0 (0: all)"));
  SHOAL_RETURN_IF_ERROR(CheckReal("top_p", p.top_p, 0, 1, "from 0 to 1"));
  SHOAL_RETURN_IF_ERROR(CheckReal("min_p", p.min_p, 0, 1, "from 0 to 1"));
  SHOAL_RETURN_IF_ERROR(CheckReal("typical_p", p.typical_p, 0, 1, "from 0 to 1"));
  SHOAL_RETURN_IF_ERROR(CheckAtLeast("penalty_last_n", p.penalty_last_n, -1, "at least -1 (-1: the whole context)"));
  SHOAL_RETURN_IF_ERROR(CheckReal("repeat_penalty", p.repeat_penalty, kLeast, kMax, "above 0"));
  SHOAL_RETURN_IF_ERROR(CheckReal("frequency_penalty", p.frequency_penalty, -kMax, kMax, "a finite number"));
  SHOAL_RETURN_IF_ERROR(CheckReal("presence_penalty", p.presence_penalty, -kMax, kMax, "a finite number"));
  if (p.logprobs < -1 || p.logprobs > kLogprobsMax) {
    return Invalid("logprobs", std::to_string(p.logprobs), "from 0 to 20, or -1 for none");
  }
  return {};
}

Status CheckLogitBias(const SamplingParams& p) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  SHOAL_RETURN_IF_ERROR(CheckCount("logit_bias", p.logit_bias.size(), kLogitBiasMax, "entries"));
  for (const LogitBias& entry : p.logit_bias) {
    SHOAL_RETURN_IF_ERROR(CheckAtLeast("a logit_bias token", entry.token, 0, "at least 0"));
    SHOAL_RETURN_IF_ERROR(CheckReal("a logit_bias value", entry.bias, -kInfinity, std::numeric_limits<float>::max(),
                                    "a finite number or -infinity"));
  }
  return {};
}

Status CheckGrammar(const SamplingParams& p) {
  SHOAL_RETURN_IF_ERROR(CheckCount("grammar", p.grammar.size(), kGrammarBytesMax, "bytes"));
  SHOAL_RETURN_IF_ERROR(CheckCount("grammar_triggers", p.grammar_triggers.size(), kGrammarTriggersMax, "entries"));
  std::size_t pattern_bytes = 0;
  for (const GrammarTrigger& trigger : p.grammar_triggers) {
    if (trigger.token < 0 && trigger.pattern.empty()) {
      return Error{ErrorCode::kInvalidArgument, "a grammar trigger has neither a token nor a pattern"};
    }
    pattern_bytes += trigger.pattern.size();
  }
  SHOAL_RETURN_IF_ERROR(CheckCount("grammar_triggers", pattern_bytes, kGrammarBytesMax, "bytes of patterns"));
  SHOAL_RETURN_IF_ERROR(CheckCount("preserved_tokens", p.preserved_tokens.size(), kPreservedTokensMax, "entries"));
  for (const TokenId token : p.preserved_tokens) {
    SHOAL_RETURN_IF_ERROR(CheckAtLeast("a preserved token", token, 0, "at least 0"));
  }
  SHOAL_RETURN_IF_ERROR(CheckCount("grammar_prefill", p.grammar_prefill.size(), kGrammarPrefillMax, "tokens"));
  for (const TokenId token : p.grammar_prefill) {
    SHOAL_RETURN_IF_ERROR(CheckAtLeast("a grammar_prefill token", token, 0, "at least 0"));
  }
  return {};
}

}  // namespace

static_assert(kLogprobsMax == 20, "the message of Validate names the limit");

Status Validate(const SamplingParams& params) {
  SHOAL_RETURN_IF_ERROR(CheckNumbers(params));
  SHOAL_RETURN_IF_ERROR(CheckLogitBias(params));
  return CheckGrammar(params);
}

}  // namespace shoal
