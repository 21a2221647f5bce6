// Copies are pushed and never answered; an answer that is looked for is asked for, found, and then read like a file.
#include "node/answer_streams.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/thread_name.h"
#include "runtime/bounded_queue.h"
#include "runtime/rng.h"
#include "runtime/start_thread.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kBatch{3};            // tokens that come within it travel together
constexpr milliseconds kKeeperAgain{1'000};  // after one could not be reached
constexpr std::uint32_t kOpenMs = 1'000;
// For a claim that is weaker than this node's to be decided, at a member that answers: more than any takes to decide.
constexpr milliseconds kClaimAgain{20}, kClaimMax{20'000};
constexpr milliseconds kAskMax{10'000};  // from a stream opening to its Attach
constexpr int kKeepStreamsMax = 256;
constexpr std::size_t kCopiesOfStreamMax = 1024;  // whose entries are taken; older ones are over
constexpr std::size_t kCopyBytesMax = 8U << 20;
constexpr std::size_t kPiecesMax = 64;  // then the stream's own back-pressure holds the other node

Result<AnswerMessage> Decode(const std::optional<FrameBytes>& frame) {
  if (!frame) return Error{ErrorCode::kUnavailable, "the other node was lost"};
  return DecodeAnswerMessage(*frame);
}

class StreamedAnswer final : public RemoteAnswer {
 public:
  StreamedAnswer(StreamLink link, const AnswerFound& found)
      : link_(std::move(link)), found_(found), messages_(kPiecesMax) {}
  ~StreamedAnswer() override {
    messages_.Close();
    link_.sender->Close();
    link_.receiver->Close();
    if (reader_.joinable()) reader_.join();
  }
  StreamedAnswer(const StreamedAnswer&) = delete;
  StreamedAnswer& operator=(const StreamedAnswer&) = delete;

  const AnswerFound& found() const override { return found_; }
  const AnswerHeadMessage& head() const override { return head_; }

  Status Attach(const AnswerAttach& attach) override {
    SHOAL_RETURN_IF_ERROR(link_.sender->Send(EncodeAnswerMessage(attach)));
    SHOAL_ASSIGN_OR_RETURN(reader_, StartThread("shoal-answer", [this] { Read(); }));
    return {};
  }

  Pull Next(milliseconds timeout, std::string& piece) override {
    std::optional<Came> came = messages_.PopFor(timeout);
    if (!came) return Pull::kNothing;
    if (came->pull == Pull::kHead) head_ = came->head;
    piece = std::move(came->piece);
    return came->pull;
  }

 private:
  struct Came {
    Pull pull = Pull::kLost;
    AnswerHeadMessage head;
    std::string piece;
  };

  void Read() {
    while (std::optional<FrameBytes> frame = link_.receiver->Receive()) {
      Result<AnswerMessage> message = DecodeAnswerMessage(*frame);
      if (!message.ok()) break;
      if (const auto* head = std::get_if<AnswerHeadMessage>(&*message)) {
        messages_.Push({Pull::kHead, *head, ""});
      } else if (auto* piece = std::get_if<AnswerPiece>(&*message)) {
        messages_.Push({Pull::kPiece, {}, std::move(piece->bytes)});
      } else {
        break;
      }
    }
    messages_.Push({EndedCleanly(*link_.receiver) ? Pull::kEnd : Pull::kLost, {}, ""});
  }

  StreamLink link_;
  const AnswerFound found_;
  AnswerHeadMessage head_;
  BoundedQueue<Came> messages_;
  std::thread reader_;
};

// What two nodes have of one answer, the better first.
int Rank(AnswerPlace place) { return static_cast<int>(place); }

bool SendBytes(FrameSender& sender, std::string_view bytes) {
  for (; !bytes.empty(); bytes = bytes.substr(std::min<std::size_t>(bytes.size(), kAnswerPieceBytesMax))) {
    if (!sender.Send(EncodeAnswerMessage(AnswerPiece{std::string(bytes.substr(0, kAnswerPieceBytesMax))})).ok()) {
      return false;
    }
  }
  return true;
}

class StreamSink final : public EventSink {
 public:
  explicit StreamSink(FrameSender& sender) : sender_(sender) {}
  bool Write(std::string_view bytes) override { return SendBytes(sender_, bytes); }

 private:
  FrameSender& sender_;
};

AnswerFound FoundHere(const std::shared_ptr<Answer>& answer) {
  if (answer == nullptr) return {};
  AnswerFound found{AnswerPlace::kHere, answer->record().digest};
  if (answer->is_copy()) {
    found.place = AnswerPlace::kCopy;
  } else if (answer->is_claim()) {
    found.place = AnswerPlace::kClaimed;
  }
  return found;
}

AnswerHeadMessage HeadOf(const Reply& reply) {
  AnswerHeadMessage head;
  head.status = static_cast<std::uint16_t>(reply.status);
  head.retry_after_s = static_cast<std::uint16_t>(reply.retry_after_s);
  head.streamed = static_cast<bool>(reply.stream);
  return head;
}

}  // namespace

AnswerStreams::AnswerStreams(Service& service, Answers& answers, AnswerStreamsOptions options)
    : context_{service, answers}, answers_(answers), options_(std::move(options)) {
  answers_.Watch([this] {
    {
      const std::lock_guard lock(mutex_);
      changed_ = true;
    }
    wake_.notify_one();
  });
  copier_ = std::thread([this] {
    NameThisThread("shoal-copies");
    Copy();
  });
}

AnswerStreams::~AnswerStreams() { Stop(); }

void AnswerStreams::Stop() {
  answers_.Watch(nullptr);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (keeper_) keeper_->link.sender->Close();
  }
  wake_.notify_all();
  if (copier_.joinable()) copier_.join();
}

void AnswerStreams::SetMembers(std::vector<AnswerMember> members) {
  {
    const std::lock_guard lock(mutex_);
    members_ = std::move(members);
    refused_.clear();
    const bool still = keeper_ && std::any_of(members_.begin(), members_.end(),
                                              [&](const AnswerMember& member) { return member.id == keeper_->id; });
    if (keeper_ && !still) keeper_->link.sender->Close();  // wakes a copier that waits for one that is gone
  }
  wake_.notify_one();
}

// ---- Copies of what is answered here --------------------------------------------------------------------------------

void AnswerStreams::Copy() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || changed_; });
      wake_.wait_for(lock, kBatch, [&] { return stopping_; });
      if (stopping_) return;
      changed_ = false;
    }
    std::vector<std::shared_ptr<Answer>> grown = answers_.TakeChanged();
    std::shared_ptr<Keeper> keeper;
    {
      const std::lock_guard lock(mutex_);
      keeper = keeper_;
    }
    bool sent = keeper != nullptr;
    for (std::size_t i = 0; sent && i < grown.size(); ++i) sent = SendGrown(*keeper, grown[i]);
    if (sent) continue;
    keeper = OpenKeeper();
    std::unique_lock lock(mutex_);
    keeper_ = keeper;
    // To a new keeper all that runs is new. Without one it is tried again while anything grows.
    changed_ = changed_ || keeper != nullptr;
    lock.unlock();
    if (keeper == nullptr) continue;
    for (const std::shared_ptr<Answer>& answer : answers_.InUse()) {
      if (!SendGrown(*keeper, answer)) break;
    }
  }
}

