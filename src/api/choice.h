// One choice of an answer: a generation's events turned into text, log-probabilities and a reason to end.
//
// Knows no dialect and no HTTP: completion.cc and chat.cc format what comes out.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/backend.h"
#include "text/detokenizer.h"

namespace shoal {

// A generated token as the client may see it, when it asked for log-probabilities.
struct TokenReport {
  struct Alternative {
    std::string bytes;
    float logprob = 0;
  };
  std::string bytes;  // possibly part of a UTF-8 character
  float logprob = 0;
  std::vector<Alternative> alternatives;  // most likely first
  std::size_t offset_characters = 0;      // where it begins in the choice's text
};

struct ChoiceStep {
  std::string text;                  // whole UTF-8 characters, never part of a stop string
  std::vector<TokenReport> tokens;   // those whose text begins in what has been shown so far
  std::vector<TokenId> token_ids;    // sampled in this step, shown as text or not
  std::optional<GenerationEnd> end;  // nothing follows
  Error error;                       // with kError
};

class Choice {
 public:
  // `stops` end the choice; `preserved`: control tokens that show as text.
  Choice(std::unique_ptr<GenerationHandle> handle, std::shared_ptr<const Vocabulary> vocabulary,
         std::vector<std::string> stops, std::vector<TokenId> preserved, bool logprobs);

  // The next step; empty when nothing came within `timeout`. Precondition: !done(). Blocks up to `timeout`.
  // Once the step with `end` is returned the generation is gone and its slot free: also when a stop string matched.
  std::optional<ChoiceStep> Next(std::chrono::milliseconds timeout);

  bool done() const { return handle_ == nullptr; }
  std::int32_t reused_tokens() const { return reused_tokens_; }

 private:
  void Report(const SampledToken& token, std::string piece);
  void Finish(GenerationEnd end, ChoiceStep& step);

  std::unique_ptr<GenerationHandle> handle_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<TokenId> preserved_;
  bool logprobs_;
  Detokenizer detokenizer_;
  std::int32_t reused_tokens_ = 0;
  struct Pending {
    TokenReport report;
    std::size_t offset_bytes;
  };
  std::vector<Pending> pending_;  // reports of tokens not yet shown
  std::size_t generated_bytes_ = 0, generated_characters_ = 0, shown_bytes_ = 0;
};

}  // namespace shoal
