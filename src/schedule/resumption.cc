// Counts tokens and time.
#include "schedule/resumption.h"

namespace shoal {

void Resumption::OnToken(const SampledToken& token) {
  options_.history.push_back(token.token);
  ++options_.emitted;
  const bool all = options_.tokens_max > 0 && --options_.tokens_max == 0;
  const bool full = static_cast<std::int64_t>(options_.history.size()) >= options_.context_tokens_max;
  if (token.end) {
    ended_ = End::kStop;
  } else if (all || full) {
    ended_ = End::kLength;
  }
}

void Resumption::OnLost(TimeUs now) {
  was_lost_ = true;
  lost_since_ = now;
}

bool Resumption::MayPass(const Error& error) {
  return error.code == ErrorCode::kStale || error.code == ErrorCode::kUnavailable;
}

bool Resumption::MayAskAgain(const Error& refusal, bool possible, TimeUs now) const {
  // Once a head has accepted it, another one's full queue is no reason to end it.
  const bool passes = MayPass(refusal) || (was_lost_ && refusal.code == ErrorCode::kOverloaded);
  return passes && possible && lost_us(now) <= options_.lost_max_us;
}

}  // namespace shoal
