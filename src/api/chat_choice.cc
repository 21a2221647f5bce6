// Merging deltas, and the fallback to plain text.
#include "api/chat_choice.h"

#include "api/answer_plan.h"

namespace shoal {

ChatDelta ChatChoice::Add(const ChoiceStep& step) {
  text_ += step.text;
  ChatDelta delta;
  if (plain_) {
    delta.content = step.text;
  } else if (!step.text.empty() || step.end) {
    auto parsed = stream_.Add(step.text, step.end.has_value());
    if (parsed.ok()) {
      delta = *std::move(parsed);
    } else if (message_.content.empty() && message_.reasoning.empty() && message_.tool_calls.empty()) {
      plain_ = true;
      delta.content = text_;
    } else if (step.end || message_.tool_calls.empty()) {
      plain_ = message_.tool_calls.empty();
      delta.content = message_.tool_calls.empty() ? step.text : "";
    }
  }
  Merge(delta);
  if (step.end) {
    finish_reason_ = FinishReasonText(*step.end);
    if (finish_reason_ == "stop" && !message_.tool_calls.empty()) finish_reason_ = "tool_calls";
  }
  return delta;
}

void ChatChoice::Merge(ChatDelta& delta) {
  message_.content += delta.content;
  message_.reasoning += delta.reasoning;
  for (ChatDelta::ToolCallDelta& call : delta.tool_calls) {
    // A parser counts its calls up from 0: a gap would be its bug, and is not worth an abort.
    if (call.index > message_.tool_calls.size()) call.index = message_.tool_calls.size();
    if (call.index == message_.tool_calls.size()) {
      if (call.id.empty()) call.id = ToolCallId(call_seed_, call.index);
      message_.tool_calls.push_back({call.id, call.name, call.arguments});
      continue;
    }
    ToolCall& known = message_.tool_calls[call.index];
    call.id.clear();  // said once, with the call's first piece
    known.name += call.name;
    known.arguments += call.arguments;
  }
}

}  // namespace shoal
