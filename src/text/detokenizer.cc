// UTF-8 as in RFC 3629; what is broken becomes U+FFFD once per maximal broken part, as the Unicode Standard (3.9)
// advises.
#include "text/detokenizer.h"

#include <algorithm>

namespace shoal {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What the bytes at the front of `text` are. `bytes`: how many belong to it.
struct Character {
  enum { kValid, kUnfinished, kBroken } state;
  std::size_t bytes;
};

Character Decode(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {Character::kValid, 1};
  std::size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // what the second byte may be
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;   // else overlong
    if (lead == 0xED) high = 0x9F;  // else a surrogate
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;   // else overlong
    if (lead == 0xF4) high = 0x8F;  // else above U+10FFFF
  } else {
    return {Character::kBroken, 1};
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Character::kUnfinished, i};
    if (at(i) < low || at(i) > high) return {Character::kBroken, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Character::kValid, length};
}

}  // namespace

std::string Utf8Joiner::Add(std::string_view bytes) {
  held_.append(bytes);
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Character c = Decode(rest);
    if (c.state == Character::kUnfinished) break;
    out.append(c.state == Character::kValid ? rest.substr(0, c.bytes) : kReplacement);
    rest.remove_prefix(c.bytes);
  }
  held_ = std::string(rest);
  return out;
}

std::string Utf8Joiner::Finish() {
  const bool unfinished = !held_.empty();
  held_.clear();
  return std::string(unfinished ? kReplacement : std::string_view());
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
