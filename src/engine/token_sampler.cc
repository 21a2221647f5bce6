// The order is that of sample/params.h. A grammar is tested on the drawn token first and applied to the whole
// vocabulary only when it refuses that; the second draw has a random number of its own, for the first one's is known to
// be where a refused token was.
#include "engine/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <exception>
#include <limits>
#include <regex>
#include <string_view>
#include <unordered_map>

// libllama's own header of its grammars: the patterns of triggers.
#include "../src/llama-grammar.h"
#include "base/check.h"
#include "engine/candidates.h"
#include "engine/grammar_matcher.h"
#include "sample/draw.h"

namespace shoal {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
constexpr float kLogitMax = 1e30F;  // keeps sums of extreme biases and penalties finite

// A grammar that binds from the start, or once a trigger is in the text.
class Grammar {
 public:
  // Errors: kInvalidArgument.
  static Result<std::unique_ptr<Grammar>> Make(const std::shared_ptr<const Vocabulary>& vocabulary,
                                               const SamplingParams& params) {
    auto grammar = std::make_unique<Grammar>();
    SHOAL_ASSIGN_OR_RETURN(grammar->matcher_, GrammarMatcher::Make(vocabulary, params.grammar));
    grammar->vocabulary_ = vocabulary;
    grammar->waits_ = params.grammar_lazy;
    try {
      for (const GrammarTrigger& trigger : params.grammar_triggers) {
        if (trigger.token >= 0) {
          grammar->trigger_tokens_.push_back(trigger.token);
        } else {
          grammar->trigger_patterns_.push_back({trigger.pattern, std::regex(trigger.pattern)});
        }
      }
    } catch (const std::exception& e) {
      return Error{ErrorCode::kInvalidArgument, std::string("grammar: ") + e.what()};
    }
    return grammar;
  }

  // Errors: kInvalidArgument (the grammar does not allow `token`, or leaves too many ways to go on).
  // End-of-generation tokens are not fed: nothing comes after them.
  Status Accept(TokenId token) {
    if (vocabulary_->IsEndOfGeneration(token)) return {};
    const std::string piece = vocabulary_->Piece(token, true);
    if (!waits_) return matcher_->Accept(token, piece);
    if (std::find(trigger_tokens_.begin(), trigger_tokens_.end(), token) != trigger_tokens_.end()) {
      waits_ = false;
      return matcher_->Accept(token, piece);
    }
    waiting_.push_back({token, text_.size()});
    text_ += piece;
    for (const llama_grammar_trigger_pattern& pattern : trigger_patterns_) {
      const std::size_t start = pattern.find(text_);
      if (start != std::string::npos) return Trigger(start);
    }
    return {};
  }

  Result<bool> Allows(TokenId token) {
    if (waits_) return true;
    return matcher_->Allows(token);
  }

  // Sets the logits of all tokens that the grammar does not allow next to -infinity.
  Status Mask(std::span<float> logits) {
    if (waits_) return {};
    allowed_.assign(logits.size(), false);
    SHOAL_RETURN_IF_ERROR(
        matcher_->ForEachAllowed([&](TokenId token) { return logits[static_cast<std::size_t>(token)] != kForbidden; },
                                 [&](TokenId token) { return allowed_[static_cast<std::size_t>(token)] = true; }));
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (!allowed_[i]) logits[i] = kForbidden;
    }
    return {};
  }

  // Nothing but the end may follow.
  Result<bool> Complete() {
    if (waits_) return false;
    const auto& ends = vocabulary_->end_of_generation_tokens();
    if (!ends.empty()) {
      SHOAL_ASSIGN_OR_RETURN(const bool may_end, matcher_->Allows(ends.front()));
      if (!may_end) return false;
    }
    bool more = false;
    SHOAL_RETURN_IF_ERROR(
        matcher_->ForEachAllowed([&](TokenId token) { return !vocabulary_->IsEndOfGeneration(token); },
                                 [&](TokenId) {
                                   more = true;
                                   return false;
                                 }));
    return !more;
  }

 private:
  struct Waiting {
    TokenId token;
    std::size_t begin;  // in text_
  };

