// All choices of one request, from admission to the last token: waits on them in turn, counts, notices a lost client.
//
// Knows no dialect: completion.cc and chat.cc give it prompts and a function that takes the steps.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "api/choice.h"
#include "api/errors.h"
#include "api/metrics.h"

namespace shoal {

// What the handlers share; lives as long as the server.
struct ApiContext {
  Service& service;
  Admission& admission;
  ApiMetrics& metrics;
  std::chrono::milliseconds keep_alive_interval{15'000};  // of comments in a silent stream
};

// The client's side of a request.
struct ClientLink {
  std::function<bool()> gone;  // it left, or the server stops: true for good once true
};

// Where a streamed answer goes. One thread.
class EventSink {
 public:
  virtual ~EventSink() = default;
  // False when the client is gone. Blocks while the client does not read, up to the write timeout.
  virtual bool Write(std::string_view bytes) = 0;
};

// An answer: a body at once, or a stream written by a function that runs on the connection's thread.
struct Reply {
  int status = 200;
  std::string body;
  int retry_after_s = 0;
  std::function<void(EventSink&)> stream;  // text/event-stream, when set
};

Reply ErrorReply(const ApiError& error);

struct RunPrompt {
  std::vector<TokenId> tokens;
  SamplingParams sampling;      // choice i of a prompt draws with seed + i
  std::int32_t tokens_max = 0;  // as GenerateOptions
  std::vector<std::string> stops;
};

struct RunUsage {
  std::int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
};

class GenerationRun {
 public:
  // On `backend`, which is held until the run is destroyed, starts prompts.size() * choices generations; choice index =
  // prompt index * choices + i. Errors: 429 (no place), 400 (context, too many at once), 503. Either all start or none
  // stays.
  static std::variant<std::unique_ptr<GenerationRun>, ApiError> Start(ApiContext& context,
                                                                      const std::shared_ptr<Backend>& backend,
                                                                      const std::vector<RunPrompt>& prompts,
                                                                      std::int32_t choices);
  ~GenerationRun();

  // Waits for the first step up to `timeout`, so that an early failure can still be a plain HTTP error.
  // False: the client is gone.
  bool AwaitFirst(std::chrono::milliseconds timeout, const ClientLink& link);
  // The error of a choice that failed before anything was taken; none if all is well so far.
  std::optional<Error> EarlyError() const;

  enum class Outcome { kDone, kGone, kFailed };
  // Hands every step to `take(choice index, step)` until all choices have ended, the client is gone, `take` returns
  // false, or a choice fails (then `error()` says why). `idle()` runs when nothing came for the keep-alive interval.
  // After it returns every generation is gone.
  Outcome Run(const ClientLink& link, const std::function<bool(std::size_t, ChoiceStep&)>& take,
              const std::function<bool()>& idle);

  const Error& error() const { return error_; }
  RunUsage usage() const;

 private:
  GenerationRun(ApiContext& context, std::shared_ptr<Backend> backend, Admission::Permit permit);
  // The next step of any choice, waiting up to 100 ms.
  std::optional<std::pair<std::size_t, ChoiceStep>> Poll();
  bool AllDone() const;

  ApiContext& context_;
  const std::shared_ptr<Backend> backend_;
  Admission::Permit permit_;
  std::vector<Choice> choices_;
  std::size_t choices_per_prompt_ = 1;
  std::size_t turn_ = 0;  // the choice to ask first
  std::deque<std::pair<std::size_t, ChoiceStep>> ready_;
  RunUsage usage_;
  Error error_;
  bool first_token_seen_ = false;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace shoal
