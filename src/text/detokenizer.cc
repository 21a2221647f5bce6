// Holding back what may go on: unfinished characters, beginnings of stop strings.
#include "text/detokenizer.h"

#include <algorithm>

#include "base/utf8.h"

namespace shoal {
std::string Utf8Joiner::Add(std::string_view bytes) {
  held_.append(bytes);
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Character c = FirstUtf8Character(rest);
    if (c.state == Utf8Character::kUnfinished) break;
    out.append(c.state == Utf8Character::kValid ? rest.substr(0, c.bytes) : kUtf8Replacement);
    rest.remove_prefix(c.bytes);
  }
  held_ = std::string(rest);
  return out;
}

std::string Utf8Joiner::Finish() {
  const bool unfinished = !held_.empty();
  held_.clear();
  return std::string(unfinished ? kUtf8Replacement : std::string_view());
}

StopFinder::StopFinder(std::vector<std::string> stops) : stops_(std::move(stops)) {
  stops_.erase(std::remove(stops_.begin(), stops_.end(), std::string()), stops_.end());
}

StopFinder::Step StopFinder::Add(std::string_view text) {
  if (!found_.empty()) return {"", true, found_};
  held_.append(text);

  std::size_t first = std::string::npos, first_end = std::string::npos;
  for (const std::string& stop : stops_) {
    const std::size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const std::size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < first)) {
      first = at;
      first_end = end;
      found_ = stop;
    }
  }
  if (!found_.empty()) {
    Step step{held_.substr(0, first), true, found_};
    held_.clear();
    return step;
  }

  // Hold back the longest end of the text that is the beginning of a stop.
  std::size_t hold = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > hold; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) hold = n;
    }
  }
  Step step{held_.substr(0, held_.size() - hold), false, ""};
  held_.erase(0, held_.size() - hold);
  return step;
}

std::string StopFinder::Finish() {
  std::string rest = std::move(held_);
  held_.clear();
  return rest;
}

Detokenizer::Detokenizer(std::shared_ptr<const Vocabulary> vocabulary, std::vector<std::string> stops, bool special,
                         std::vector<TokenId> preserved_tokens)
    : vocabulary_(std::move(vocabulary)),
      special_(special),
      preserved_tokens_(std::move(preserved_tokens)),
      finder_(std::move(stops)) {}

StopFinder::Step Detokenizer::Add(TokenId token) {
  const bool show =
      special_ || std::find(preserved_tokens_.begin(), preserved_tokens_.end(), token) != preserved_tokens_.end();
  return finder_.Add(joiner_.Add(vocabulary_->Piece(token, show)));
}

std::string Detokenizer::Finish() {
  const StopFinder::Step step = finder_.Add(joiner_.Finish());
  return step.text + finder_.Finish();
}

}  // namespace shoal
