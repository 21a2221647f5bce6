// Random requests, and connections that carry their answers.
#include "sim/clients.h"

#include <charconv>

namespace shoal::sim {
namespace {

constexpr int kBeginnings = 3;
constexpr std::uint64_t kBeginningMax = 100, kOwnMax = 30, kAnswerMax = 40;
constexpr DurationUs kGapMaxUs = 4 * kSecond, kPatienceMaxUs = 10 * kSecond;
constexpr std::uint64_t kCancelEvery = 15, kKeepEvery = 3;

constexpr std::uint64_t kStaysAwayEvery = 8, kImpatientEvery = 3, kTwiceEvery = 5;  // of clients
constexpr DurationUs kWatchUs = 1 * kSecond, kSilenceUs = 8 * kSecond;
constexpr DurationUs kBackMinUs = 50 * kMillisecond, kBackMaxUs = 4 * kSecond, kTwiceMaxUs = 30 * kMillisecond;
constexpr int kTriesMax = 8;

std::string IdOf(const Ask& ask) { return "cmpl-" + std::to_string(ask.id); }

template <typename Number>
Number NumberIn(std::string_view text) {
  Number number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

void ComingBack::operator+=(const ComingBack& other) {
  lost += other.lost;
  found += other.found;
  complete += other.complete;
  for (const auto& [text, count] : other.not_found_by) not_found_by[text] += count;
}

Clients::Clients(Network& network, Checks& checks, std::vector<std::unique_ptr<SimNode>>& nodes,
                 const std::vector<FakeModel>& models)
    : network_(network), checks_(checks), nodes_(nodes), models_(models) {
  for (int i = 0; i < kBeginnings; ++i) {
    std::vector<TokenId>& tokens = beginnings_.emplace_back();
    for (std::uint64_t n = network_.rng().Below(kBeginningMax); n > 0; --n) {
      tokens.push_back(static_cast<TokenId>(network_.rng().Below(1000)));
    }
  }
}

void Clients::Start() {
  asking_ = true;
  Next();
}

void Clients::Next() {
  if (!asking_) return;
  Rng& rng = network_.rng();
  const auto node = static_cast<int>(rng.Below(nodes_.size()));
  const FakeModel& model = models_[rng.Below(models_.size())];
  if (at(node).up()) (void)Begin(node, model);
  network_.After(static_cast<DurationUs>(rng.Below(kGapMaxUs)), [this] { Next(); });
}

const Ask& Clients::Begin(int node, const FakeModel& model) {
  Rng& rng = network_.rng();
  asks_.push_back(std::make_unique<Ask>());
  Ask& ask = *asks_.back();
  ask.id = asks_.size();
  ask.node = node;
  ask.model = model.name;
  ask.prompt = beginnings_[rng.Below(kBeginnings)];
  for (std::uint64_t n = 1 + rng.Below(kOwnMax); n > 0; --n) {
    ask.prompt.push_back(static_cast<TokenId>(rng.Below(static_cast<std::uint64_t>(model.vocabulary))));
  }
  ask.seed = rng.Next();
  ask.tokens_max = 1 + static_cast<std::int32_t>(rng.Below(kAnswerMax));
  ask.expected = RunOnOneNode(model, ask.prompt, ask.seed, ask.tokens_max);
  ask.comes_back = rng.Below(kStaysAwayEvery) != 0;
  ask.impatient = rng.Below(kImpatientEvery) == 0;
  if (asking_ && rng.Below(kCancelEvery) == 0) {
    network_.After(static_cast<DurationUs>(rng.Below(kPatienceMaxUs)), [this, &ask] {
      if (ask.ended) return;
      ask.cancelled = true;
      GiveUp(ask, "cancelled by its client");
    });
  }
  Open(ask, node, false);
  return ask;
}

// ---- Connections ----------------------------------------------------------------------------------------------------

bool Clients::Has(int node, const Ask& ask) {
  return network_.running(node) && at(node).answers().Find(IdOf(ask)) != nullptr;
}

void Clients::Open(Ask& ask, int node, bool comes_back) {
  const std::uint64_t number = ++last_line_;
  Line& line = lines_[number];
  line = {&ask, node, at(node).boot(), 0, ask.events(), network_.now(), network_.now(), comes_back, {}};
  ++ask.lines;
  Watch(number);
  SimAnswering& answering = at(node).answering();
  std::uint64_t view = 0;
  if (comes_back) {
    for (int other = 0; other < network_.nodes(); ++other) {
      if ((other == node || at(node).Sees(other)) && Has(other, ask)) line.in_reach.insert(other);
    }
    view = answering.Resume(IdOf(ask), ask.events() > 0 ? std::to_string(ask.events()) : "", SinkOf(number));
  } else {
    AnswerRecord record;
    record.dialect = Dialect::kCompletions;
    record.keep = network_.rng().Below(kKeepEvery) == 0;
    record.id = IdOf(ask);
    record.model = ask.model;
    record.seed = ask.seed;
    record.body = TextOf(AnswerBody{ask.prompt, ask.tokens_max});
    view = answering.Post(std::move(record), SinkOf(number));
  }
  if (const auto found = lines_.find(number); found != lines_.end()) found->second.view = view;
}

SimAnswering::Sink Clients::SinkOf(std::uint64_t line) {
  SimAnswering::Sink sink;
  sink.begin = [this, line] {
    const auto found = lines_.find(line);
    if (found != lines_.end()) found->second.ask->knows_id = true;
  };
  sink.write = [this, line](const std::string& events) { OnEvents(line, events); };
  sink.fail = [this, line](const Error& error) { OnFail(line, error); };
  return sink;
}

// A node that is gone; one that says nothing.
void Clients::Watch(std::uint64_t number) {
  network_.After(kWatchUs, [this, number] {
    const auto found = lines_.find(number);
    if (found == lines_.end()) return;
    const Line& line = found->second;
    if (!network_.running(line.node) || at(line.node).boot() != line.boot) return Lose(number);
    if (line.ask->impatient && line.ask->knows_id && network_.now() - line.heard > kSilenceUs) {
      Ask& ask = *line.ask;
      Close(number);
      ComeBackLater(ask);
      return EndIfOver(ask);
    }
    Watch(number);
  });
}

void Clients::OnEvents(std::uint64_t number, std::string_view events) {
  while (!events.empty() && lines_.contains(number)) {
    const std::size_t end = events.find("\n\n");
    SHOAL_CHECK(end != std::string_view::npos);
    OnEvent(number, events.substr(0, end + 2));
    events.remove_prefix(end + 2);
  }
}

void Clients::OnEvent(std::uint64_t number, std::string_view event) {
  Line& line = lines_.at(number);
  Ask& ask = *line.ask;
  line.heard = network_.now();
  if (line.comes_back) ask.was_found = true;
  if (event == kDoneEvent) {
    checks_.OnComplete(ask, line.had);
    Close(number);
    return EndIfOver(ask);
  }
  if (event.starts_with(kErrorEvent)) {
    const std::string why(event.substr(kErrorEvent.size(), event.size() - kErrorEvent.size() - 2));
    Close(number);
    // The answer could be gone on with.
    if (network_.rng().Below(2) == 0 && ask.comes_back && ask.tries < kTriesMax) {
      ComeBackLater(ask);
    } else if (ask.error.empty() && !ask.complete) {
      ask.error = why;
    }
    return EndIfOver(ask);
  }
  constexpr std::string_view kId = "id: ", kData = "\ndata: ";
  const std::size_t data = event.find(kData);
  SHOAL_CHECK(event.starts_with(kId) && data != std::string_view::npos);
  const auto id = NumberIn<std::size_t>(event.substr(kId.size(), data - kId.size()));
  const std::string_view text = event.substr(data + kData.size(), event.size() - data - kData.size() - 2);
  if (text == "stop" || text == "length") {
    checks_.OnFinish(ask, line.had, id, text == "stop");
  } else {
    checks_.OnToken(ask, line.had, id, NumberIn<TokenId>(text));
  }
  line.had = id;
}

void Clients::OnFail(std::uint64_t number, const Error& error) {
  const auto found = lines_.find(number);
  if (found == lines_.end()) return;
  const Line line = found->second;
  Ask& ask = *line.ask;
  Close(number);
  if (!line.comes_back) {
    ask.error = error.message;
    return EndIfOver(ask);
  }
  for (const int other : line.in_reach) {
    const bool still = error.code == ErrorCode::kNotFound && Has(other, ask) &&
                       (other == line.node || at(line.node).Sees(other)) &&
                       network_.IsCalmSince(line.node, other, line.since);
    if (!still) continue;
    checks_.Violate(Invariant::kAnswerIsFound, IdOf(ask) + " is at node " + std::to_string(other) + ", and node " +
                                                   std::to_string(line.node) + " says: " + error.message);
  }
  if (ask.tries < kTriesMax) {
    ComeBackLater(ask);
  } else if (!ask.complete) {
    const std::string why = error.code == ErrorCode::kNotFound ? WhyNotFound(ask) : error.message;
    ask.not_found_by = why;
    ask.error = "not gone on with: " + why;
  }
  EndIfOver(ask);
}

std::string Clients::WhyNotFound(const Ask& ask) {
  for (int node = 0; node < network_.nodes(); ++node) {
    if (Has(node, ask)) return "who has it is out of reach";
  }
  return ask.was_copied ? "all that had it are gone" : "it was not copied yet";
}

void Clients::Close(std::uint64_t number) {
  const Line line = lines_.at(number);
  lines_.erase(number);
  --line.ask->lines;
  if (!network_.running(line.node) || at(line.node).boot() != line.boot) return;
  network_.Post(line.node, 0,
                [this, line] { at(line.node).answering().Gone(line.view); });  // nothing, when that ended it
}

void Clients::Lose(std::uint64_t number) {
  const Line line = lines_.at(number);
  Ask& ask = *line.ask;
  Close(number);
  if (!ask.complete && !ask.lost_entry && ask.comes_back && ask.knows_id) {
    ask.lost_entry = true;
    for (int node = 0; node < network_.nodes(); ++node) {
      ask.was_copied = ask.was_copied || (node != line.node && Has(node, ask));
    }
  }
  const bool comes_back = ask.comes_back && ask.knows_id;
  if (!comes_back && ask.error.empty() && !ask.complete) ask.error = "its node is gone";
  ComeBackLater(ask);
  EndIfOver(ask);
}

void Clients::ComeBackLater(Ask& ask) {
  if (ask.complete || ask.cancelled || !ask.comes_back || !ask.knows_id) return;
  Rng& rng = network_.rng();
  const auto in = kBackMinUs + static_cast<DurationUs>(rng.Below(static_cast<std::uint64_t>(kBackMaxUs - kBackMinUs)));
  const int times = ask.to_come + ask.lines == 0 && rng.Below(kTwiceEvery) == 0 ? 2 : 1;
  for (int i = 0; i < times; ++i) {
    ++ask.to_come;
    network_.After(in + (i == 0 ? 0 : static_cast<DurationUs>(rng.Below(kTwiceMaxUs))),
                   [this, &ask] { ComeBack(ask); });
  }
}

void Clients::ComeBack(Ask& ask) {
  --ask.to_come;
  std::vector<int> up;
  for (int node = 0; node < network_.nodes(); ++node) {
    if (at(node).up()) up.push_back(node);
  }
  if (ask.complete || ask.cancelled) return EndIfOver(ask);
  if (up.empty()) return ComeBackLater(ask);
  ++ask.tries;
  Open(ask, up[network_.rng().Below(up.size())], true);
}

void Clients::GiveUp(Ask& ask, const std::string& why) {
  std::vector<std::uint64_t> its;
  for (const auto& [number, line] : lines_) {
    if (line.ask == &ask) its.push_back(number);
  }
  for (const std::uint64_t number : its) Close(number);
  ask.error = why;
  EndIfOver(ask);
}

void Clients::EndIfOver(Ask& ask) {
  ask.ended = ask.lines == 0 && ask.to_come == 0;
  if (ask.complete) ask.error.clear();
}

void Clients::OnCrash(int node) {
  std::vector<std::uint64_t> its;
  for (const auto& [number, line] : lines_) {
    if (line.node == node) its.push_back(number);
  }
  for (const std::uint64_t number : its) Lose(number);
}

// ---- What came of it ------------------------------------------------------------------------------------------------

const Ask* Clients::FirstUnended() const {
  for (const std::unique_ptr<Ask>& ask : asks_) {
    if (!ask->ended) return ask.get();
  }
  return nullptr;
}

std::string Clients::Describe(const Ask& ask) const {
  std::string text = std::to_string(ask.to_come) + " to come;";
  for (const auto& [number, line] : lines_) {
    if (line.ask != &ask) continue;
    const SimNode& node = *nodes_[static_cast<std::size_t>(line.node)];
    text += " at node " + std::to_string(line.node) + node.DescribeView(line.view) + ";";
  }
  return text;
}

std::uint64_t Clients::complete() const {
  std::uint64_t count = 0;
  for (const std::unique_ptr<Ask>& ask : asks_) count += ask->complete ? 1 : 0;
  return count;
}

std::map<std::string, std::uint64_t> Clients::errors() const {
  std::map<std::string, std::uint64_t> count;
  for (const std::unique_ptr<Ask>& ask : asks_) {
    if (!ask->error.empty()) ++count[ask->error];
  }
  return count;
}

std::uint64_t Clients::tokens() const {
  std::uint64_t count = 0;
  for (const std::unique_ptr<Ask>& ask : asks_) count += ask->delivered.size();
  return count;
}

ComingBack Clients::coming_back() const {
  ComingBack back;
  for (const std::unique_ptr<Ask>& ask : asks_) {
    if (!ask->lost_entry) continue;
    ++back.lost;
    back.found += ask->was_found ? 1 : 0;
    back.complete += ask->was_found && ask->complete ? 1 : 0;
    if (!ask->complete && !ask->not_found_by.empty()) ++back.not_found_by[ask->not_found_by];
  }
  return back;
}

}  // namespace shoal::sim
