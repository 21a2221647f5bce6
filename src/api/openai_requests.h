// OpenAI's chat and text completion requests: JSON text in, checked plain structs out.
//
// Pure: knows no server, model or vocabulary. Fields that are not listed here are ignored, null is as absent, and a
// known field of a wrong type or out of range is a 400 that names it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"
#include "base/ids.h"
#include "sample/params.h"
#include "text/chat.h"

namespace shoal {

inline constexpr std::int32_t kChoicesMax = 16;  // "n"
inline constexpr std::size_t kStopsMax = 16;
inline constexpr std::size_t kStopBytesMax = 1024;  // of one stop string
inline constexpr std::size_t kPromptsMax = 64;      // prompts of one text completion
inline constexpr std::size_t kToolsMax = 128;
inline constexpr std::int32_t kCompletionTokensDefault = 16;  // of /v1/completions, as OpenAI's

// What both kinds of request have.
struct RequestCommon {
  std::string model;        // empty: whichever is served
  SamplingParams sampling;  // with logprobs when asked for; seed only if `seed_given`
  bool seed_given = false;
  std::optional<std::int32_t> tokens_max;  // >= 0; none: until the context is full
  std::int32_t choices = 1;                // 1 .. kChoicesMax
  std::vector<std::string> stops;          // each of 1 .. kStopBytesMax bytes
  bool stream = false;
  bool include_usage = false;
  bool token_ids = false;  // return_token_ids
};

struct PromptInput {
  std::string text;             // used when `tokens` is empty
  std::vector<TokenId> tokens;  // >= 0; the vocabulary's size is the handler's to check
};

struct CompletionRequest : RequestCommon {
  std::vector<PromptInput> prompts;  // 1 .. kPromptsMax
  bool echo = false;
  bool json_object = false;
  std::string json_schema;  // JSON text, or empty
};

struct ChatCompletionRequest : RequestCommon {
  ChatRequest chat;
};

// Any bytes are accepted. Errors: ApiError with status 400.
std::optional<ApiError> ParseCompletionRequest(std::string_view body, CompletionRequest& out);
std::optional<ApiError> ParseChatCompletionRequest(std::string_view body, ChatCompletionRequest& out);

}  // namespace shoal
