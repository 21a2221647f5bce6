// One choice of an answer: what was sampled for it turned into text, log-probabilities and a reason to end. Pure.
//
// Knows no dialect, no HTTP and no generation: the same entries give the same steps wherever they are played.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/backend.h"
#include "text/detokenizer.h"
#include "wire/answer_messages.h"

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
  std::optional<GenerationEnd> end;  // kStop or kLength: nothing follows
};

struct RunUsage {
  std::int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
};

class ChoiceText {
 public:
  // `stops` end the choice; `preserved`: control tokens that show as text.
  ChoiceText(std::shared_ptr<const Vocabulary> vocabulary, std::vector<std::string> stops,
             std::vector<TokenId> preserved, bool logprobs);

  // What `entry` adds. After the step with `end`, which comes of an end or of a stop string, nothing does.
  ChoiceStep Add(const AnswerEntry& entry);
  bool done() const { return done_; }

 private:
  void Take(const SampledToken& token, ChoiceStep& step);
  void Report(const SampledToken& token, std::string piece);
  void Finish(GenerationEnd end, ChoiceStep& step);

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<TokenId> preserved_;
  bool logprobs_;
  Detokenizer detokenizer_;
  bool done_ = false;
  struct Pending {
    TokenReport report;
    std::size_t offset_bytes;
  };
  std::vector<Pending> pending_;  // reports of tokens not yet shown
  std::size_t generated_bytes_ = 0, generated_characters_ = 0, shown_bytes_ = 0;
};

}  // namespace shoal
