// Showing what is here, looking for it elsewhere, passing on what is there.
#include "sim/answering.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

namespace shoal::sim {
namespace {

constexpr DurationUs kFirstStepUs = 1 * kSecond;  // for the first event, before the status is sent
constexpr DurationUs kFindAgainUs = 200 * kMillisecond, kFindMaxUs = 20 * kSecond;
constexpr DurationUs kSilentUs = 1 * kSecond;  // to open a stream to a member; then for its word

std::size_t EventsOf(const std::string& position) {
  std::size_t events = 0;
  std::from_chars(position.data(), position.data() + position.size(), events);
  return events;
}

// Takes whole events off the front of `text`, and the id of the last.
std::string TakeEvents(std::string& text, std::string& position) {
  const std::size_t end = text.rfind("\n\n");
  if (end == std::string::npos) return "";
  std::string events = text.substr(0, end + 2);
  text.erase(0, end + 2);
  constexpr std::string_view kId = "id: ";
  if (const std::size_t id = events.rfind(kId); id != std::string::npos) {
    const std::size_t begin = id + kId.size();
    position = events.substr(begin, events.find('\n', begin) - begin);
  }
  return events;
}

std::string ErrorEvent(const Error& error) { return std::string(kErrorEvent) + error.message + "\n\n"; }

bool IsLast(const std::string& events) {
  return events.ends_with(kDoneEvent) || events.find(kErrorEvent) != std::string::npos;
}

}  // namespace

SimAnswering::SimAnswering(Network& network, SimAnswers& answers, SimKeeping& keeping, Entry& entry, int self,
                           AnsweringRules rules)
    : network_(network), answers_(answers), keeping_(keeping), entry_(entry), self_(self), rules_(rules) {}

SimAnswering::View* SimAnswering::Find(std::uint64_t number) {
  const auto found = views_.find(number);
  return found == views_.end() ? nullptr : &found->second;
}

std::uint64_t SimAnswering::Post(AnswerRecord record, Sink sink) {
  const std::uint64_t number = ++last_view_;
  View& view = views_[number];
  view.sink = std::move(sink);
  view.id = record.id;
  view.here = answers_.Add(std::move(record));
  Show(number);
  return number;
}

std::uint64_t SimAnswering::Resume(const std::string& id, const std::string& position, Sink sink) {
  const std::uint64_t number = ++last_view_;
  View& view = views_[number];
  view.sink = std::move(sink);
  view.id = id;
  view.position = position;
  Locate(number);
  return number;
}

void SimAnswering::Gone(std::uint64_t number) {
  const auto found = views_.find(number);
  if (found == views_.end()) return;
  const View view = std::move(found->second);
  views_.erase(found);
  if (view.here) answers_.Leave(view.here, number);
  if (view.from != 0) CloseAsked(view.from);
  if (view.best != 0) CloseAsked(view.best);
  for (const StreamId stream : view.asked) CloseAsked(stream);
}

// An early failure is a status.
void SimAnswering::Fail(std::uint64_t number, const Error& error) {
  const Sink sink = views_.at(number).sink;
  const bool begun = views_.at(number).begun;
  Gone(number);
  begun ? sink.write(ErrorEvent(error)) : sink.fail(error);
}

void SimAnswering::Begin(View& view) {
  if (!std::exchange(view.begun, true) && view.sink.begin) view.sink.begin();
}

std::string SimAnswering::Describe(std::uint64_t number) const {
  const auto found = views_.find(number);
  if (found == views_.end()) return " no view";
  const View& view = found->second;
  if (view.from != 0) return " passed on by stream " + std::to_string(view.from);
  if (view.looking) return " looked for";
  if (view.here == nullptr) return " nowhere";
  return " shown here, state " + std::to_string(static_cast<int>(view.here->state)) + ":" +
         answers_.Describe(*view.here);
}

// ---- Showing an answer of this node ---------------------------------------------------------------------------------

void SimAnswering::Show(std::uint64_t number) {
  View& view = views_.at(number);
  view.next = EventsOf(view.position);
  view.started = false;
  if (rules_.break_position && view.next > 0) --view.next;
  if (!entry_.knows(view.here->record.model)) {
    view.here = nullptr;
    return Fail(number, {ErrorCode::kUnavailable, "not placed"});
  }
  answers_.Listen(view.here, number, [this, number] { Update(number); });
  answers_.Start(view.here, [this, number](const Status& started) { OnStarted(number, started); });
}

void SimAnswering::OnStarted(std::uint64_t number, const Status& started) {
  if (Find(number) == nullptr) return;
  views_.at(number).started = true;
  if (!started.ok()) return Fail(number, started.error());
  network_.Post(self_, kFirstStepUs, [this, number] {
    if (View* view = Find(number)) Begin(*view);
  });
  Update(number);
}

// Writes what the log has more than the client.
void SimAnswering::Update(std::uint64_t number) {
  View& view = views_.at(number);
  const SimAnswerPtr answer = view.here;
  using State = SimAnswer::State;
  if (!view.started || answer->state == State::kStarting) return;
  std::string out;
  for (; view.next < answer->log.size(); ++view.next) {
    const AnswerEntry& entry = answer->log[view.next];
    const bool token = entry.kind == AnswerEntry::Kind::kToken;
    const bool stop = entry.kind == AnswerEntry::Kind::kStop;
    view.position = std::to_string(view.next + 1);
    out += "id: " + view.position + "\ndata: ";
    out += (token ? std::to_string(entry.token.token) : stop ? "stop" : "length") + "\n\n";
  }
  if (answer->state == State::kIdle && out.empty() && !view.begun) return Fail(number, *answer->stopped);
  const bool ends = answer->state == State::kEnded || answer->state == State::kIdle;
  if (ends) out += answer->state == State::kEnded ? std::string(kDoneEvent) : ErrorEvent(*answer->stopped);
  if (out.empty()) return;
  Begin(view);
  const Sink sink = view.sink;
  if (ends) Gone(number);
  sink.write(out);
}

// ---- Looking for one ------------------------------------------------------------------------------------------------

// The one that runs or ran, here or elsewhere; else a copy.
void SimAnswering::Locate(std::uint64_t number) {
  View& view = views_.at(number);
  view.here = answers_.Find(view.id);
  if (view.here != nullptr && !view.here->is_copy) return Show(number);
  ++view.look;
  view.looking = true;
  view.best_lost = false;
  view.best = 0;
  view.best_place = AnswerPlace::kNowhere;
  for (const KeepingMember& member : keeping_.members()) {
    const StreamId stream = network_.Open(self_, member.node, Protocol::kAnswer);
    asked_[stream] = number;
    view.asked.insert(stream);
  }
  network_.Post(self_, view.asked.empty() ? 0 : 2 * kSilentUs, [this, number, look = view.look] {
    const View* waits = Find(number);
    if (waits != nullptr && waits->look == look && waits->looking) EndLook(number);
  });
}

void SimAnswering::OnOpened(StreamId stream) {
  const auto found = asked_.find(stream);
  if (found == asked_.end()) return;
  network_.Send(self_, stream, EncodeAnswerMessage(AnswerAsk{views_.at(found->second).id, {}}));
}

// A member's word.
void SimAnswering::OnFound(StreamId stream, AnswerPlace place) {
  const std::uint64_t number = asked_.at(stream);
  View& view = views_.at(number);
  view.asked.erase(stream);
  if (place > view.best_place) {
    if (view.best != 0) CloseAsked(view.best);
    view.best = stream;
    view.best_lost = false;
    view.best_place = place;
  } else {
    CloseAsked(stream);
  }
  // Where somebody answers it, what others have no longer matters.
  if (view.asked.empty() || view.best_place == AnswerPlace::kHere) EndLook(number);
}

void SimAnswering::EndLook(std::uint64_t number) {
  View& view = views_.at(number);
  for (const StreamId stream : std::exchange(view.asked, {})) CloseAsked(stream);
  view.looking = false;
  const StreamId best = std::exchange(view.best, 0);
  const bool there = view.best_place > (view.here ? AnswerPlace::kCopy : AnswerPlace::kNowhere);
  if (there && view.best_lost) return FindAgain(number);
  if (there) return PassOn(number, best);
  if (best != 0) CloseAsked(best);
  if (view.here != nullptr) return Show(number);
  if (view.until == 0) return Fail(number, {ErrorCode::kNotFound, "There is no answer with this id."});
  if (network_.now() >= view.until) {
    return Fail(number, {ErrorCode::kNotFound, "The node that made this answer was lost, and nobody has a copy."});
  }
  network_.Post(self_, kFindAgainUs, [this, number, look = view.look] {
    const View* waits = Find(number);
    if (waits != nullptr && waits->look == look) Locate(number);
  });
}

// ---- Passing on another node's --------------------------------------------------------------------------------------

void SimAnswering::PassOn(std::uint64_t number, StreamId from) {
  View& view = views_.at(number);
  view.here = nullptr;
  view.from = from;
  view.streamed = false;
  view.text.clear();
  network_.Send(self_, from, EncodeAnswerMessage(AnswerAttach{AnswerAttach::Mode::kAsFirstAsked, view.position}));
}

void SimAnswering::OnPassed(std::uint64_t number, const AnswerMessage& message) {
  View& view = views_.at(number);
  if (const auto* head = std::get_if<AnswerHeadMessage>(&message)) {
    view.streamed = head->streamed;
    if (view.streamed) Begin(view);
    return;
  }
  const auto* piece = std::get_if<AnswerPiece>(&message);
  SHOAL_CHECK(piece != nullptr);
  if (!view.streamed) return Fail(number, {ErrorCode::kUnavailable, piece->bytes});
  view.text += piece->bytes;
  const std::string events = TakeEvents(view.text, view.position);
  if (events.empty()) return;
  const Sink sink = view.sink;
  if (IsLast(events)) Gone(number);
  sink.write(events);
}

// After a loss: from wherever it is now.
void SimAnswering::FindAgain(std::uint64_t number) {
  View& view = views_.at(number);
  view.from = 0;
  view.until = network_.now() + kFindMaxUs;
  Locate(number);
}

void SimAnswering::CloseAsked(StreamId stream) {
  asked_.erase(stream);
  network_.Close(self_, stream);
}

// ---- Streams --------------------------------------------------------------------------------------------------------

void SimAnswering::OnFrame(StreamId stream, const FrameBytes& frame) {
  const Result<AnswerMessage> message = DecodeAnswerMessage(frame);
  SHOAL_CHECK(message.ok());
  if (served_.contains(stream)) return Serve(stream, *message);
  const std::uint64_t number = asked_.at(stream);
  if (views_.at(number).from == stream) return OnPassed(number, *message);
  const auto* found = std::get_if<AnswerFound>(&*message);
  SHOAL_CHECK(found != nullptr);
  OnFound(stream, found->place);
}

void SimAnswering::OnStreamEnd(StreamId stream) {
  if (served_.contains(stream)) return EndServed(stream);
  const std::uint64_t number = asked_.at(stream);
  View& view = views_.at(number);
  if (view.asked.contains(stream)) return OnFound(stream, AnswerPlace::kNowhere);
  asked_.erase(stream);
  if (view.from == stream) return FindAgain(number);
  view.best = 0;
  view.best_lost = true;
}

void SimAnswering::Serve(StreamId stream, const AnswerMessage& message) {
  Served& served = served_.at(stream);
  if (served.answer == nullptr) {
    const auto* ask = std::get_if<AnswerAsk>(&message);
    SHOAL_CHECK(ask != nullptr);
    served.answer = answers_.Find(ask->id);
    if (rules_.break_found && served.answer && served.answer->is_copy) served.answer = nullptr;
    AnswerFound found;
    if (served.answer) found.place = served.answer->is_copy ? AnswerPlace::kCopy : AnswerPlace::kHere;
    network_.Send(self_, stream, EncodeAnswerMessage(found));
    if (served.answer == nullptr) EndServed(stream);
    return;
  }
  const auto* attach = std::get_if<AnswerAttach>(&message);
  SHOAL_CHECK(attach != nullptr);
  const std::uint64_t number = served.view = ++last_view_;
  View& view = views_[number];
  view.id = served.answer->record.id;
  view.position = attach->position;
  view.here = served.answer;
  view.sink.begin = [this, stream] {
    network_.Send(self_, stream, EncodeAnswerMessage(AnswerHeadMessage{200, 0, true}));
  };
  view.sink.write = [this, stream](const std::string& events) {
    network_.Send(self_, stream, EncodeAnswerMessage(AnswerPiece{events}));
    if (IsLast(events)) EndServed(stream);
  };
  view.sink.fail = [this, stream](const Error& error) {
    network_.Send(self_, stream, EncodeAnswerMessage(AnswerHeadMessage{503, 0, false}));
    network_.Send(self_, stream, EncodeAnswerMessage(AnswerPiece{error.message}));
    EndServed(stream);
  };
  Show(number);
}

void SimAnswering::EndServed(StreamId stream) {
  const auto found = served_.find(stream);
  if (found == served_.end()) return;
  const std::uint64_t view = found->second.view;
  served_.erase(found);
  Gone(view);
  network_.Close(self_, stream);
}

}  // namespace shoal::sim