std::optional<NodeId> AnswerStreams::ChooseKeeper() {
  const std::lock_guard lock(mutex_);
  const AnswerMember* best = nullptr;
  // Each node its own order of the others, so that not all choose the same one.
  const auto order = [&](const NodeId& id) {
    std::uint64_t mixed = 0;
    for (std::size_t i = 0; i < 8; ++i) mixed = mixed << 8 | (id.bytes[i] ^ options_.self.bytes[i]);
    return CounterRandom(mixed, 0);
  };
  for (const AnswerMember& member : members_) {
    if (!member.alive || refused_.contains(member.id)) continue;
    const bool better = best == nullptr || member.models > best->models ||
                        (member.models == best->models && order(member.id) > order(best->id));
    if (better) best = &member;
  }
  return best == nullptr ? std::nullopt : std::optional<NodeId>(best->id);
}

std::shared_ptr<AnswerStreams::Keeper> AnswerStreams::OpenKeeper() {
  while (const std::optional<NodeId> chosen = ChooseKeeper()) {
    const Result<int> fd = options_.open(*chosen, kKeepProtocol, kOpenMs);
    const std::lock_guard lock(mutex_);
    if (fd.ok() && !stopping_) {
      auto keeper = std::make_shared<Keeper>();
      keeper->id = *chosen;
      keeper->link = MakeStreamLink(*fd, kAnswerFrameBytesMax);
      return keeper;
    }
    if (fd.ok()) ::close(*fd);
    if (stopping_) return nullptr;
    refused_.insert(*chosen);
  }
  // Nobody: those that could not be reached may be there in a while.
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, kKeeperAgain, [&] { return stopping_; });
  refused_.clear();
  return nullptr;
}

