// Round robin over the choices; every wait is short, so that a client that left is noticed soon.
#include "api/answer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using Kind = AnswerEntry::Kind;

constexpr milliseconds kPollInterval{50};        // one choice left to wait for
constexpr milliseconds kPollIntervalShared{10};  // several: none may be kept waiting behind another for long

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

std::size_t BytesOf(const AnswerEntry& entry) {
  return sizeof entry + entry.token.alternatives.capacity() * sizeof(TokenLogprob);
}

AnswerEntry EntryOf(std::size_t choice, Kind kind) {
  AnswerEntry entry;
  entry.choice = static_cast<std::uint16_t>(choice);
  entry.kind = kind;
  return entry;
}

// What the log says of one choice.
struct Past {
  std::vector<TokenId> tokens;
  std::optional<ChoiceText> stops;
  bool ended = false;      // and it says so
  bool at_an_end = false;  // the last token was one that ends
};

Error NotOfThisPlan() {
  return {ErrorCode::kInternal, "what is kept of this answer does not belong to the model that is served here"};
}

}  // namespace

Answer::Answer(AnswerHost& host, AnswerRecord record, bool is_copy)
    : host_(host),
      record_(std::move(record)),
      claim_(is_copy ? Claim::kSettled : Claim::kOpen),
      is_copy_(is_copy),
      keep_(record_.keep),
      left_(made_),
      last_changed_(made_) {}

bool Answer::is_copy() const {
  const std::lock_guard lock(mutex_);
  return is_copy_;
}

bool Answer::is_claim() const {
  const std::lock_guard lock(mutex_);
  return claim_ == Claim::kOpen;
}

void Answer::Settle() {
  {
    const std::lock_guard lock(mutex_);
    SHOAL_CHECK(claim_ != Claim::kGivenWay);
    claim_ = Claim::kSettled;
  }
  changed_.notify_all();
}

void Answer::GiveWay() {
  {
    const std::lock_guard lock(mutex_);
    if (claim_ == Claim::kOpen) claim_ = Claim::kGivenWay;
  }
  changed_.notify_all();
}

Answer::Claim Answer::WaitForClaim(milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return claim_ != Claim::kOpen; });
  return claim_;
}

bool Answer::in_use() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::kStarting || state_ == State::kRunning || listeners_ > 0;
}

steady_clock::time_point Answer::last_changed() const {
  const std::lock_guard lock(mutex_);
  return last_changed_;
}

std::size_t Answer::bytes() const {
  const std::lock_guard lock(mutex_);
  return sizeof *this + record_.body.size() + log_bytes_;
}

Answer::Listening::Listening(std::shared_ptr<Answer> to) : to_(std::move(to)) {
  const std::lock_guard lock(to_->mutex_);
  ++to_->listeners_;
}

Answer::Listening::~Listening() {
  const std::lock_guard lock(to_->mutex_);
  --to_->listeners_;
  to_->left_ = to_->last_changed_ = steady_clock::now();
}

void Answer::Keep() {
  const std::lock_guard lock(mutex_);
  keep_ = true;
}

bool Answer::IsWanted() const {
  const std::lock_guard lock(mutex_);
  return listeners_ > 0 || (keep_ && steady_clock::now() - left_ < host_.grace);
}

// ---- Starting -------------------------------------------------------------------------------------------------------

