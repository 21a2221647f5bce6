// A generation as its owner keeps it: what the next head is asked for when one was lost, whether to ask again after a
// refusal, and when it has ended.
//
// A continuation asks for the prompt and all that was emitted, with that many tokens fewer to come; so no token is lost
// and none comes twice, whichever head had it last and however many were tried. Pure: tokens, losses, refusals and the
// time go in. Knows no placements, heads, links or threads; node/resuming and the simulator's entry act on it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "runtime/clock.h"
#include "sample/params.h"

namespace shoal {

struct ResumptionOptions {
  std::vector<TokenId> history;         // the prompt
  std::uint32_t emitted = 0;            // the last ones of it are an answer so far
  std::int32_t tokens_max = 0;          // how many more; 0: until the context is full
  std::int32_t context_tokens_max = 0;  // history and all
  DurationUs lost_max_us = 0;           // how long it may be without a head
};

class Resumption {
 public:
  enum class End : std::uint8_t { kStop, kLength };

  Resumption(ResumptionOptions options, TimeUs now) : options_(std::move(options)), lost_since_(now) {}

  // The next token of the answer, to be passed on once.
  void OnToken(const SampledToken& token);
  // The head that had it has lost it, or is lost.
  void OnLost(TimeUs now);

  // Whether another placement, or the same one a little later, may do what this error says cannot be done.
  static bool MayPass(const Error& error);
  // Whether to ask again after a head, or the lack of one, has refused it. `possible`: the model is placed, and those
  // that are here could run it.
  bool MayAskAgain(const Error& refusal, bool possible, TimeUs now) const;

  // Set once the last token is here, also when the head could not say so any more: then nobody is to be asked.
  std::optional<End> ended() const { return ended_; }

  // --- What to ask the next head for.
  const std::vector<TokenId>& history() const { return options_.history; }
  std::uint32_t emitted() const { return options_.emitted; }
  std::int32_t tokens_max() const { return options_.tokens_max; }

  bool was_lost() const { return was_lost_; }
  DurationUs lost_us(TimeUs now) const { return now - lost_since_; }

 private:
  ResumptionOptions options_;  // goes on with every token
  TimeUs lost_since_;
  bool was_lost_ = false;
  std::optional<End> ended_;
};

}  // namespace shoal
