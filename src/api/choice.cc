// The order of things within one entry: token, text, stop strings; an end is an entry of its own.
#include "api/choice.h"

#include <algorithm>

namespace shoal {

ChoiceText::ChoiceText(std::shared_ptr<const Vocabulary> vocabulary, std::vector<std::string> stops,
                       std::vector<TokenId> preserved, bool logprobs)
    : vocabulary_(vocabulary),
      preserved_(preserved),
      logprobs_(logprobs),
      detokenizer_(std::move(vocabulary), std::move(stops), false, std::move(preserved)) {}

void ChoiceText::Report(const SampledToken& token, std::string piece) {
  TokenReport report{std::move(piece), token.logprob, {}, generated_characters_};
  for (const TokenLogprob& other : token.alternatives) {
    report.alternatives.push_back({vocabulary_->Piece(other.token, true), other.logprob});
  }
  pending_.push_back({std::move(report), generated_bytes_});
}

ChoiceStep ChoiceText::Add(const AnswerEntry& entry) {
  ChoiceStep step;
  if (done_ || entry.kind == AnswerEntry::Kind::kReused) return step;
  if (entry.kind == AnswerEntry::Kind::kToken) {
    Take(entry.token, step);
    return step;
  }
  step.text = detokenizer_.Finish();
  Finish(entry.kind == AnswerEntry::Kind::kLength ? GenerationEnd::kLength : GenerationEnd::kStop, step);
  return step;
}

void ChoiceText::Take(const SampledToken& token, ChoiceStep& step) {
  step.token_ids.push_back(token.token);
  if (!vocabulary_->IsEndOfGeneration(token.token)) {
    const bool shown = std::find(preserved_.begin(), preserved_.end(), token.token) != preserved_.end();
    if (logprobs_) Report(token, vocabulary_->Piece(token.token, true));
    const std::string piece = vocabulary_->Piece(token.token, shown);
    generated_bytes_ += piece.size();
    // Every byte but a continuation byte begins a UTF-8 character.
    generated_characters_ +=
        static_cast<std::size_t>(std::count_if(piece.begin(), piece.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    StopFinder::Step shown_step = detokenizer_.Add(token.token);
    step.text = std::move(shown_step.text);
    if (shown_step.stopped) return Finish(GenerationEnd::kStop, step);
  }
  shown_bytes_ += step.text.size();
  const auto first_hidden =
      std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.offset_bytes >= shown_bytes_; });
  for (auto it = pending_.begin(); it != first_hidden; ++it) step.tokens.push_back(std::move(it->report));
  pending_.erase(pending_.begin(), first_hidden);
}

// Reports of tokens that lie within a stop string are dropped with it.
void ChoiceText::Finish(GenerationEnd end, ChoiceStep& step) {
  done_ = true;
  step.end = end;
  shown_bytes_ += step.text.size();
  for (Pending& p : pending_) {
    if (p.offset_bytes < shown_bytes_) step.tokens.push_back(std::move(p.report));
  }
  pending_.clear();
}

}  // namespace shoal