// False: the keeper is lost.
bool AnswerStreams::SendGrown(Keeper& keeper, const std::shared_ptr<Answer>& answer) {
  const AnswerRecord& record = answer->record();
  if (answer->is_copy() || record.body.size() > kAnswerBodyBytesMax) return true;
  const auto [at, is_new] = keeper.sent.try_emplace(record.id);
  Sent& sent = at->second;
  if (is_new) {
    sent = {++keeper.last_number, 0, answer};
    if (!keeper.link.sender->Send(EncodeAnswerMessage(AnswerCopy{sent.number, record})).ok()) return false;
  }
  const Answer::News news = answer->Read(sent.entries, milliseconds(0));
  for (std::size_t i = 0; i < news.entries.size(); i += kAnswerEntriesMax) {
    const auto begin = news.entries.begin() + static_cast<std::ptrdiff_t>(i);
    const auto count = std::min<std::size_t>(news.entries.size() - i, kAnswerEntriesMax);
    AnswerEntries entries{
        sent.number, static_cast<std::uint32_t>(sent.entries), {begin, begin + static_cast<std::ptrdiff_t>(count)}};
    sent.entries += count;
    if (!keeper.link.sender->Send(EncodeAnswerMessage(entries)).ok()) return false;
  }
  if (news.ended) keeper.sent.erase(at);
  if (is_new) std::erase_if(keeper.sent, [](const auto& one) { return one.second.answer.expired(); });
  return true;
}

// ---- Copies of others ----------------------------------------------------------------------------------------------

void AnswerStreams::ServeKeep(const NodeId& peer, int fd) {
  StreamLink link = MakeStreamLink(fd, kAnswerFrameBytesMax);
  if (++keep_streams_ > kKeepStreamsMax) {
    --keep_streams_;
    return;
  }
  std::map<std::uint32_t, std::weak_ptr<Answer>> copies;  // how long they are kept is Answers' to say
  Status status;
  while (status.ok()) {
    const std::optional<FrameBytes> frame = link.receiver->Receive();
    if (!frame) break;
    Result<AnswerMessage> message = DecodeAnswerMessage(*frame);
    if (!message.ok()) {
      status = message.error();
    } else if (auto* copy = std::get_if<AnswerCopy>(&*message)) {
      copies[copy->number] = answers_.AddCopy(std::move(copy->record));
      if (copies.size() > kCopiesOfStreamMax) copies.erase(copies.begin());
    } else if (const auto* entries = std::get_if<AnswerEntries>(&*message)) {
      const auto found = copies.find(entries->number);
      const std::shared_ptr<Answer> copy_of = found != copies.end() ? found->second.lock() : nullptr;
      if (copy_of == nullptr) continue;
      const bool whole = copy_of->Receive(entries->first, entries->entries);
      if (!whole) status = Error{ErrorCode::kCorrupt, "a copy of an answer has a gap"};
      if (copy_of->bytes() > kCopyBytesMax) copies.erase(found);
    } else {
      status = Error{ErrorCode::kCorrupt, "a message that has no place among copies"};
    }
  }
  --keep_streams_;
  if (!status.ok()) Log(LogLevel::kWarning, "answers", "node " + ShortHex(peer) + ": " + status.error().message);
}

// ---- Looking for one ------------------------------------------------------------------------------------------------