std::optional<ApiError> Answer::Start(const std::shared_ptr<const AnswerPlan>& plan) {
  std::vector<AnswerEntry> log;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return state_ != State::kStarting; });
    SHOAL_CHECK(claim_ == Claim::kSettled);
    if (state_ != State::kIdle) return std::nullopt;
    state_ = State::kStarting;
    is_copy_ = false;
    log = log_;
  }
  const auto fail = [&](ApiError error) {
    Become(State::kIdle, Error{ErrorCode::kUnavailable, error.message});
    return error;
  };
  const std::int32_t backend_max = plan->backend->model().generations_max;
  const std::int32_t at_once = std::min(host_.admission.generations_max(), backend_max > 0 ? backend_max : INT32_MAX);
  if (plan->choices() > static_cast<std::size_t>(at_once)) {
    return fail(InvalidRequest("The request asks for " + std::to_string(plan->choices()) + " generations; at most " +
                                   std::to_string(at_once) + " can run or wait here at once.",
                               plan->choices_per_prompt > 1 ? "n" : "prompt"));
  }
  const Error busy{ErrorCode::kOverloaded, "Too many requests are being answered. Try again shortly."};
  auto permit = host_.admission.TryEnter(static_cast<int>(plan->choices()));
  if (!permit) return fail(FromError(busy));
  auto starting = StartChoices(*plan, log);
  if (auto* error = std::get_if<ApiError>(&starting)) return fail(std::move(*error));
  auto started = std::get<Started>(std::move(starting));
  for (const RunPrompt& prompt : plan->prompts) host_.metrics.prompt_tokens.Add(prompt.tokens.size());
  Append(std::move(started.ends));
  if (started.live.empty()) {
    Become(State::kEnded);
    return std::nullopt;
  }
  Become(State::kRunning);
  const auto shared =
      std::make_shared<std::pair<std::vector<Live>, Admission::Permit>>(std::move(started.live), *std::move(permit));
  const bool runs = host_.threads.Run([self = shared_from_this(), plan, shared] {
    self->Run(plan, std::move(shared->first), std::move(shared->second));
  });
  if (!runs) return fail(FromError(busy));
  return std::nullopt;
}

std::variant<Answer::Started, ApiError> Answer::StartChoices(const AnswerPlan& plan,
                                                             const std::vector<AnswerEntry>& log) const {
  std::vector<Past> pasts(plan.choices());
  for (std::size_t i = 0; i < pasts.size(); ++i) {
    if (!plan.PromptOf(i).stops.empty()) pasts[i].stops.emplace(plan.TextOf(i));
  }
  const std::int32_t n_vocab = plan.backend->vocabulary().size();
  for (const AnswerEntry& entry : log) {
    if (entry.choice >= pasts.size() || entry.token.token >= n_vocab) return FromError(NotOfThisPlan());
    Past& past = pasts[entry.choice];
    if (entry.kind == Kind::kStop || entry.kind == Kind::kLength) past.ended = true;
    if (entry.kind != Kind::kToken) continue;
    past.tokens.push_back(entry.token.token);
    past.at_an_end = entry.token.end;
    if (past.stops) past.at_an_end = past.stops->Add(entry).end.has_value() || past.at_an_end;
  }
  Started started;
  const auto context = static_cast<std::size_t>(plan.backend->model().context_tokens_max);
  for (std::size_t i = 0; i < pasts.size(); ++i) {
    Past& past = pasts[i];
    if (past.ended) continue;
    GenerateOptions options = plan.OptionsOf(i);
    const std::size_t emitted = past.tokens.size();
    options.prompt.insert(options.prompt.end(), past.tokens.begin(), past.tokens.end());
    options.emitted = static_cast<std::uint32_t>(emitted);
    const bool limited = options.tokens_max > 0;
    if (limited) options.tokens_max -= static_cast<std::int32_t>(emitted);
    const bool full = (limited && options.tokens_max <= 0) || (emitted > 0 && options.prompt.size() >= context);
    if (past.at_an_end || full || plan.nothing) {
      started.ends.push_back(EntryOf(i, past.at_an_end ? Kind::kStop : Kind::kLength));
      continue;
    }
    auto handle = plan.backend->Generate(std::move(options));
    if (!handle.ok()) return FromError(handle.error());
    started.live.push_back({i, *std::move(handle), std::move(past.stops), -1, emitted == 0});
  }
  return started;
}

// ---- Running --------------------------------------------------------------------------------------------------------

void Answer::Run(std::shared_ptr<const AnswerPlan> plan, std::vector<Live> live, Admission::Permit permit) {
  const auto began = steady_clock::now();
  std::optional<Error> failed;
  std::size_t turn = 0;
  while (!live.empty() && !failed) {
    if (host_.stopping) {
      failed = Error{ErrorCode::kUnavailable, "The server is stopping."};
    } else if (!IsWanted()) {
      failed = Error{ErrorCode::kCancelled, "The generation was cancelled."};
    } else if (auto next = Poll(live, turn)) {
      failed = Take(live[next->first], next->second);
      std::erase_if(live, [](const Live& one) { return one.handle == nullptr; });
    }
  }
  live.clear();  // slots are free, and places given back, before anyone hears that it is over
  plan.reset();
  { const Admission::Permit given_back(std::move(permit)); }
  host_.metrics.request_seconds.Observe(SecondsSince(began));
  if (failed) return Become(State::kIdle, std::move(failed));
  Become(State::kEnded);
}

