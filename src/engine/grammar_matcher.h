// Which tokens a grammar allows next: libllama's rules, followed by us in bounded time and memory.
//
// libllama keeps a stack for each way to read the text so far; a grammar that is ambiguous doubles them with every
// character, also with those of each token it only asks about. Here stacks share what is below their tops, and both
// their number and the steps of one call have a limit. Knows no logits and no triggers. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "engine/vocabulary.h"

namespace shoal {

inline constexpr std::size_t kGrammarStacksMax = 1U << 14;  // ways to read the text so far
inline constexpr std::int64_t kGrammarStepsMax = 1 << 25;   // of one call; about a second

class GrammarMatcher {
 public:
  // Errors: kInvalidArgument (CheckGrammar's; a token that is not one; a repetition that libllama does not write out).
  static Result<std::unique_ptr<GrammarMatcher>> Make(std::shared_ptr<const Vocabulary> vocabulary,
                                                      const std::string& grammar);
  ~GrammarMatcher();

  // Takes `token`, of whose text `piece` counts (less than all of it where a trigger ended inside).
  // Errors: kInvalidArgument (the grammar does not allow it; a limit above). Of no further use after one.
  Status Accept(TokenId token, const std::string& piece);

  // May `token` come next? An end-of-generation token: may the text end? Errors: kInvalidArgument (a limit above).
  Result<bool> Allows(TokenId token);

  // Calls `visit` with each token that may come next, end-of-generation tokens included, until it returns false; asks
  // only about tokens that `asked` is true for. Errors: kInvalidArgument (a limit above).
  Status ForEachAllowed(const std::function<bool(TokenId)>& asked, const std::function<bool(TokenId)>& visit);

 private:
  struct State;
  explicit GrammarMatcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
