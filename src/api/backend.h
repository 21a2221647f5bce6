// What the HTTP API needs from the node: models to offer, and generations to start, read and cancel.
//
// A Service knows which models there are; a Backend is one of them. node/ implements both over pipelines; tests
// implement them over a script. All methods: any thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/metrics.h"
#include "base/result.h"
#include "engine/vocabulary.h"
#include "sample/params.h"
#include "text/chat.h"

namespace shoal {

struct GenerateOptions {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  std::int32_t tokens_max = 0;  // 0: until the context is full
  std::uint32_t emitted = 0;    // the last ones of `prompt` are an answer so far, which goes on
};

enum class GenerationEnd { kStop, kLength, kCancelled, kError };

struct GenerationEvent {
  std::optional<SampledToken> token;
  std::optional<GenerationEnd> end;  // may come with the last token
  Error error;                       // with kError
};

// A running generation. Destroying it cancels it and frees its slot. One thread.
class GenerationHandle {
 public:
  virtual ~GenerationHandle() = default;
  // The next event; empty when none came within `timeout`.
  virtual std::optional<GenerationEvent> Next(std::chrono::milliseconds timeout) = 0;
  virtual std::int32_t reused_tokens() const = 0;  // prompt tokens that came from the cache
};

struct ModelCard {
  std::string id;  // as clients name it
  std::int64_t created_s = 0;
  std::int32_t context_tokens_max = 0;
  std::int32_t generations_max = 0;  // that run or wait at once; 0: not known
};

// Whether a client that names `name` means the model served as `card`: its id with or without ".gguf", "default",
// or nothing.
bool IsServedModel(const ModelCard& card, std::string_view name);

// One model that can be generated from. What a request found stays usable until the request lets go of it, even when
// the model is unloaded meanwhile: Generate then says kUnavailable.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual ModelCard model() const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  virtual std::shared_ptr<const Vocabulary> shared_vocabulary() const = 0;
  // Null when the model has no chat template.
  virtual std::shared_ptr<const ChatTemplate> chat_template() const = 0;
  // Errors: kContextFull, kOverloaded, kInvalidArgument, kUnavailable.
  virtual Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options) = 0;
};

class Answers;
class AnswerPeers;

class Service {
 public:
  virtual ~Service() = default;
  // The models that Find gives, in the order to show them.
  virtual std::vector<ModelCard> models() = 0;
  // The model that `model` means, by IsServedModel; where several would do ("default", or nothing), the first one.
  // Null: no such model.
  virtual std::shared_ptr<Backend> Find(const std::string& model) = 0;
  virtual bool healthy() const = 0;
  // Where answers are kept when several servers, or other nodes, share them. Null: each server has its own.
  virtual Answers* answers() { return nullptr; }
  // The other nodes, for answers that are there. Null: none.
  virtual AnswerPeers* answer_peers() { return nullptr; }
  virtual MetricsRegistry& metrics() = 0;
  // Brings gauges up to date before they are read.
  virtual void RefreshMetrics() = 0;
};

}  // namespace shoal