  // The grammar gets the text from `start` on.
  Status Trigger(std::size_t start) {
    waits_ = false;
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
      const std::size_t end = i + 1 < waiting_.size() ? waiting_[i + 1].begin : text_.size();
      if (end <= start) continue;
      const std::size_t begin = std::max(waiting_[i].begin, start);
      SHOAL_RETURN_IF_ERROR(matcher_->Accept(waiting_[i].token, text_.substr(begin, end - begin)));
    }
    waiting_.clear();
    text_.clear();
    return {};
  }

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::unique_ptr<GrammarMatcher> matcher_;
  bool waits_ = false;  // for a trigger
  std::vector<TokenId> trigger_tokens_;
  std::vector<llama_grammar_trigger_pattern> trigger_patterns_;
  std::string text_;  // while it waits
  std::vector<Waiting> waiting_;
  std::vector<bool> allowed_;
};

// Counts of the tokens that the penalties look back on.
class RecentTokens {
 public:
  // `last_n`: 0 none, -1 all.
  explicit RecentTokens(std::int32_t last_n) : last_n_(last_n) {}
  void Add(TokenId token) {
    if (last_n_ == 0) return;
    ++counts_[token];
    if (last_n_ < 0) return;
    window_.push_back(token);
    if (window_.size() <= static_cast<std::size_t>(last_n_)) return;
    const auto oldest = counts_.find(window_.front());
    if (--oldest->second == 0) counts_.erase(oldest);
    window_.pop_front();
  }
  const std::unordered_map<TokenId, std::int32_t>& counts() const { return counts_; }

 private:
  std::int32_t last_n_;
  std::deque<TokenId> window_;
  std::unordered_map<TokenId, std::int32_t> counts_;
};

Status CheckToken(TokenId token, const Vocabulary& vocabulary, const char* what) {
  if (token >= 0 && token < vocabulary.size()) return {};
  return Error{ErrorCode::kInvalidArgument, std::string(what) + ": token " + std::to_string(token) +
                                                " is not in the vocabulary of " + std::to_string(vocabulary.size())};
}

bool AnyNanOrInfinity(std::span<const float> logits) {
  int bad = 0;  // no early exit, so that the loop vectorizes
  for (const float x : logits) bad |= static_cast<int>(!(x < std::numeric_limits<float>::infinity()));
  return bad != 0;
}

}  // namespace

struct TokenSampler::State {
  State(std::shared_ptr<const Vocabulary> v, const SamplingParams& p)
      : vocabulary(std::move(v)), params(p), recent(p.penalty_last_n) {}

  std::shared_ptr<const Vocabulary> vocabulary;
  SamplingParams params;
  bool penalize = false;
  std::vector<LogitBias> bias;  // the request's, the file's suppressed tokens, end tokens with ignore_end
  RecentTokens recent;
  std::unique_ptr<Grammar> grammar;
  std::vector<float> adjusted;  // reused between calls
  Candidates candidates;

  bool adjusts() const { return penalize || !bias.empty(); }
  void Adjust(std::span<const float> logits);
  Result<TokenId> Choose(std::span<const float> logits, Position position, std::uint32_t attempt);
};

// Penalties as libllama's: divided (or multiplied, when negative) by repeat_penalty, minus count * frequency, minus
// presence.
void TokenSampler::State::Adjust(std::span<const float> logits) {
  adjusted.assign(logits.begin(), logits.end());
  for (const LogitBias& b : bias) adjusted[static_cast<std::size_t>(b.token)] += b.bias;
  for (const LogitBias& b : bias) {
    float& logit = adjusted[static_cast<std::size_t>(b.token)];
    logit = std::min(logit, kLogitMax);
  }
  if (!penalize) return;
  for (const auto& [token, count] : recent.counts()) {
    float& logit = adjusted[static_cast<std::size_t>(token)];
    if (logit == kForbidden) continue;
    logit = logit <= 0 ? logit * params.repeat_penalty : logit / params.repeat_penalty;
    logit -= static_cast<float>(count) * params.frequency_penalty + params.presence_penalty;
    logit = std::min(logit, kLogitMax);
  }
}

Result<TokenId> TokenSampler::State::Choose(std::span<const float> logits, Position position, std::uint32_t attempt) {
  if (params.temperature <= 0) {
    const std::size_t best = ArgMax(logits);
    if (logits[best] != kForbidden) return static_cast<TokenId>(best);
  } else {
    FilterCandidates(logits, params, candidates);
    if (!candidates.tokens.empty()) {
      return candidates.tokens[DrawIndex(candidates.probabilities, params.seed, position, attempt)];
    }
  }
  return Error{ErrorCode::kInternal, "no token may follow: grammar, logit bias or the model's logits forbid all"};
}

