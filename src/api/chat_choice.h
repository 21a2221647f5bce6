// The text of one chat choice as it grows, parsed into content, reasoning and tool calls with stable ids.
//
// What the template's parser refuses is shown as plain content rather than lost. Knows no HTTP.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/choice.h"
#include "text/chat.h"

namespace shoal {

class ChatChoice {
 public:
  explicit ChatChoice(std::shared_ptr<const ChatPrompt> prompt)
      : call_seed_(prompt->call_seed), stream_(std::move(prompt)) {}

  // What `step` adds for the client. Call it with every step, in order.
  ChatDelta Add(const ChoiceStep& step);
  // After the step with `end`: "stop", "length" or "tool_calls".
  std::string finish_reason() const { return finish_reason_; }
  // All that Add returned, put together.
  const ChatMessage& message() const { return message_; }

 private:
  void Merge(ChatDelta& delta);

  std::uint64_t call_seed_;
  ChatStream stream_;
  std::string text_;    // all of it, for when it cannot be parsed
  bool plain_ = false;  // the parser refused the text: no more parsing
  ChatMessage message_;
  std::string finish_reason_;
};

}  // namespace shoal
