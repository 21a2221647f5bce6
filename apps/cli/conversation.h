// Whom `shoal run` talks to: a model in this process, or one that the cluster has placed. Turns that were had are kept
// and rendered anew for each prompt (what is unchanged is in the KV cache).
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "api/control_client.h"
#include "apps/cli/answer.h"
#include "apps/cli/commands.h"

namespace shoal::cli {

class Conversation {
 public:
  virtual ~Conversation() = default;
  // Blocks until the answer ends or Interrupted. Errors: as Backend::Generate, and what ended the generation.
  virtual Result<Answer> Ask(const std::string& prompt, const TextSink& sink) = 0;
  // What was said so far is no part of what is asked next.
  virtual void Forget() = 0;
  virtual std::string model_name() const = 0;
  // The stages that run the model: for --json, and as a table for people.
  virtual nlohmann::ordered_json StagesJson() const = 0;
  virtual std::string StagesText() const = 0;
};

// `node` and `options` must outlive it.
std::unique_ptr<Conversation> LocalConversation(Node& node, const RunOptions& options, SamplingParams sampling);

// Over the node that runs in this SHOAL_HOME; places the model first when it is not placed (and says so on stderr).
// `options` must outlive it. Blocks while placing. Errors: as ControlService::Place; kInvalidArgument (an option that
// only a local run has).
Result<std::unique_ptr<Conversation>> ClusterConversation(const ControlClient& client, const RunOptions& options,
                                                          SamplingParams sampling);

// The messages so far, in OpenAI's shape.
class Turns {
 public:
  explicit Turns(const std::string& system);
  // Begins anew, with the system message alone.
  void Forget();
  void AddUser(const std::string& text);
  // After AddUser: the answer, or that there was none.
  void AddAssistant(const std::string& text);
  void TakeBack();
  const nlohmann::ordered_json& messages() const { return messages_; }

 private:
  const std::string system_;
  nlohmann::ordered_json messages_;
};

}  // namespace shoal::cli
