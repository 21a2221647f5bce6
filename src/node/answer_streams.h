// Answers outside their node, over streams: copies of this node's at another one, and the way to clients of others.
//
// Everything that this node answers is copied to one other member, its keeper, as it grows: one stream, one thread,
// which reads the answers' logs and never delays them. A keeper that is lost is replaced and told what runs from the
// beginning. Whoever looks for an answer asks all members. Knows streams and members, not which network carries them;
// wire/answer_messages.h says what is exchanged. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "api/answer_peers.h"
#include "api/answering.h"
#include "api/answers.h"
#include "base/ids.h"
#include "transport/stream_link.h"

namespace shoal {

inline constexpr char kKeepProtocol[] = "/shoal/keep/1";
inline constexpr char kAnswerProtocol[] = "/shoal/answer/1";

// Another member that is here.
struct AnswerMember {
  NodeId id;
  bool alive = true;       // else suspect: not taken as a keeper, but one that is stays
  std::size_t models = 0;  // of those that are placed, how many it could go on with
};

struct AnswerStreamsOptions {
  NodeId self;
  // A connected stream to a member. Errors: kUnavailable.
  std::function<Result<int>(const NodeId&, const std::string& protocol, std::uint32_t timeout_ms)> open;
  // A member that is asked and says nothing for so long has nothing.
  std::chrono::milliseconds silent_max{1'000};
};

class AnswerStreams final : public AnswerPeers {
 public:
  // `service` and `answers` outlive it.
  AnswerStreams(Service& service, Answers& answers, AnswerStreamsOptions options);
  ~AnswerStreams() override;  // Stop()
  AnswerStreams(const AnswerStreams&) = delete;
  AnswerStreams& operator=(const AnswerStreams&) = delete;

  void SetMembers(std::vector<AnswerMember> members);
  std::unique_ptr<RemoteAnswer> Find(const AnswerAsk& ask) override;

  // Streams that `peer` opened, to their end. Each blocks: a thread of its own.
  void ServeKeep(const NodeId& peer, int fd);
  void ServeAnswer(int fd);

  // The copying ends; so does what is served, once the network closes its streams. Idempotent.
  void Stop();

 private:
  struct Sent {
    std::uint32_t number = 0;
    std::size_t entries = 0;
    std::weak_ptr<Answer> answer;
  };
  struct Keeper {
    NodeId id;
    StreamLink link;
    std::map<std::string, Sent> sent;  // by id of the answer
    std::uint32_t last_number = 0;
  };
  void Copy();  // the thread
  std::shared_ptr<Keeper> OpenKeeper();
  std::optional<NodeId> ChooseKeeper();
  bool SendGrown(Keeper& keeper, const std::shared_ptr<Answer>& answer);
  // `on_claim`: the member has a weaker claim, and is asked again until that is decided. Once.
  std::unique_ptr<RemoteAnswer> AskOne(const NodeId& member, const AnswerAsk& ask,
                                       const std::function<void()>& on_claim) const;

  ApiContext context_;  // for other nodes' clients
  Answers& answers_;
  const AnswerStreamsOptions options_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<AnswerMember> members_;
  std::shared_ptr<Keeper> keeper_;
  std::set<NodeId> refused_;  // could not be reached since the members last changed
  bool changed_ = false, stopping_ = false;
  std::atomic<int> keep_streams_{0};
  std::thread copier_;
};

}  // namespace shoal
