// Tokens to text, a piece at a time: never half a UTF-8 character, never past a stop string.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "engine/vocabulary.h"

namespace shoal {

// Holds back the bytes of an unfinished UTF-8 character. Pure; no vocabulary.
class Utf8Joiner {
 public:
  // The longest complete prefix of what is held and `bytes`; the rest stays. Bytes that can never become valid UTF-8
  // come out as U+FFFD.
  std::string Add(std::string_view bytes);
  // What is left, as U+FFFD if incomplete.
  std::string Finish();

 private:
  std::string held_;
};

// Finds the first of several strings in a stream, across any borders. The first is the one that ends first, and among
// those the longest: so the result does not depend on where the stream is cut. Empty stops are ignored. Pure.
class StopFinder {
 public:
  explicit StopFinder(std::vector<std::string> stops);
  struct Step {
    std::string text;      // safe to show: cannot be the beginning of a stop string
    bool stopped = false;  // a stop string was found; `text` ends before it and nothing follows
    std::string stop;      // which
  };
  Step Add(std::string_view text);
  std::string Finish();  // what was held back, when the stream ends without a stop

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string found_;  // the stop that ended the stream
};

// Both, over a vocabulary. One thread.
class Detokenizer {
 public:
  // `special`: control tokens show as text.
  Detokenizer(std::shared_ptr<const Vocabulary> vocabulary, std::vector<std::string> stops, bool special,
              std::vector<TokenId> preserved_tokens = {});  // control tokens shown all the same (tool calls)
  StopFinder::Step Add(TokenId token);
  // What was held back, when generation ends without a stop string.
  std::string Finish();

 private:
  std::shared_ptr<const Vocabulary> vocabulary_;
  bool special_;
  std::vector<TokenId> preserved_tokens_;
  Utf8Joiner joiner_;
  StopFinder finder_;
};

}  // namespace shoal
