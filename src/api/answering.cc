// Where an answer is, and how its log becomes what the client reads.
#include "api/answering.h"

#include <charconv>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "api/answer_plan.h"
#include "api/json_input.h"
#include "api/openai_responses.h"
#include "identity/crypto.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How long a stream waits for its first token before the status is sent: failures until then are plain HTTP errors.
constexpr milliseconds kFirstStepWait{1'000};
constexpr milliseconds kReadWait{50};  // how soon a lost client is noticed
constexpr milliseconds kFindAgain{200};
constexpr milliseconds kFindMax{20'000};  // how long an answer whose node was lost is looked for
constexpr std::string_view kAfterUsage = "end";

// Nobody reads it, or the server stops: server.cc tells which.
ApiError Abandoned() { return FromStatus(kClientLeftStatus, "The client left before its answer."); }

// ---- Positions ------------------------------------------------------------------------------------------------------

// Which events of a stream a client has.
struct StreamPosition {
  std::vector<std::uint64_t> events;  // by choice
  bool usage = false;

  std::string Text() const {
    std::string text;
    for (const std::uint64_t count : events) text += (text.empty() ? "" : "-") + std::to_string(count);
    return usage ? text + "-" + std::string(kAfterUsage) : text;
  }
};

// Nothing when the text is no position in a stream of so many choices.
std::optional<StreamPosition> ParsePosition(std::string_view text, std::size_t choices) {
  StreamPosition position;
  if (text.empty()) {
    position.events.assign(choices, 0);
    return position;
  }
  for (bool more = true; more;) {
    const std::size_t dash = text.find('-');
    const std::string_view part = text.substr(0, dash);
    more = dash != std::string_view::npos;
    text = more ? text.substr(dash + 1) : std::string_view();
    if (part == kAfterUsage && !more) {
      position.usage = true;
      break;
    }
    std::uint64_t& count = position.events.emplace_back();
    const auto [end, status] = std::from_chars(part.data(), part.data() + part.size(), count);
    if (status != std::errc() || end != part.data() + part.size()) return std::nullopt;
  }
  if (position.events.size() != choices) return std::nullopt;
  return position;
}

// ---- Showing an answer of this node ---------------------------------------------------------------------------------

// Plays a log to a view, each choice's text on its own.
class Player {
 public:
  explicit Player(const AnswerPlan& plan) {
    for (std::size_t i = 0; i < plan.choices(); ++i) texts_.push_back(plan.TextOf(i));
    for (const RunPrompt& prompt : plan.prompts)
      usage_.prompt_tokens += static_cast<std::int64_t>(prompt.tokens.size());
    reused_.resize(plan.choices());
    per_prompt_ = plan.choices_per_prompt;
  }

  // What the entry adds to its choice; nothing when that is over already, or for one that shows nothing.
  std::optional<ChoiceStep> Add(const AnswerEntry& entry) {
    if (entry.kind == AnswerEntry::Kind::kReused) reused_[entry.choice] = entry.reused_tokens;
    if (entry.kind == AnswerEntry::Kind::kToken) ++usage_.completion_tokens;
    if (entry.kind == AnswerEntry::Kind::kReused || texts_[entry.choice].done()) return std::nullopt;
    return texts_[entry.choice].Add(entry);
  }

  RunUsage usage() const {
    RunUsage usage = usage_;
    // The choices of one prompt count its tokens once, so its first choice speaks for them.
    for (std::size_t i = 0; i < reused_.size(); i += per_prompt_) usage.cached_tokens += reused_[i];
    return usage;
  }

 private:
  std::vector<ChoiceText> texts_;
  std::vector<std::int32_t> reused_;
  std::size_t per_prompt_ = 1;
  RunUsage usage_;
};

struct Show {
  std::shared_ptr<Answer> answer;
  std::shared_ptr<const AnswerPlan> plan;
  Answer::Listening listening;
  AnswerHead head;
  StreamPosition has;  // what the client has already

  Show(std::shared_ptr<Answer> of, std::shared_ptr<const AnswerPlan> by)
      : answer(std::move(of)), plan(std::move(by)), listening(answer), head(plan->head) {}
};

// It may have stopped because nobody listened, in the moment in which somebody came.
Answer::News ReadOn(const Show& show, std::size_t from) {
  Answer::News news = show.answer->Read(from, kReadWait);
  if (news.stopped && news.stopped->code == ErrorCode::kCancelled && !show.answer->Start(show.plan)) {
    news.stopped.reset();
  }
  return news;
}

Reply ShowWhole(ApiContext& context, Show& show, const ClientLink& link) {
  Player player(*show.plan);
  const std::unique_ptr<WholeView> view = show.plan->Whole();
  for (std::size_t next = 0;;) {
    if (link.gone()) {
      context.answers.metrics().disconnects.Add();
      return ErrorReply(Abandoned());
    }
    const Answer::News news = ReadOn(show, next);
    next += news.entries.size();
    for (const AnswerEntry& entry : news.entries) {
      if (auto step = player.Add(entry)) view->Add(entry.choice, *step);
    }
    if (news.stopped) return ErrorReply(FromError(*news.stopped));
    if (!news.ended) continue;
    Reply reply;
    reply.body = view->Body(player.usage());
    return reply;
  }
}

// Writes what the client has not, with the id that each event has for it.
class EventWriter {
 public:
  EventWriter(EventSink& sink, StreamPosition has) : sink_(sink), has_(std::move(has)) {
    at_.events.assign(has_.events.size(), 0);
  }

  bool Write(std::size_t choice, std::string event) {
    return ++at_.events[choice] <= has_.events[choice] || WriteAt(std::move(event));
  }
  bool WriteUsage(std::string event) {
    at_.usage = true;
    return has_.usage || WriteAt(std::move(event));
  }

 private:
  bool WriteAt(std::string event) {
    event.insert(event.size() - 1, "id: " + at_.Text() + "\n");
    return sink_.Write(event);
  }

  EventSink& sink_;
  const StreamPosition has_;
  StreamPosition at_;
};

// False once the client is gone.
bool WriteEntries(const Answer::News& news, Player& player, StreamView& view, EventWriter& out) {
  for (const AnswerEntry& entry : news.entries) {
    auto step = player.Add(entry);
    if (!step) continue;
    for (std::string& event : view.Add(entry.choice, *step)) {
      if (!out.Write(entry.choice, std::move(event))) return false;
    }
  }
  return true;
}

void ShowStream(ApiContext& context, Show& show, const ClientLink& link, EventSink& sink) {
  Player player(*show.plan);
  const std::unique_ptr<StreamView> view = show.plan->Stream(show.head);
  EventWriter out(sink, show.has);
  const auto gone = [&] { context.answers.metrics().disconnects.Add(); };
  for (std::size_t i = 0; i < show.plan->choices(); ++i) {
    std::string event = view->Begin(i);
    if (!event.empty() && !out.Write(i, std::move(event))) return gone();
  }
  auto last_progress = steady_clock::now();
  for (std::size_t next = 0;;) {
    if (link.gone()) return gone();
    const Answer::News news = ReadOn(show, next);
    next += news.entries.size();
    if (!WriteEntries(news, player, *view, out)) return gone();
    if (news.stopped) return static_cast<void>(sink.Write(ErrorEvent(FromError(*news.stopped))));
    if (news.ended) break;
    const auto now = steady_clock::now();
    if (!news.entries.empty()) last_progress = now;
    if (now - last_progress < context.keep_alive_interval) continue;
    last_progress = now;
    if (!sink.Write(kKeepAliveEvent)) return gone();
  }
  if (show.head.usage_in_chunks && !out.WriteUsage(UsageEvent(show.head, show.plan->chat, player.usage())))
    return gone();
  sink.Write(kDoneEvent);
}

// An early failure is a status; so a stream waits for its first token, or for its first moments to pass.
Reply BeginStream(ApiContext& context, const std::shared_ptr<Show>& show, const ClientLink& link) {
  const auto deadline = steady_clock::now() + kFirstStepWait;
  while (steady_clock::now() < deadline) {
    if (link.gone()) {
      context.answers.metrics().disconnects.Add();
      return ErrorReply(Abandoned());
    }
    const Answer::News news = ReadOn(*show, 0);
    if (news.stopped && news.entries.empty()) return ErrorReply(FromError(*news.stopped));
    if (!news.entries.empty() || news.ended || news.stopped) break;
  }
  Reply reply;
  reply.stream = [&context, show, link](EventSink& sink) { ShowStream(context, *show, link, sink); };
  return reply;
}

// Waits for the node's own word on a claim. False: it is answered elsewhere (or the client is gone).
bool IsSettled(const Answer& answer, const ClientLink& link) {
  for (;;) {
    const Answer::Claim claim = answer.WaitForClaim(kReadWait);
    if (claim != Answer::Claim::kOpen) return claim == Answer::Claim::kSettled;
    if (link.gone()) return false;
  }
}

// Of a settled answer. `plan` null: it is made here.
Reply ShowHere(ApiContext& context, const std::shared_ptr<Answer>& answer, std::shared_ptr<const AnswerPlan> plan,
               const AnswerAttach& attach, const ClientLink& link) {
  if (plan == nullptr) {
    PlannedAnswer planned = PlanAnswer(context.service, answer->record());
    if (const auto* error = std::get_if<ApiError>(&planned)) return ErrorReply(*error);
    plan = std::get<0>(std::move(planned));
  }
  const auto show = std::make_shared<Show>(answer, std::move(plan));
  const auto position = ParsePosition(attach.position, show->plan->choices());
  if (!position) return ErrorReply(InvalidRequest("'Last-Event-ID' is not an event of this stream.", "Last-Event-ID"));
  show->has = *position;
  using Mode = AnswerAttach::Mode;
  if (attach.mode == Mode::kStream || attach.mode == Mode::kStreamUsage) {
    show->head.usage_in_chunks = attach.mode == Mode::kStreamUsage;
  }
  if (auto error = answer->Start(show->plan)) return ErrorReply(*error);
  return attach.mode == Mode::kWhole ? ShowWhole(context, *show, link) : BeginStream(context, show, link);
}

// ---- Passing on another node's --------------------------------------------------------------------------------------

struct Located {
  std::shared_ptr<Answer> here;
  std::unique_ptr<RemoteAnswer> there;
  bool found() const { return here != nullptr || there != nullptr; }
};

// The one that runs or ran, here or elsewhere; else a copy.
Located Locate(ApiContext& context, const AnswerAsk& ask, const ClientLink& link) {
  std::shared_ptr<Answer> here = context.answers.Find(ask);
  if (here != nullptr && !IsSettled(*here, link)) here = nullptr;
  if (here != nullptr && !here->is_copy()) return {std::move(here), nullptr};
  std::unique_ptr<RemoteAnswer> there = context.peers == nullptr ? nullptr : context.peers->Find(ask);
  if (there != nullptr && (here == nullptr || there->found().place == AnswerPlace::kHere)) {
    return {nullptr, std::move(there)};
  }
  return {std::move(here), nullptr};
}

struct Passing {
  AnswerAsk ask;
  AnswerAttach attach;
  std::unique_ptr<RemoteAnswer> from;
};

Reply PassOn(ApiContext& context, const std::shared_ptr<Passing>& passing, const ClientLink& link);

// After a loss, or where a claim gave way: from wherever it is now. Errors: 503 after a while.
Reply FindAgain(ApiContext& context, const std::shared_ptr<Passing>& passing, const ClientLink& link) {
  const auto deadline = steady_clock::now() + kFindMax;
  while (steady_clock::now() < deadline && !link.gone()) {
    Located located = Locate(context, passing->ask, link);
    if (located.here != nullptr) return ShowHere(context, located.here, nullptr, passing->attach, link);
    if (located.there != nullptr) {
      passing->from = std::move(located.there);
      return PassOn(context, passing, link);
    }
    std::this_thread::sleep_for(kFindAgain);
  }
  if (link.gone()) return ErrorReply(Abandoned());
  return ErrorReply(FromStatus(503, "The node that made this answer was lost, and nobody has a copy."));
}

// Takes whole events off the front of `text`, and the id of the last.
std::string TakeEvents(std::string& text, std::string& position) {
  const std::size_t end = text.rfind("\n\n");
  if (end == std::string::npos) return text == kKeepAliveEvent ? std::exchange(text, "") : "";
  std::string events = text.substr(0, end + 2);
  text.erase(0, end + 2);
  constexpr std::string_view kId = "\nid: ";
  if (const std::size_t id = events.rfind(kId); id != std::string::npos) {
    const std::size_t begin = id + kId.size();
    position = events.substr(begin, events.find('\n', begin) - begin);
  }
  return events;
}

void PassStream(ApiContext& context, const std::shared_ptr<Passing>& passing, const ClientLink& link, EventSink& sink) {
  std::string text, piece;
  for (;;) {
    if (link.gone()) return;
    const RemoteAnswer::Pull pull = passing->from->Next(kReadWait, piece);
    if (pull == RemoteAnswer::Pull::kEnd) return;
    if (pull == RemoteAnswer::Pull::kNothing || pull == RemoteAnswer::Pull::kHead) continue;
    if (pull == RemoteAnswer::Pull::kPiece) {
      text += piece;
      const std::string events = TakeEvents(text, passing->attach.position);
      if (!events.empty() && !sink.Write(events)) return;
      continue;
    }
    const Reply again = FindAgain(context, passing, link);
    if (again.stream) return again.stream(sink);
    sink.Write("data: " + again.body + "\n\n");
    return;
  }
}

Reply PassOn(ApiContext& context, const std::shared_ptr<Passing>& passing, const ClientLink& link) {
  if (!passing->from->Attach(passing->attach).ok()) return FindAgain(context, passing, link);
  Reply reply;
  std::string piece;
  for (bool begun = false;;) {
    if (link.gone()) return ErrorReply(Abandoned());
    switch (passing->from->Next(kReadWait, piece)) {
      case RemoteAnswer::Pull::kNothing: break;
      case RemoteAnswer::Pull::kPiece: reply.body += piece; break;
      case RemoteAnswer::Pull::kHead:
        begun = true;
        reply.status = passing->from->head().status;
        reply.retry_after_s = passing->from->head().retry_after_s;
        if (!passing->from->head().streamed) break;
        reply.stream = [&context, passing, link](EventSink& sink) { PassStream(context, passing, link, sink); };
        return reply;
      case RemoteAnswer::Pull::kEnd:
        if (begun) return reply;
        [[fallthrough]];
      case RemoteAnswer::Pull::kLost: return FindAgain(context, passing, link);
    }
  }
}

// ---- Keys -----------------------------------------------------------------------------------------------------------

ByteSpan BytesOf(std::string_view text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }

// Whether two bodies ask for the same: all of it but how the answer is sent.
AnswerKey DigestOf(std::string_view body) {
  Json json;
  if (ParseJson(body, json) || !json.is_object()) return {};
  json.erase("stream");
  json.erase("stream_options");
  // The other kind of object sorts its keys: their order says nothing.
  const std::string text = nlohmann::json::parse(json.dump()).dump();
  return HmacSha256(BytesOf("shoal-request"), BytesOf(text)).bytes;
}

AnswerKey KeyOf(const ClientAsk& ask) {
  if (ask.idempotency_key.empty()) return {};
  const std::string scope = "shoal-idempotency-key " + ask.api_key;
  const std::string key = std::to_string(static_cast<int>(ask.dialect)) + ask.idempotency_key;
  return HmacSha256(BytesOf(scope), BytesOf(key)).bytes;
}

ApiError KeyReused() {
  return {422,
          "This Idempotency-Key was used for another request. Send the same body again, or take another key.",
          "invalid_request_error",
          "Idempotency-Key",
          "idempotency_key_reused",
          0};
}

AnswerAttach AttachOf(const AnswerPlan& plan, const ClientAsk& ask) {
  using Mode = AnswerAttach::Mode;
  const Mode streamed = plan.head.usage_in_chunks ? Mode::kStreamUsage : Mode::kStream;
  return {plan.streamed ? streamed : Mode::kWhole, ask.last_event_id};
}

}  // namespace

Reply AnswerPost(ApiContext& context, const ClientAsk& ask, std::string_view body, const ClientLink& link) {
  if (ask.idempotency_key.size() > kIdempotencyKeyBytesMax) {
    return ErrorReply(InvalidRequest(
        "'Idempotency-Key' is longer than " + std::to_string(kIdempotencyKeyBytesMax) + " bytes.", "Idempotency-Key"));
  }
  AnswerRecord record;
  record.dialect = ask.dialect;
  record.keep = ask.keep || !ask.idempotency_key.empty();
  record.id = MakeId(ask.dialect == Dialect::kChat ? "chatcmpl-" : "cmpl-");
  record.created_s = std::time(nullptr);
  record.seed = RandomSeed();
  record.key = KeyOf(ask);
  record.body = std::string(body);
  if (record.key != AnswerKey{}) record.digest = DigestOf(body);
  PlannedAnswer planned = PlanAnswer(context.service, record);
  if (const auto* error = std::get_if<ApiError>(&planned)) return ErrorReply(*error);
  std::shared_ptr<const AnswerPlan> plan = std::get<0>(std::move(planned));
  record.model = plan->head.model;
  const AnswerAttach attach = AttachOf(*plan, ask);
  const AnswerAsk by_key{"", record.key};
  const AnswerKey digest = record.digest;

  const Answers::Claimed claimed = context.answers.Claim(std::move(record));
  const std::shared_ptr<Answer>& answer = claimed.answer;
  if (!claimed.is_new && answer->record().digest != digest) return ErrorReply(KeyReused());
  const bool elsewhere = by_key.key != AnswerKey{} && (claimed.is_new || answer->is_copy());
  if (elsewhere && context.peers != nullptr) {
    std::unique_ptr<RemoteAnswer> there = context.peers->Find(by_key);
    if (there != nullptr && (claimed.is_new || there->found().place == AnswerPlace::kHere)) {
      if (claimed.is_new) context.answers.Drop(answer);
      if (there->found().digest != digest) return ErrorReply(KeyReused());
      return PassOn(context, std::make_shared<Passing>(Passing{by_key, attach, std::move(there)}), link);
    }
  }
  if (claimed.is_new) {
    answer->Settle();
  } else {
    plan = nullptr;  // it has another id and time
    if (!IsSettled(*answer, link)) {
      return FindAgain(context, std::make_shared<Passing>(Passing{by_key, attach, nullptr}), link);
    }
  }
  if (ask.keep) answer->Keep();
  Reply reply = ShowHere(context, answer, std::move(plan), attach, link);
  // What never began is not what a client would come back to.
  const Answer::News news = answer->Read(0, milliseconds(0));
  if (claimed.is_new && reply.status >= 400 && news.entries.empty()) context.answers.Drop(answer);
  return reply;
}

Reply AnswerResume(ApiContext& context, const std::string& id, const std::string& last_event_id,
                   const ClientLink& link) {
  const AnswerAsk ask{id.substr(0, kAnswerIdBytesMax), {}};
  const AnswerAttach attach{AnswerAttach::Mode::kAsFirstAsked, last_event_id.substr(0, kAnswerPositionBytesMax)};
  Located located = id.empty() ? Located{} : Locate(context, ask, link);
  if (!located.found()) {
    return ErrorReply(FromStatus(404, "There is no answer with this id, or it ended too long ago."));
  }
  if (located.here != nullptr) return ShowHere(context, located.here, nullptr, attach, link);
  return PassOn(context, std::make_shared<Passing>(Passing{ask, attach, std::move(located.there)}), link);
}

std::optional<Reply> AnswerFor(ApiContext& context, const std::shared_ptr<Answer>& answer, const AnswerAttach& attach,
                               const ClientLink& link) {
  if (!IsSettled(*answer, link)) return std::nullopt;
  return ShowHere(context, answer, nullptr, attach, link);
}

}  // namespace shoal
