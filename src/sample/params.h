// What a client may ask of sampling, its defaults and its limits. Plain data: it travels on the wire to the last stage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace shoal {

struct LogitBias {
  TokenId token = 0;
  float bias = 0;  // added to the logit; -infinity forbids
  bool operator==(const LogitBias&) const = default;
};

// When a lazy grammar starts to bind (tool calls): at a token, or where a pattern matches the output so far.
struct GrammarTrigger {
  TokenId token = -1;   // >= 0: this token
  std::string pattern;  // else: a regular expression; the grammar is fed from its first match group
  bool operator==(const GrammarTrigger&) const = default;
};

// Order of application: logit bias, grammar, penalties, top-k, typical, top-p, min-p, temperature, draw.
struct SamplingParams {
  float temperature = 0.8F;          // 0: the most likely token
  std::int32_t top_k = 40;           // 0: all
  float top_p = 0.95F;               // 1: off
  float min_p = 0.05F;               // 0: off
  float typical_p = 1.0F;            // 1: off
  std::int32_t penalty_last_n = 64;  // tokens that the penalties look back on; 0: off, -1: the whole context
  float repeat_penalty = 1.0F;       // 1: off; > 0
  float frequency_penalty = 0.0F;
  float presence_penalty = 0.0F;
  std::vector<LogitBias> logit_bias;
  std::uint64_t seed = 0;      // chosen by the entry node when the client gave none
  std::int32_t logprobs = -1;  // >= 0: report the chosen token's log-probability and this many alternatives
  bool ignore_end = false;     // never end at an end-of-generation token
  std::string grammar;         // GBNF; empty: none
  bool grammar_lazy = false;   // binds only from the first trigger
  std::vector<GrammarTrigger> grammar_triggers;
  std::vector<TokenId> preserved_tokens;  // special tokens the grammar may see as text
  // The start of the answer that stands at the end of the prompt already ("<|im_start|>assistant"): the grammar takes
  // these before the first sampled token, unless it is lazy.
  std::vector<TokenId> grammar_prefill;
  bool operator==(const SamplingParams&) const = default;
};

inline constexpr std::int32_t kLogprobsMax = 20;
inline constexpr std::size_t kLogitBiasMax = 1024;
inline constexpr std::size_t kGrammarBytesMax = 256 * 1024;
inline constexpr std::size_t kGrammarTriggersMax = 256;
inline constexpr std::size_t kPreservedTokensMax = 1024;
inline constexpr std::size_t kGrammarPrefillMax = 4096;

// Errors: kInvalidArgument, naming the field, its value and its range. NaN is never valid.
Status Validate(const SamplingParams& params);

// One token with its natural log-probability under the model (before temperature and truncation, as OpenAI's).
struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

// What the last stage says of one sampled position.
struct SampledToken {
  TokenId token = 0;
  bool end = false;                        // an end-of-generation token (or the grammar is complete)
  float logprob = 0;                       // valid when the request asked for logprobs
  std::vector<TokenLogprob> alternatives;  // most likely first
  bool operator==(const SampledToken&) const = default;
};

}  // namespace shoal
