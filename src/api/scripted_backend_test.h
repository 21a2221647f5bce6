// A Backend, and the Service of it alone, that plays a script over the real SmolLM2 vocabulary, for the tests of api/.
// It counts the generations that are alive, so that a test sees a cancelled one go.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "api/backend.h"
#include "engine/test_vocabularies.h"

namespace shoal {

struct Script {
  std::string text;  // what every generation says
  GenerationEnd end = GenerationEnd::kStop;
  Error error;           // with kError
  bool forever = false;  // says `text` again and again
  std::chrono::milliseconds token_delay{0};
  std::int32_t reused = 0;
};

class ScriptedBackend final : public Backend, public Service, public std::enable_shared_from_this<ScriptedBackend> {
 public:
  explicit ScriptedBackend(Script script, std::string name = "smollm2")
      : script_(std::move(script)), name_(std::move(name)) {}

  ModelCard model() const override { return {name_, 1'700'000'000, context_tokens}; }
  const Vocabulary& vocabulary() const override { return *SmolLm2Vocabulary(); }
  std::shared_ptr<const Vocabulary> shared_vocabulary() const override { return SmolLm2Vocabulary(); }
  std::shared_ptr<const ChatTemplate> chat_template() const override {
    const std::lock_guard lock(mutex);
    if (!opened_template_) {
      auto opened = ChatTemplate::Open(SmolLm2Vocabulary(), template_source);
      if (!opened.ok()) return nullptr;
      opened_template_ = *std::move(opened);
    }
    return opened_template_;
  }
  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options) override {
    const std::lock_guard lock(mutex);
    if (refuse_after >= 0 && refuse_after-- == 0) return refusal;
    requests.push_back(options);
    return std::unique_ptr<GenerationHandle>(new Handle(*this, std::move(options)));
  }
  std::vector<ModelCard> models() override { return {model()}; }
  std::shared_ptr<Backend> Find(const std::string& name) override {
    return IsServedModel(model(), name) ? shared_from_this() : nullptr;
  }
  bool healthy() const override { return healthy_flag; }
  MetricsRegistry& metrics() override { return registry; }
  void RefreshMetrics() override { ++refreshes; }

  std::vector<GenerateOptions> Requests() {
    const std::lock_guard lock(mutex);
    return requests;
  }

  std::int32_t context_tokens = 2048;
  std::atomic<bool> healthy_flag{true};
  std::atomic<int> alive{0}, refreshes{0};
  std::string template_source;  // empty: the model's own; set before the first request
  mutable std::mutex mutex;
  int refuse_after = -1;  // >= 0: so many more generations start, then one is refused
  Error refusal{ErrorCode::kOverloaded, "The queue is full."};
  std::vector<GenerateOptions> requests;
  MetricsRegistry registry;

 private:
  class Handle final : public GenerationHandle {
   public:
    Handle(ScriptedBackend& owner, GenerateOptions options)
        : owner_(owner),
          options_(std::move(options)),
          tokens_(*SmolLm2Vocabulary()->Tokenize(owner.script_.text, false, true)),
          next_(owner.script_.forever && !tokens_.empty() ? options_.emitted % tokens_.size() : options_.emitted) {
      ++owner_.alive;
    }
    ~Handle() override { --owner_.alive; }

    std::optional<GenerationEvent> Next(std::chrono::milliseconds timeout) override {
      const Script& script = owner_.script_;
      if (script.token_delay.count() > 0) {
        const auto now = std::chrono::steady_clock::now();
        const auto due = last_ + script.token_delay;
        if (now + timeout < due) {
          std::this_thread::sleep_for(timeout);
          return std::nullopt;
        }
        std::this_thread::sleep_until(due);
        last_ = due;
      }
      GenerationEvent event;
      if (next_ == tokens_.size() && script.forever && !tokens_.empty()) next_ = 0;
      if (options_.tokens_max > 0 && said_ == options_.tokens_max) {
        event.end = GenerationEnd::kLength;
      } else if (next_ == tokens_.size()) {
        event.end = script.end;
        event.error = script.error;
      } else {
        event.token = SampledToken{tokens_[next_++], false, -0.5F, {}};
        ++said_;
        for (int i = 0; i < options_.sampling.logprobs; ++i) {
          event.token->alternatives.push_back({i == 0 ? event.token->token : 500 + i, -0.5F - static_cast<float>(i)});
        }
      }
      return event;
    }
    std::int32_t reused_tokens() const override { return owner_.script_.reused; }

   private:
    ScriptedBackend& owner_;
    const GenerateOptions options_;
    const std::vector<TokenId> tokens_;
    std::size_t next_;  // goes on where an earlier one of the same answer was
    std::int32_t said_ = 0;
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  };

  const Script script_;
  const std::string name_;
  mutable std::shared_ptr<const ChatTemplate> opened_template_;
};

// True once `condition` holds, asked for at most `seconds`.
inline bool Eventually(const std::function<bool()>& condition, double seconds = 30) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace shoal
