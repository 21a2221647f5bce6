// The order is that of sample/params.h. A grammar is tested on the drawn token first and applied to the whole
// vocabulary only when it refuses that; the second draw uses the same random number.
#include "engine/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <exception>
#include <limits>
#include <regex>
#include <string_view>
#include <unordered_map>

#include "base/check.h"
#include "engine/candidates.h"
#include "engine/grammar_check.h"
#include "engine/llama_guard.h"
#include "engine/llama_log.h"
#include "llama.h"
#include "sample/draw.h"

namespace shoal {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
constexpr float kLogitMax = 1e30F;           // keeps sums of extreme biases and penalties finite
constexpr std::int32_t kProbeTokens = 2048;  // of one step when looking for any token that a grammar still allows

struct SamplerFree {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using SamplerPtr = std::unique_ptr<llama_sampler, SamplerFree>;

// libllama's grammar sampler with its exceptions and aborts fenced off.
class Grammar {
 public:
  // Errors: kInvalidArgument.
  static Result<std::unique_ptr<Grammar>> Make(const Vocabulary& vocabulary, const SamplingParams& params) {
    SHOAL_RETURN_IF_ERROR(CheckGrammar(params.grammar));
    std::vector<const char*> patterns;
    std::vector<llama_token> tokens;
    for (const GrammarTrigger& trigger : params.grammar_triggers) {
      if (trigger.token >= 0) {
        tokens.push_back(trigger.token);
      } else {
        patterns.push_back(trigger.pattern.c_str());
      }
    }
    auto grammar = std::make_unique<Grammar>();
    LlamaErrors errors;
    try {
      for (const char* pattern : patterns) (void)std::regex(pattern);  // libllama leaks where one throws
      LlamaGuard guard;
      const llama_vocab* vocab = vocabulary.llama_vocabulary();
      grammar->sampler_.reset(params.grammar_lazy ? llama_sampler_init_grammar_lazy_patterns(
                                                        vocab, params.grammar.c_str(), "root", patterns.data(),
                                                        patterns.size(), tokens.data(), tokens.size())
                                                  : llama_sampler_init_grammar(vocab, params.grammar.c_str(), "root"));
    } catch (const std::exception& e) {  // std::regex of a trigger, numbers out of range
      return Error{ErrorCode::kInvalidArgument, std::string("grammar: ") + e.what()};
    }
    if (grammar->sampler_ == nullptr) {
      return Error{ErrorCode::kInvalidArgument, "grammar: " + errors.TextOr("it does not parse")};
    }
    grammar->vocabulary_ = &vocabulary;
    return grammar;
  }

  // The caller made sure that the grammar allows `token`, or may end up with the error: kInvalidArgument.
  // End-of-generation tokens are not fed: nothing comes after them, and libllama aborts on a forbidden one.
  Status Accept(TokenId token) {
    if (vocabulary_->IsEndOfGeneration(token)) return {};
    try {
      LlamaGuard guard;
      llama_sampler_accept(sampler_.get(), token);
    } catch (const std::exception& e) {
      return Error{ErrorCode::kInvalidArgument, std::string("grammar: ") + e.what()};
    }
    return {};
  }

  bool Allows(TokenId token) {
    one_ = {token, 0.0F, 0.0F};
    llama_token_data_array array{&one_, 1, -1, false};
    llama_sampler_apply(sampler_.get(), &array);
    return one_.logit != kForbidden;
  }

  // Sets the logits of all tokens that the grammar does not allow next to -infinity.
  void Mask(std::span<float> logits) {
    all_.clear();
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] != kForbidden) all_.push_back({static_cast<TokenId>(i), 0.0F, 0.0F});
    }
    ApplyToAll();
    for (const llama_token_data& entry : all_) {
      if (entry.logit == kForbidden) logits[static_cast<std::size_t>(entry.id)] = kForbidden;
    }
  }

  // Nothing but the end may follow. Looks for a token that may, a part of the vocabulary at a time.
  bool Complete() {
    const auto& ends = vocabulary_->end_of_generation_tokens();
    if (!ends.empty() && !Allows(ends.front())) return false;
    for (TokenId first = 0; first < vocabulary_->size(); first += kProbeTokens) {
      all_.clear();
      const TokenId last = std::min(vocabulary_->size(), first + kProbeTokens);
      for (TokenId token = first; token < last; ++token) {
        if (!vocabulary_->IsEndOfGeneration(token)) all_.push_back({token, 0.0F, 0.0F});
      }
      ApplyToAll();
      for (const llama_token_data& entry : all_) {
        if (entry.logit != kForbidden) return false;
      }
    }
    return true;
  }

 private:
  void ApplyToAll() {
    llama_token_data_array array{all_.data(), all_.size(), -1, false};
    llama_sampler_apply(sampler_.get(), &array);
  }

  const Vocabulary* vocabulary_ = nullptr;
  SamplerPtr sampler_;
  llama_token_data one_{};
  std::vector<llama_token_data> all_;
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
  Result<TokenId> Choose(std::span<const float> logits, Position position);
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

Result<TokenId> TokenSampler::State::Choose(std::span<const float> logits, Position position) {
  if (params.temperature <= 0) {
    const std::size_t best = ArgMax(logits);
    if (logits[best] != kForbidden) return static_cast<TokenId>(best);
  } else {
    FilterCandidates(logits, params, candidates);
    if (!candidates.tokens.empty()) {
      return candidates.tokens[DrawIndex(candidates.probabilities, params.seed, position)];
    }
  }
  return Error{ErrorCode::kInternal, "no token may follow: grammar, logit bias or the model's logits forbid all"};
}

TokenSampler::TokenSampler(std::unique_ptr<State> state) : state_(std::move(state)) {}
TokenSampler::~TokenSampler() = default;

Result<std::unique_ptr<TokenSampler>> TokenSampler::Make(std::shared_ptr<const Vocabulary> vocabulary,
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
    SHOAL_ASSIGN_OR_RETURN(state->grammar, Grammar::Make(*vocabulary, params));
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
    LlamaGuard guard;
    SHOAL_ASSIGN_OR_RETURN(token, s.Choose(work, position));
    if (s.grammar != nullptr && !s.grammar->Allows(token)) {
      if (!s.adjusts()) s.adjusted.assign(logits.begin(), logits.end());
      s.grammar->Mask(s.adjusted);
      SHOAL_ASSIGN_OR_RETURN(token, s.Choose(s.adjusted, position));
    }
    if (s.penalize) s.recent.Add(token);
    ends = s.vocabulary->IsEndOfGeneration(token);
    if (s.grammar != nullptr && !ends) {
      Status accepted = s.grammar->Accept(token);
      if (!accepted.ok()) return Error{ErrorCode::kInternal, accepted.error().message};
      ends = s.grammar->Complete();
    }
  } catch (const std::exception& e) { return Error{ErrorCode::kInternal, std::string("sampling: ") + e.what()}; }
  SampledToken sampled;
  if (s.params.logprobs >= 0) sampled = WithLogprobs(logits, token, s.params.logprobs);
  sampled.token = token;
  sampled.end = ends;
  return sampled;
}

}  // namespace shoal