std::unique_ptr<RemoteAnswer> AnswerStreams::AskOne(const NodeId& member, const AnswerAsk& ask,
                                                    const std::function<void()>& on_claim) const {
  const auto deadline = steady_clock::now() + kClaimMax;
  for (bool waits = false;; waits = true) {
    const Result<int> fd = options_.open(member, kAnswerProtocol, kOpenMs);
    if (!fd.ok()) return nullptr;
    StreamLink link = MakeStreamLink(*fd, kAnswerFrameBytesMax);
    LimitFirstFrames(*link.receiver, 1, options_.silent_max);
    if (!link.sender->Send(EncodeAnswerMessage(ask)).ok()) return nullptr;
    const Result<AnswerMessage> answer = Decode(link.receiver->Receive());
    const auto* found = answer.ok() ? std::get_if<AnswerFound>(&*answer) : nullptr;
    if (found == nullptr || found->place == AnswerPlace::kNowhere) return nullptr;
    const bool weaker = found->place == AnswerPlace::kClaimed && options_.self < member;
    if (!weaker) return std::make_unique<StreamedAnswer>(std::move(link), *found);
    // It gives way when it sees this node's claim; but it may have asked before that was made, and start.
    if (steady_clock::now() >= deadline) return nullptr;
    if (!waits) on_claim();
    std::this_thread::sleep_for(kClaimAgain);
  }
}

std::unique_ptr<RemoteAnswer> AnswerStreams::Find(const AnswerAsk& ask) {
  struct Asked {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t pending = 0, claims = 0;  // members that have not said all; those of them that have a weaker claim
    bool over = false;
    std::unique_ptr<RemoteAnswer> best;
  };
  std::vector<NodeId> members;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return nullptr;
    for (const AnswerMember& member : members_) members.push_back(member.id);
  }
  const auto asked = std::make_shared<Asked>();
  asked->pending = members.size();
  const auto heard = [asked](std::unique_ptr<RemoteAnswer> found, bool claimed) {
    const std::lock_guard lock(asked->mutex);
    --asked->pending;
    if (claimed) --asked->claims;
    const bool better = found != nullptr && !asked->over &&
                        (asked->best == nullptr || Rank(found->found().place) > Rank(asked->best->found().place));
    if (better) asked->best = std::move(found);
    asked->changed.notify_all();
  };
  for (const NodeId& member : members) {
    const bool runs = answers_.threads().Run([this, member, ask, heard, asked] {
      bool claimed = false;
      std::unique_ptr<RemoteAnswer> found = AskOne(member, ask, [&] {
        const std::lock_guard lock(asked->mutex);
        ++asked->claims;
        claimed = true;
      });
      heard(std::move(found), claimed);
    });
    if (!runs) heard(nullptr, false);
  }
  std::unique_lock lock(asked->mutex);
  // Where somebody answers it, or decides before this node does, what others have no longer matters.
  const auto known = [&] {
    return asked->pending == 0 || (asked->best && asked->best->found().place != AnswerPlace::kCopy);
  };
  asked->changed.wait_for(lock, 2 * options_.silent_max, known);  // to open a stream, and for the first word
  asked->changed.wait_for(lock, kClaimMax, [&] { return asked->claims == 0 || known(); });
  asked->over = true;
  return std::move(asked->best);
}

void AnswerStreams::ServeAnswer(int fd) {
  StreamLink link = MakeStreamLink(fd, kAnswerFrameBytesMax);
  LimitFirstFrames(*link.receiver, 2, kAskMax);
  const Result<AnswerMessage> first = Decode(link.receiver->Receive());
  const auto* ask = first.ok() ? std::get_if<AnswerAsk>(&*first) : nullptr;
  if (ask == nullptr) return;
  const std::shared_ptr<Answer> answer = answers_.Find(*ask);
  if (!link.sender->Send(EncodeAnswerMessage(FoundHere(answer))).ok() || answer == nullptr) return;
  const Result<AnswerMessage> second = Decode(link.receiver->Receive());
  const auto* attach = second.ok() ? std::get_if<AnswerAttach>(&*second) : nullptr;
  if (attach == nullptr) return;

  std::atomic<bool> gone{false};
  Result<std::thread> reader = StartThread("shoal-answer", [&] {
    while (link.receiver->Receive()) {}  // nothing more is said: what matters is the end
    gone = true;
  });
  if (!reader.ok()) return Log(LogLevel::kWarning, "answers", "one is not shown: " + reader.error().message);
  std::optional<Reply> reply = AnswerFor(context_, answer, *attach, ClientLink{[&] { return gone.load(); }});
  if (reply && link.sender->Send(EncodeAnswerMessage(HeadOf(*reply))).ok()) {
    StreamSink sink(*link.sender);
    if (reply->stream) {
      reply->stream(sink);
    } else {
      sink.Write(reply->body);
    }
  }
  reply.reset();
  link.sender->Close();
  link.receiver->Close();
  reader->join();
}

}  // namespace shoal
