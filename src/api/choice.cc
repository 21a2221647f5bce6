// The order of things within one event: token, text, stop strings, then the generation's own end.
#include "api/choice.h"

#include <algorithm>

#include "base/check.h"

namespace shoal {

Choice::Choice(std::unique_ptr<GenerationHandle> handle, std::shared_ptr<const Vocabulary> vocabulary,
               std::vector<std::string> stops, std::vector<TokenId> preserved, bool logprobs)
    : handle_(std::move(handle)),
      vocabulary_(vocabulary),
      preserved_(preserved),
      logprobs_(logprobs),
      detokenizer_(std::move(vocabulary), std::move(stops), false, std::move(preserved)) {}

void Choice::Report(const SampledToken& token, std::string piece) {
  TokenReport report{std::move(piece), token.logprob, {}, generated_characters_};
  for (const TokenLogprob& other : token.alternatives) {
    report.alternatives.push_back({vocabulary_->Piece(other.token, true), other.logprob});
  }
  pending_.push_back({std::move(report), generated_bytes_});
}

std::optional<ChoiceStep> Choice::Next(std::chrono::milliseconds timeout) {
  SHOAL_CHECK(!done());
  std::optional<GenerationEvent> event = handle_->Next(timeout);
  if (!event) return std::nullopt;
  reused_tokens_ = handle_->reused_tokens();
  ChoiceStep step;
  if (event->token) {
    const TokenId token = event->token->token;
    step.token_ids.push_back(token);
    if (!vocabulary_->IsEndOfGeneration(token)) {
      const bool shown = std::find(preserved_.begin(), preserved_.end(), token) != preserved_.end();
      if (logprobs_) Report(*event->token, vocabulary_->Piece(token, true));
      const std::string piece = vocabulary_->Piece(token, shown);
      generated_bytes_ += piece.size();
      // Every byte but a continuation byte begins a UTF-8 character.
      generated_characters_ += static_cast<std::size_t>(
          std::count_if(piece.begin(), piece.end(), [](char c) { return (c & 0xC0) != 0x80; }));
      StopFinder::Step shown_step = detokenizer_.Add(token);
      step.text = std::move(shown_step.text);
      if (shown_step.stopped) {
        Finish(GenerationEnd::kStop, step);
        return step;
      }
    }
  }
  if (event->end) {
    step.text += detokenizer_.Finish();
    step.error = std::move(event->error);
    Finish(*event->end, step);
    return step;
  }
  shown_bytes_ += step.text.size();
  const auto first_hidden =
      std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.offset_bytes >= shown_bytes_; });
  for (auto it = pending_.begin(); it != first_hidden; ++it) step.tokens.push_back(std::move(it->report));
  pending_.erase(pending_.begin(), first_hidden);
  return step;
}

// Frees the slot at once. Reports of tokens that lie within a stop string are dropped with it.
void Choice::Finish(GenerationEnd end, ChoiceStep& step) {
  handle_.reset();
  step.end = end;
  shown_bytes_ += step.text.size();
  for (Pending& p : pending_) {
    if (p.offset_bytes < shown_bytes_) step.tokens.push_back(std::move(p.report));
  }
  pending_.clear();
}

}  // namespace shoal
