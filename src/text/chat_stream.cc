// Deltas are the differences between what was sent and what the longer text parses to.
#include "text/chat.h"

namespace shoal {
namespace {

// A text of n bytes is parsed about 512 * (1 + ln(n / 512)) times at most, however many pieces it comes in.
constexpr std::size_t kParsesPerLength = 512;

// What `now` adds to `sent`, which then has it too. Nothing when `now` does not continue `sent`.
std::string Extend(std::string& sent, const std::string& now) {
  if (now.size() <= sent.size() || now.compare(0, sent.size(), sent) != 0) return "";
  std::string added = now.substr(sent.size());
  sent = now;
  return added;
}

}  // namespace

Result<ChatDelta> ChatStream::Add(const std::string& piece, bool last) {
  ChatDelta delta;
  if (prompt_->plain()) {
    message_.content += piece;
    delta.content = piece;
    return delta;
  }
  text_ += piece;
  if (!last && text_.size() - parsed_bytes_ <= text_.size() / kParsesPerLength) return delta;
  parsed_bytes_ = text_.size();

  Result<ChatMessage> parsed = prompt_->Parse(text_, !last);
  if (last && !parsed.ok()) parsed = prompt_->Parse(text_, true);
  if (!parsed.ok()) {
    if (last) return std::move(parsed).error();
    return delta;  // more text may mend it
  }

  const ChatMessage& now = *parsed;
  delta.reasoning = Extend(message_.reasoning, now.reasoning);
  delta.content = Extend(message_.content, now.content);
  for (std::size_t i = 0; i < now.tool_calls.size(); ++i) {
    const ToolCall& call = now.tool_calls[i];
    ChatDelta::ToolCallDelta change;
    change.index = i;
    if (i == message_.tool_calls.size()) {
      // A name may still grow until arguments or another call follow it.
      const bool named = !call.name.empty() && (last || !call.arguments.empty() || i + 1 < now.tool_calls.size());
      if (!named) break;
      change.id = call.id;
      change.name = call.name;
      message_.tool_calls.push_back({call.id, call.name, ""});
    }
    change.arguments = Extend(message_.tool_calls[i].arguments, call.arguments);
    if (!change.name.empty() || !change.arguments.empty()) delta.tool_calls.push_back(std::move(change));
  }
  return delta;
}

}  // namespace shoal
