// Conversations to prompts and generated text back to messages, by the model's own template (llama-common's Jinja).
//
// Knows nothing of HTTP: api/ maps the dialects to these structs. JSON travels as text, so that no JSON library shows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/vocabulary.h"
#include "sample/params.h"

namespace shoal {

enum class ToolChoice { kAuto, kNone, kRequired };

struct ChatRequest {
  std::string messages_json;  // OpenAI's "messages" array
  std::string tools_json;     // OpenAI's "tools" array, or empty
  ToolChoice tool_choice = ToolChoice::kAuto;
  bool parallel_tool_calls = false;  // false: at most one call is reported
  std::string json_schema;           // the schema the answer must follow, or empty
  bool json_object = false;          // any JSON object
  std::string grammar;               // GBNF given by the client, or empty
  bool enable_thinking = true;
  std::map<std::string, std::string> template_arguments;  // chat_template_kwargs, values as JSON text
  std::int64_t now_s = 0;       // Unix seconds that templates take for the present; 0: the real ones
  std::uint64_t call_seed = 0;  // the ids of tool calls follow from it
};

struct ToolCall {
  std::string id, name, arguments;
};  // arguments: JSON text
struct ChatMessage {
  std::string content, reasoning;
  std::vector<ToolCall> tool_calls;
};

// What one more piece of text adds to the message.
struct ChatDelta {
  std::string content, reasoning;
  struct ToolCallDelta {
    std::size_t index = 0;
    std::string id, name, arguments;
  };
  std::vector<ToolCallDelta> tool_calls;
  bool empty() const { return content.empty() && reasoning.empty() && tool_calls.empty(); }
};

// A rendered conversation: the prompt, and how to sample and parse the answer.
class ChatPrompt {
 public:
  virtual ~ChatPrompt() = default;
  std::string prompt;              // to tokenize with parse_special; BOS is in it or added by the tokenizer once
  std::vector<TokenId> tokens;     // the same, tokenized
  std::vector<std::string> stops;  // extra stop strings of the template
  std::uint64_t call_seed = 0;     // of the request
  // Sets grammar, lazy triggers and preserved tokens as the template and the schema want.
  virtual void ConstrainSampling(SamplingParams& params) const = 0;
  // The message in `text`, the whole generated text so far. `partial`: more may come.
  // Errors: kInternal (the text does not follow the template's format).
  virtual Result<ChatMessage> Parse(const std::string& text, bool partial) const = 0;
  // The content is the text as it stands: no tools, no reasoning, no markers.
  virtual bool plain() const { return false; }
};

// Streams parsed deltas from growing text. One thread.
//
// What was streamed cannot be taken back: where a longer text parses to something else than the shorter one did, the
// stream keeps what it said, and only what extends it follows. Long texts are parsed again once in a while, not for
// every piece, so that the cost stays about linear.
class ChatStream {
 public:
  explicit ChatStream(std::shared_ptr<const ChatPrompt> prompt) : prompt_(std::move(prompt)) {}
  // `piece` is appended to the text; `last`: nothing follows. An answer that was cut off in the middle of a tool call
  // gives what there is of it. Errors: kInternal (with `last` only: nothing of the text could be parsed).
  Result<ChatDelta> Add(const std::string& piece, bool last);
  const ChatMessage& message() const { return message_; }

 private:
  std::shared_ptr<const ChatPrompt> prompt_;
  std::string text_;
  std::size_t parsed_bytes_ = 0;
  ChatMessage message_;
};

class ChatTemplate {
 public:
  // The template in the model, or `override_source`. A model without one gets ChatML, as in llama.cpp, and a warning in
  // the log. Errors: kCorrupt (the template does not parse).
  static Result<std::shared_ptr<const ChatTemplate>> Open(std::shared_ptr<const Vocabulary> vocabulary,
                                                          const std::string& override_source = "");
  ~ChatTemplate();
  // False: the model has no template, ChatML stands in.
  bool from_model() const;
  // Errors: kInvalidArgument (malformed messages or tools, a schema that cannot be a grammar, a role the template
  // refuses), with the template's own words. A message about a field of the request begins with its name here (tools,
  // tool_choice, json_schema, grammar, chat_template_kwargs) and a colon. Any thread.
  Result<std::shared_ptr<const ChatPrompt>> Render(const ChatRequest& request) const;

 private:
  struct State;
  explicit ChatTemplate(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The id of an answer's call number `index`.
std::string ToolCallId(std::uint64_t call_seed, std::size_t index);

// GBNF of a JSON schema ("" : any JSON object), which messages call `what`. Errors: kInvalidArgument.
Result<std::string> GrammarFromJsonSchema(const std::string& schema_json, const char* what = "json_schema");

}  // namespace shoal
