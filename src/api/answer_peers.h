// Answers that other nodes have: how the API finds one and passes it on. node/ implements it over streams; tests over
// a second store.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "wire/answer_messages.h"

namespace shoal {

// An answer at another node. One thread.
class RemoteAnswer {
 public:
  virtual ~RemoteAnswer() = default;
  virtual const AnswerFound& found() const = 0;

  // Asks for it. Once. Errors: kUnavailable (the node was lost).
  virtual Status Attach(const AnswerAttach& attach) = 0;

  enum class Pull { kHead, kPiece, kNothing, kEnd, kLost };
  // What Attach began: its head, then pieces. kNothing when nothing came within `timeout`.
  virtual Pull Next(std::chrono::milliseconds timeout, std::string& piece) = 0;
  virtual const AnswerHeadMessage& head() const = 0;  // after kHead
};

class AnswerPeers {
 public:
  virtual ~AnswerPeers() = default;
  // Asks all other nodes at once, and gives the best of what they have: kHere before kClaimed before kCopy. Of two
  // nodes that claim one key the one with the lower id has it: another's claim is given only if it is stronger than
  // this node's, and a weaker one is waited for until it gives way or is answered. Null: nobody has it. Blocks, about
  // two seconds at most where no weaker claim is waited for; any thread.
  virtual std::unique_ptr<RemoteAnswer> Find(const AnswerAsk& ask) = 0;
};

}  // namespace shoal
