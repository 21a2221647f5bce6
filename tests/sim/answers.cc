// A map of answers, swept by age; each runs as a generation of the entry.
#include "sim/answers.h"

#include <algorithm>
#include <sstream>
#include <utility>

namespace shoal::sim {
namespace {

using Kind = AnswerEntry::Kind;
using State = SimAnswer::State;

constexpr DurationUs kPollUs = 50 * kMillisecond;                         // how soon it is noticed that nobody listens
constexpr DurationUs kGraceUs = 60 * kSecond;                             // then a kept one goes on for so long
constexpr DurationUs kKeptUs = 120 * kSecond, kCopiesUs = 600 * kSecond;  // since the last use; the last word of it

AnswerEntry EntryOf(Kind kind) {
  AnswerEntry entry;
  entry.kind = kind;
  return entry;
}

}  // namespace

std::string TextOf(const AnswerBody& body) {
  std::string text = std::to_string(body.tokens_max);
  for (const TokenId token : body.prompt) text += " " + std::to_string(token);
  return text;
}

AnswerBody ParseBody(const std::string& text) {
  std::istringstream in(text);
  AnswerBody body;
  in >> body.tokens_max;
  for (TokenId token = 0; in >> token;) body.prompt.push_back(token);
  return body;
}

SimAnswers::SimAnswers(Network& network, Checks& checks, Entry& entry, int self, const std::vector<FakeModel>& models)
    : network_(network), checks_(checks), entry_(entry), self_(self), models_(models) {}

SimAnswerPtr SimAnswers::Add(AnswerRecord record) {
  Sweep();
  const auto answer = std::make_shared<SimAnswer>(std::move(record), false, network_.now());
  SHOAL_CHECK(by_id_.emplace(answer->record.id, answer).second);
  return answer;
}

SimAnswerPtr SimAnswers::AddCopy(AnswerRecord record) {
  Sweep();
  const auto [at, is_new] = by_id_.try_emplace(record.id);
  // The node that answers has another keeper, and comes back to this one: what is here is the beginning.
  if (!is_new) return at->second->is_copy && at->second->record == record ? at->second : nullptr;
  return at->second = std::make_shared<SimAnswer>(std::move(record), true, network_.now());
}

SimAnswerPtr SimAnswers::Find(const std::string& id) {
  Sweep();
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

void SimAnswers::Sweep() {
  std::erase_if(by_id_, [&](const auto& entry) {
    const SimAnswer& answer = *entry.second;
    return !answer.in_use() && network_.now() - answer.last_changed > (answer.is_copy ? kCopiesUs : kKeptUs);
  });
}

// ---- Running --------------------------------------------------------------------------------------------------------

void SimAnswers::Start(SimAnswerPtr answer, std::function<void(const Status&)> done) {
  if (answer->state == State::kRunning || answer->state == State::kEnded) return done({});
  answer->starting.push_back(std::move(done));
  if (answer->state == State::kIdle) Run(answer);
}

// From the log on.
void SimAnswers::Run(const SimAnswerPtr& answer) {
  answer->state = State::kStarting;
  answer->is_copy = false;
  const FakeModel& model = ModelOf(models_, answer->record.model);
  EntryAsk ask{answer->record.model, answer->body.prompt,     0,
               answer->record.seed,  answer->body.tokens_max, model.context_tokens};
  bool at_an_end = false, ended = false;
  for (const AnswerEntry& entry : answer->log) {
    ended = ended || entry.kind != Kind::kToken;
    if (entry.kind != Kind::kToken) continue;
    ask.history.push_back(entry.token.token);
    at_an_end = entry.token.end;
    ++ask.emitted;
    --ask.tokens_max;
  }
  const bool full = ask.tokens_max <= 0 || ask.history.size() >= static_cast<std::size_t>(model.context_tokens);
  if (ended || at_an_end || full) {
    if (!ended) Append(answer, EntryOf(at_an_end ? Kind::kStop : Kind::kLength));
    return Become(answer, State::kEnded);
  }
  answer->generation = ++generations_;
  EntryEvents events;
  events.on_started = [this, answer] { Become(answer, State::kRunning); };
  events.on_token = [this, answer](Position position, const SampledToken& token) { OnToken(answer, position, token); };
  events.on_end = [this, answer](const EntryEnd& end) { OnEnd(answer, end); };
  entry_.Start(answer->generation, std::move(ask), std::move(events));
}

void SimAnswers::OnToken(const SimAnswerPtr& answer, Position position, const SampledToken& token) {
  const std::size_t expected = answer->body.prompt.size() + answer->log.size();
  if (static_cast<std::size_t>(position) != expected) {
    checks_.Violate(static_cast<std::size_t>(position) < expected ? Invariant::kOneTokenPerPosition
                                                                  : Invariant::kStreamEqualsOneNode,
                    answer->record.id + " at node " + std::to_string(self_) + " got a token for position " +
                        std::to_string(position) + ", not " + std::to_string(expected));
  }
  AnswerEntry entry = EntryOf(Kind::kToken);
  entry.token = token;
  Append(answer, std::move(entry));
}

void SimAnswers::OnEnd(const SimAnswerPtr& answer, const EntryEnd& end) {
  answer->generation = 0;
  if (end.finish) {
    Append(answer, EntryOf(*end.finish == FinishReason::kStop ? Kind::kStop : Kind::kLength));
    return Become(answer, State::kEnded);
  }
  checks_.OnEndedBy(answer->record.id + " at node " + std::to_string(self_), answer->record.model, end.cause,
                    end.knew_placement, end.error.message);
  Become(answer, State::kIdle, end.error);
}

void SimAnswers::Append(const SimAnswerPtr& answer, AnswerEntry entry) {
  answer->log.push_back(std::move(entry));
  answer->last_changed = network_.now();
  Changed(answer);
  Tell(answer);
}

void SimAnswers::Become(const SimAnswerPtr& answer, State state, std::optional<Error> stopped) {
  answer->state = state;
  answer->stopped = std::move(stopped);
  answer->last_changed = network_.now();
  if (state == State::kRunning) Changed(answer);
  // One after the other: who waits after one that was refused tries it again.
  auto waiting = std::exchange(answer->starting, {});
  if (state == State::kIdle && waiting.size() > 1) {
    network_.Post(self_, 0, [this, answer, again = std::vector(waiting.begin() + 1, waiting.end())] {
      for (const auto& done : again) Start(answer, done);
    });
    waiting.resize(1);
  }
  const Status status = answer->stopped ? Status(*answer->stopped) : Status();
  for (const auto& done : waiting) done(status);
  Tell(answer);
  if (state == State::kRunning) CheckWanted(answer, kPollUs);
}

// ---- Who reads it ---------------------------------------------------------------------------------------------------

void SimAnswers::Listen(const SimAnswerPtr& answer, std::uint64_t view, std::function<void()> on_change) {
  answer->listeners[view] = std::move(on_change);
}

void SimAnswers::Leave(const SimAnswerPtr& answer, std::uint64_t view) {
  answer->listeners.erase(view);
  answer->left = answer->last_changed = network_.now();
  CheckWanted(answer, answer->record.keep ? kGraceUs : kPollUs);
}

void SimAnswers::CheckWanted(const SimAnswerPtr& answer, DurationUs delay) {
  if (!answer->listeners.empty()) return;
  network_.Post(self_, delay, [this, answer] {
    if (!answer->listeners.empty() || answer->state != State::kRunning) return;
    const DurationUs alone = network_.now() - answer->left;
    if (answer->record.keep && alone < kGraceUs) return CheckWanted(answer, kGraceUs - alone);
    entry_.Cancel(std::exchange(answer->generation, 0));
    Become(answer, State::kIdle, Error{ErrorCode::kCancelled, "The generation was cancelled."});
  });
}

void SimAnswers::Tell(const SimAnswerPtr& answer) {
  std::vector<std::uint64_t> views;
  for (const auto& [view, on_change] : answer->listeners) views.push_back(view);
  for (const std::uint64_t view : views) {
    const auto listener = answer->listeners.find(view);
    if (listener == answer->listeners.end()) continue;
    const std::function<void()> on_change = listener->second;  // may leave
    on_change();
  }
}

// ---- Copies ---------------------------------------------------------------------------------------------------------

bool SimAnswers::Receive(const SimAnswerPtr& answer, std::size_t first, const std::vector<AnswerEntry>& entries) {
  if (!answer->is_copy) return true;
  if (first > answer->log.size()) return false;
  for (std::size_t i = answer->log.size() - first; i < entries.size(); ++i) answer->log.push_back(entries[i]);
  answer->last_changed = network_.now();
  return true;
}

void SimAnswers::Changed(const SimAnswerPtr& answer) {
  if (std::find(changed_.begin(), changed_.end(), answer) == changed_.end()) changed_.push_back(answer);
  if (on_change_) on_change_();
}

std::vector<SimAnswerPtr> SimAnswers::TakeChanged() { return std::exchange(changed_, {}); }

std::vector<SimAnswerPtr> SimAnswers::InUse() {
  std::vector<SimAnswerPtr> used;
  for (const auto& [id, answer] : by_id_) {
    if (!answer->is_copy && answer->in_use()) used.push_back(answer);
  }
  return used;
}

}  // namespace shoal::sim
