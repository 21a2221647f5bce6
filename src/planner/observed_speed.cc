// Time and tokens between two calls, put to the kind of work that ran meanwhile.
#include "planner/observed_speed.h"

#include <algorithm>

namespace shoal {
namespace {

constexpr double kTold = 0.2;  // a share by which a figure must change to be news

bool Differs(double now, double told) { return now > 0 && (now < told * (1 - kTold) || now > told * (1 + kTold)); }

}  // namespace

bool Differs(const ObservedSpeeds& now, const ObservedSpeeds& told) {
  return Differs(now.tokens_s, told.tokens_s) || Differs(now.tokens_s_many, told.tokens_s_many) ||
         Differs(now.streams, told.streams) || Differs(now.prompt_tokens_s, told.prompt_tokens_s);
}

void ObservedSpeed::Window::Add(const Sum& more) {
  if (now.seconds >= kWindowS) {
    before = now;
    now = {};
  }
  now.tokens += more.tokens;
  now.seconds += more.seconds;
  now.streams += more.streams;
}

void ObservedSpeed::Note(double now_s, const Load& load) {
  const double seconds = std::max(now_s - last_s_, 0.0);
  const auto tokens = static_cast<double>(load.tokens_decoded - last_.tokens_decoded);
  if (last_.prefilling == 0 && last_.decoding == 1) one_.Add({tokens, seconds, seconds});
  if (last_.prefilling == 0 && last_.decoding > 1) many_.Add({tokens, seconds, last_.decoding * seconds});
  // A prompt by itself, from its first row until nothing of it is left to wait for.
  if (prompt_ && !(load.prefilling == 1 && load.decoding == 0)) {
    const auto read = static_cast<double>(load.tokens_prefilled - prompt_->tokens_before);
    const bool ended = load.prefilling == 0 && load.decoding <= 1 && tokens > 0;
    if (ended && read >= kPromptTokensMin) prompts_.Add({read, now_s - prompt_->since_s, 0});
    prompt_.reset();
  } else if (!prompt_ && last_.prefilling == 0 && last_.decoding == 0 && load.prefilling == 1 && load.decoding == 0) {
    prompt_ = Prompt{now_s, last_.tokens_prefilled};
  }
  last_ = load;
  last_s_ = now_s;
}

ObservedSpeeds ObservedSpeed::speeds() const {
  ObservedSpeeds speeds;
  if (const Sum one = one_.Total(); one.tokens >= kTokensMin && one.seconds > 0) {
    speeds.tokens_s = one.tokens / one.seconds;
  }
  if (const Sum many = many_.Total(); many.tokens >= kTokensMin && many.seconds > 0) {
    speeds.tokens_s_many = many.tokens / many.seconds;
    speeds.streams = many.streams / many.seconds;
  }
  if (const Sum read = prompts_.Total(); read.seconds > 0) speeds.prompt_tokens_s = read.tokens / read.seconds;
  return speeds;
}

}  // namespace shoal
