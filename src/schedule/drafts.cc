// A search backwards for the guess; shares of right ones and medians of times for the judgement.
#include "schedule/drafts.h"

#include <algorithm>

#include "base/check.h"
#include "schedule/pass_times.h"

namespace shoal {
namespace {

constexpr std::size_t kLookBackMax = 16'384;  // tokens; some microseconds
constexpr double kRateMemory = 64;            // guesses; then what came before counts half
constexpr std::uint64_t kAloneEvery = 64;     // rows; answers grow, so what one takes alone is measured again
constexpr std::uint64_t kBesideEvery = 256;   // rows without drafts; then they are tried again
constexpr double kGain = 0.95;                // what drafts save must be more than noise

}  // namespace

std::optional<DraftGuess> GuessNext(std::span<const TokenId> tokens) {
  if (tokens.size() < 2) return std::nullopt;
  const std::size_t end = tokens.size();
  const std::size_t first = end > kLookBackMax ? end - kLookBackMax : 0;
  DraftGuess best;
  for (std::size_t next = end - 1; next > first && best.match < kDraftMatchMax; --next) {
    std::int32_t match = 0;
    const std::size_t limit = std::min<std::size_t>(kDraftMatchMax, next - first);
    while (static_cast<std::size_t>(match) < limit && tokens[next - 1 - match] == tokens[end - 1 - match]) ++match;
    if (match > best.match) best = {tokens[next], match};
  }
  if (best.match == 0) return std::nullopt;
  return best;
}

std::array<DraftJudge::Rate, kDraftMatchMax + 1> DraftJudge::FirstRates() {
  std::array<Rate, kDraftMatchMax + 1> rates;
  for (std::size_t match = 0; match < rates.size(); ++match) {
    rates[match] = {static_cast<double>(match), static_cast<double>(match) + 2};
  }
  return rates;
}

void DraftJudge::Learn(const DraftGuess& guess, bool right) {
  SHOAL_CHECK(guess.match >= 1 && guess.match <= kDraftMatchMax);
  Rate& rate = rates_[static_cast<std::size_t>(guess.match)];
  rate.right += right ? 1 : 0;
  rate.all += 1;
  if (rate.all <= kRateMemory) return;
  rate.right /= 2;
  rate.all /= 2;
}

void DraftJudge::LearnTime(std::span<const StageTiming> timings, std::int64_t elapsed_us, bool shared) {
  const PassTimes pass = PassTimesOf(timings);
  Times& times = shared ? beside_ : alone_;
  times.all_stages[times.count % kSamples] = pass.all_stages;
  times.slowest_stage[times.count % kSamples] = pass.slowest_stage;
  times.elapsed[times.count % kSamples] = std::max(pass.all_stages, static_cast<double>(elapsed_us));
  ++times.count;
  times.last_at = ++rows_;
}

// A right guess saves what a token takes beyond the slowest stage, at most half of it; for a wrong one the right row
// waits until the slowest stage is through with all that was sent before.
bool DraftJudge::Pays(double chance, std::int32_t ahead) {
  if (!alone_.Known() || rows_ - alone_.last_at > kAloneEvery) return false;
  const double token = Median(alone_.elapsed), slowest = Median(alone_.slowest_stage);
  const double saved = std::min(token - slowest, token / 2), lost = std::max(0.0, (ahead + 2) * slowest - token);
  if (chance * saved < (1 - chance) * lost) return false;
  if (rows_ - beside_.last_at > kBesideEvery) beside_.count = 0;
  if (!beside_.Known()) return true;
  return Median(beside_.all_stages) <= kGain * (1 + chance) * Median(alone_.all_stages);
}

}  // namespace shoal