TokenSampler::TokenSampler(std::unique_ptr<State> state) : state_(std::move(state)) {}
TokenSampler::~TokenSampler() = default;

Result<std::unique_ptr<TokenSampler>> TokenSampler::Make(const std::shared_ptr<const Vocabulary>& vocabulary,
                                                         const SamplingParams& params, std::span<const TokenId> history,
                                                         std::uint32_t emitted) {
  SHOAL_CHECK(vocabulary != nullptr);
  SHOAL_RETURN_IF_ERROR(Validate(params));
  if (emitted > history.size()) {
    return Error{ErrorCode::kInvalidArgument, "emitted tokens: " + std::to_string(emitted) + ", but the history has " +
                                                  std::to_string(history.size())};
  }
  for (const TokenId token : history) SHOAL_RETURN_IF_ERROR(CheckToken(token, *vocabulary, "history"));
  for (const LogitBias& b : params.logit_bias) {
    SHOAL_RETURN_IF_ERROR(CheckToken(b.token, *vocabulary, "logit_bias"));
    if (!(b.bias < std::numeric_limits<float>::infinity())) {
      return Error{ErrorCode::kInvalidArgument, "logit_bias: must be finite, or -infinity to forbid a token"};
    }
  }

  auto state = std::make_unique<State>(vocabulary, params);
  state->bias = params.logit_bias;
  for (const TokenId token : vocabulary->suppressed_tokens()) state->bias.push_back({token, kForbidden});
  if (params.ignore_end) {
    for (const TokenId token : vocabulary->end_of_generation_tokens()) state->bias.push_back({token, kForbidden});
  }
  state->penalize = params.penalty_last_n != 0 && (params.repeat_penalty != 1.0F || params.frequency_penalty != 0.0F ||
                                                   params.presence_penalty != 0.0F);
  if (state->penalize) {
    for (const TokenId token : history) state->recent.Add(token);
  }
  if (!params.grammar.empty()) {
    SHOAL_ASSIGN_OR_RETURN(state->grammar, Grammar::Make(vocabulary, params));
    if (!params.grammar_lazy) {
      for (const TokenId token : params.grammar_prefill) {
        SHOAL_RETURN_IF_ERROR(CheckToken(token, *vocabulary, "grammar_prefill"));
        SHOAL_RETURN_IF_ERROR(state->grammar->Accept(token));
      }
    }
    for (const TokenId token : history.last(emitted)) SHOAL_RETURN_IF_ERROR(state->grammar->Accept(token));
  }
  return std::unique_ptr<TokenSampler>(new TokenSampler(std::move(state)));
}

Result<SampledToken> TokenSampler::Sample(std::span<const float> logits, Position position) {
  State& s = *state_;
  SHOAL_CHECK(logits.size() == static_cast<std::size_t>(s.vocabulary->size()));
  if (AnyNanOrInfinity(logits)) {
    return Error{ErrorCode::kInternal,
                 "the model's logits at position " + std::to_string(position) + " are not finite"};
  }
  std::span<const float> work = logits;
  if (s.adjusts()) {
    s.Adjust(logits);
    work = s.adjusted;
  }
  TokenId token = 0;
  bool ends = false;
  try {
    SHOAL_ASSIGN_OR_RETURN(token, s.Choose(work, position, 0));
    bool allowed = true;
    if (s.grammar != nullptr) { SHOAL_ASSIGN_OR_RETURN(allowed, s.grammar->Allows(token)); }
    if (!allowed) {
      if (!s.adjusts()) s.adjusted.assign(logits.begin(), logits.end());
      SHOAL_RETURN_IF_ERROR(s.grammar->Mask(s.adjusted));
      SHOAL_ASSIGN_OR_RETURN(token, s.Choose(s.adjusted, position, 1));
    }
    if (s.penalize) s.recent.Add(token);
    ends = s.vocabulary->IsEndOfGeneration(token);
    if (s.grammar != nullptr && !ends) {
      SHOAL_RETURN_IF_ERROR(s.grammar->Accept(token));
      SHOAL_ASSIGN_OR_RETURN(ends, s.grammar->Complete());
    }
  } catch (const std::exception& e) { return Error{ErrorCode::kInternal, std::string("sampling: ") + e.what()}; }
  SampledToken sampled;
  if (s.params.logprobs >= 0) sampled = WithLogprobs(logits, token, s.params.logprobs);
  sampled.token = token;
  sampled.end = ends;
  return sampled;
}

}  // namespace shoal
