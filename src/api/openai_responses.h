// OpenAI's answers as JSON text: whole objects, chunks of a stream, models, usage.
//
// Pure formatting. Bytes that are not UTF-8 become U+FFFD wherever text is shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/backend.h"
#include "api/choice.h"
#include "api/errors.h"
#include "text/chat.h"

namespace shoal {

// What every object and chunk of one answer repeats.
struct AnswerHead {
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  std::string model;
  std::int64_t created_s = 0;
  bool usage_in_chunks = false;  // stream_options.include_usage: every chunk has a usage field, null but in the last
  bool token_ids = false;        // return_token_ids: choices have token_ids, and all that is sent has prompt_tokens
  std::size_t prompt_tokens = 0;
};

// `prefix` and 24 random letters and digits, which nobody can guess.
std::string MakeId(std::string_view prefix);

struct ChatAnswer {
  ChatMessage message;
  std::vector<TokenReport> tokens;
  std::vector<TokenId> token_ids;
  std::string finish_reason;
};
struct CompletionAnswer {
  std::string text;
  std::vector<TokenReport> tokens;
  std::vector<TokenId> token_ids;
  std::string finish_reason;
};

std::string ChatObject(const AnswerHead& head, const std::vector<ChatAnswer>& choices, bool logprobs,
                       const RunUsage& usage);
std::string CompletionObject(const AnswerHead& head, const std::vector<CompletionAnswer>& choices, bool logprobs,
                             const RunUsage& usage);

// Server-sent events, "data: ...\n\n" each. `finish_reason` empty: null. `token_ids` show when the head wants them.
std::string ChatRoleEvent(const AnswerHead& head, std::size_t index);
std::string ChatDeltaEvent(const AnswerHead& head, std::size_t index, const ChatDelta& delta,
                           const std::vector<TokenReport>* tokens, const std::vector<TokenId>& token_ids,
                           const std::string& finish_reason);
std::string CompletionEvent(const AnswerHead& head, std::size_t index, const std::string& text,
                            const std::vector<TokenReport>* tokens, const std::vector<TokenId>& token_ids,
                            const std::string& finish_reason);
std::string UsageEvent(const AnswerHead& head, bool chat, const RunUsage& usage);
std::string ErrorEvent(const ApiError& error);
inline constexpr std::string_view kDoneEvent = "data: [DONE]\n\n";
// A comment within the next event: with an empty line after it, clients that keep the last id see an event without
// data.
inline constexpr std::string_view kKeepAliveEvent = ": waiting\n";

std::string ModelObject(const ModelCard& card);
std::string ModelListObject(const std::vector<ModelCard>& cards);

}  // namespace shoal
