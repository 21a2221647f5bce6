// What a placement really gives, to be held against its forecast: one stream's tokens a second, those of many streams
// together, and how fast prompts are read.
//
// Fed with how many generations decode and prefill, and with running counts of tokens, whenever these may have changed;
// the time in between belongs to what ran in between. Only what a forecast speaks of is counted: one answer by itself;
// several answers and no prompt; one prompt of kPromptTokensMin or more new tokens by itself. Pure, without a clock;
// one thread.
#pragma once

#include <cstdint>
#include <optional>

namespace shoal {

// Averages over the last 15 to 30 seconds of each kind of work; 0: not measured yet.
struct ObservedSpeeds {
  double tokens_s = 0;         // of one stream
  double tokens_s_many = 0;    // of all streams together, and
  double streams = 0;          // how many those were, on average
  double prompt_tokens_s = 0;  // from a prompt's first row to its first token
  bool operator==(const ObservedSpeeds&) const = default;
};

// Whether `now` tells something that `told` does not: a figure that was not there, or is another by a fifth.
bool Differs(const ObservedSpeeds& now, const ObservedSpeeds& told);

class ObservedSpeed {
 public:
  static constexpr double kPromptTokensMin = 64;  // shorter ones take a pass as well, which is not full
  static constexpr double kTokensMin = 16;        // before anything is said of answers
  static constexpr double kWindowS = 15;          // of work; then a new window begins, and the one before still counts

  struct Load {
    std::int32_t decoding = 0, prefilling = 0;
    std::uint64_t tokens_decoded = 0, tokens_prefilled = 0;  // so far; prefilled: as sent
  };
  // `now_s` never goes back.
  void Note(double now_s, const Load& load);

  ObservedSpeeds speeds() const;

 private:
  struct Sum {
    double tokens = 0, seconds = 0, streams = 0;  // streams: times seconds
  };
  struct Window {
    Sum now, before;
    void Add(const Sum& more);
    Sum Total() const {
      return {now.tokens + before.tokens, now.seconds + before.seconds, now.streams + before.streams};
    }
  };
  struct Prompt {  // read by itself so far
    double since_s = 0;
    std::uint64_t tokens_before = 0;
  };

  Load last_;
  double last_s_ = 0;
  std::optional<Prompt> prompt_;
  Window one_, many_, prompts_;
};

}  // namespace shoal
