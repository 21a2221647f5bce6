// Guesses of the tokens that come next, and whether it pays to compute their rows before they are known.
//
// One answer alone uses one stage at a time: while its newest token is on its way through the others, a stage that it
// has left could already compute the row of the next one. So that token is guessed (a draft): what followed when the
// same tokens came before, in the prompt or in the answer itself. A row costs the same as always, and alone in its
// micro-batch gives the same logits to the last bit; the last stage draws a token from it only if the guess was right.
// A wrong one is rewound. It costs energy, and time where the right row has to wait for it: on a stage that takes
// longer than all others together, or on cores that stages share. So how often guesses are right, and what rows take
// alone and beside others, is measured as answers run. Knows no generations and no clock; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/ids.h"
#include "wire/messages.h"

namespace shoal {

struct DraftGuess {
  TokenId token = 0;
  std::int32_t match = 0;  // the last so many tokens stood in front of it before, at most kDraftMatchMax
};

inline constexpr std::int32_t kDraftMatchMax = 8;

// What followed the longest end of `tokens` that was there before, the latest such place. None where the last token is
// new. Looks back a bounded number of tokens.
std::optional<DraftGuess> GuessNext(std::span<const TokenId> tokens);

class DraftJudge {
 public:
  // Every guess that could be made, sent or not, once its token is known.
  void Learn(const DraftGuess& guess, bool right);
  // How often such guesses were right of late, in 0..1.
  double Chance(const DraftGuess& guess) const { return rates_[static_cast<std::size_t>(guess.match)].Chance(); }

  // A micro-batch of one row came back after `elapsed_us` (0: unknown) with these timings of its stages; `shared`:
  // others were on their way meanwhile.
  void LearnTime(std::span<const StageTiming> timings, std::int64_t elapsed_us, bool shared);
  // Whether one more guess, behind `ahead` others on their way, is worth the time it costs when they are all right with
  // this chance. False too when a row should now run without any beside it, to be compared with.
  bool Pays(double chance, std::int32_t ahead);

 private:
  static constexpr std::size_t kSamples = 5;

  struct Rate {
    double right = 0, all = 0;
    double Chance() const { return right / all; }
  };
  struct Times {  // of one row's micro-batch, microseconds
    std::array<double, kSamples> all_stages{}, slowest_stage{}, elapsed{};
    std::uint64_t count = 0;
    std::uint64_t last_at = 0;  // `rows_` at the latest sample
    bool Known() const { return count >= kSamples; }
  };

  std::array<Rate, kDraftMatchMax + 1> rates_ = FirstRates();  // by match; before any was seen, longer ones are better
  static std::array<Rate, kDraftMatchMax + 1> FirstRates();
  Times alone_, beside_;
  std::uint64_t rows_ = 0;  // of which times came
};

}  // namespace shoal
