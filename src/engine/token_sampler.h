// Logits to a token for one generation: our filters and counter-based draw, and a grammar.
//
// The draw at a position is a pure function of (logits, history, params): a resumed generation draws what the lost
// node would have drawn. Not thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/vocabulary.h"
#include "sample/params.h"

namespace shoal {

class TokenSampler {
 public:
  // `history`: prompt and emitted tokens; the last `emitted` were sampled (fed to the grammar too).
  // Errors: kInvalidArgument (a grammar that does not parse or could not be followed in bounded time, a field or a
  // token out of range, emitted tokens that the grammar does not accept). Blocks while it compiles the grammar.
  static Result<std::unique_ptr<TokenSampler>> Make(const std::shared_ptr<const Vocabulary>& vocabulary,
                                                    const SamplingParams& params, std::span<const TokenId> history,
                                                    std::uint32_t emitted);
  ~TokenSampler();

  // Draws the token for `position` and takes it into the history.
  //   logits  f32 [n_vocab]; CHECK on size; -infinity forbids a token
  // Errors: kInternal (every token forbidden by grammar or bias; a logit is NaN or +infinity), kInvalidArgument (the
  // grammar leaves too many ways to go on). The sampler is of no further use after an error.
  Result<SampledToken> Sample(std::span<const float> logits, Position position);

 private:
  struct State;
  explicit TokenSampler(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
