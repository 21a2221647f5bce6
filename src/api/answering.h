// From a client's request to its answer: a new one, the one that its key names, or the one that it comes back to,
// wherever in the cluster that is.
//
// The order of a stream's events is the same however often it is played, so an event's id says how many events of
// each choice the client then has ("17", or "17-20-9" of three choices), and a stream goes on after any of them.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/answer_peers.h"
#include "api/answers.h"
#include "api/backend.h"
#include "api/reply.h"

namespace shoal {

// What the handlers share; lives as long as the server.
struct ApiContext {
  Service& service;
  Answers& answers;
  AnswerPeers* peers = nullptr;                           // null: no other nodes
  std::chrono::milliseconds keep_alive_interval{15'000};  // of comments in a silent stream
};

// A request for an answer, besides its body.
struct ClientAsk {
  Dialect dialect = Dialect::kChat;
  std::string idempotency_key;  // empty: none
  std::string api_key;          // the one that was shown: keys of different clients do not meet
  std::string last_event_id;    // empty: from the beginning
  bool keep = false;            // go on while nobody listens, for a while
};

inline constexpr std::size_t kIdempotencyKeyBytesMax = 255;

// POST of a dialect. Blocks until the answer is complete (or, streamed, until the stream may start). Errors: 400 and
// 404 of the request; 422 (the key was used for another request); 429, 503.
Reply AnswerPost(ApiContext& context, const ClientAsk& ask, std::string_view body, const ClientLink& link);

// GET /v1/stream/{id}: the rest of a stream from `last_event_id` on. Errors: 404.
Reply AnswerResume(ApiContext& context, const std::string& id, const std::string& last_event_id,
                   const ClientLink& link);

// For another node's client: `answer`, which is in this node's store, as AnswerAttach wants it. Nothing: it was a claim
// that gave way, and is to be looked for elsewhere. Blocks as AnswerPost.
std::optional<Reply> AnswerFor(ApiContext& context, const std::shared_ptr<Answer>& answer, const AnswerAttach& attach,
                               const ClientLink& link);

}  // namespace shoal