std::optional<std::pair<std::size_t, GenerationEvent>> Answer::Poll(std::vector<Live>& live, std::size_t& turn) const {
  // First whoever has something now, then a short wait on the one whose turn it is.
  for (const milliseconds wait : {milliseconds(0), live.size() > 1 ? kPollIntervalShared : kPollInterval}) {
    for (std::size_t i = 0; i < live.size(); ++i) {
      const std::size_t index = (turn + i) % live.size();
      auto event = live[index].handle->Next(wait);
      if (event || wait.count() > 0) turn = index + 1;
      if (event) return std::pair(index, *std::move(event));
      if (wait.count() > 0) return std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<Error> Answer::Take(Live& live, GenerationEvent& event) {
  std::vector<AnswerEntry> entries;
  std::optional<GenerationEnd> end = event.end;
  if (event.token) {
    AnswerEntry entry = EntryOf(live.choice, Kind::kToken);
    entry.token = *event.token;
    if (live.stops && live.stops->Add(entry).end) end = GenerationEnd::kStop;
    host_.metrics.completion_tokens.Add(1);
    if (!std::exchange(first_token_seen_, true)) host_.metrics.first_token_seconds.Observe(SecondsSince(made_));
    entries.push_back(std::move(entry));
  }
  const bool over = end == GenerationEnd::kStop || end == GenerationEnd::kLength;
  const std::int32_t reused = live.handle->reused_tokens();
  // Of the first run: what a client saved by asking again, not what a loss cost.
  if (live.first_run && (over || (event.token && live.reused_said < 0)) && reused != live.reused_said) {
    AnswerEntry said = EntryOf(live.choice, Kind::kReused);
    live.reused_said = said.reused_tokens = reused;
    entries.insert(entries.begin(), std::move(said));
  }
  if (over) {
    if (live.first_run) host_.metrics.cached_tokens.Add(static_cast<std::uint64_t>(std::max(reused, 0)));
    live.handle.reset();
    entries.push_back(EntryOf(live.choice, end == GenerationEnd::kStop ? Kind::kStop : Kind::kLength));
  }
  Append(std::move(entries));
  if (!end || over) return std::nullopt;
  return end == GenerationEnd::kError ? event.error : Error{ErrorCode::kUnavailable, "The generation was cancelled."};
}

void Answer::Append(std::vector<AnswerEntry> entries) {
  if (entries.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    for (AnswerEntry& entry : entries) {
      log_bytes_ += BytesOf(entry);
      log_.push_back(std::move(entry));
    }
    last_changed_ = steady_clock::now();
  }
  changed_.notify_all();
  host_.changed(shared_from_this());
}

void Answer::Become(State state, std::optional<Error> stopped) {
  {
    const std::lock_guard lock(mutex_);
    state_ = state;
    stopped_ = std::move(stopped);
    last_changed_ = steady_clock::now();
  }
  changed_.notify_all();
  if (state == State::kRunning) host_.changed(shared_from_this());
}

// ---- Reading and copying --------------------------------------------------------------------------------------------

Answer::News Answer::Read(std::size_t from, milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] {
    return log_.size() > from || state_ == State::kEnded || (state_ == State::kIdle && stopped_);
  });
  News news;
  if (log_.size() > from) news.entries.assign(log_.begin() + static_cast<std::ptrdiff_t>(from), log_.end());
  news.ended = state_ == State::kEnded;
  if (state_ == State::kIdle) news.stopped = stopped_;
  return news;
}

bool Answer::Receive(std::size_t first, const std::vector<AnswerEntry>& entries) {
  const std::lock_guard lock(mutex_);
  if (!is_copy_) return true;
  if (first > log_.size()) return false;
  for (std::size_t i = log_.size() - first; i < entries.size(); ++i) {
    log_bytes_ += BytesOf(entries[i]);
    log_.push_back(entries[i]);
  }
  last_changed_ = steady_clock::now();
  return true;
}

}  // namespace shoal
