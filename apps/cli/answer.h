// One answer on the command line: a generation read to its end, its text printed as it comes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "node/node.h"
#include "text/chat.h"

namespace shoal::cli {

struct AnswerRequest {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  std::int32_t tokens_max = 0;
  std::vector<std::string> stops;
  std::shared_ptr<const ChatPrompt> chat;  // null: raw text
};

struct Answer {
  std::string text;                   // raw: the text; chat: the message's content
  ChatMessage message;                // chat only
  std::vector<TokenId> tokens;        // all that were sampled, an end token included
  std::vector<SampledToken> sampled;  // the same with log-probabilities, when asked for
  std::string finish;                 // "stop", "length" or "interrupted"
  std::int32_t prompt_tokens = 0, reused_tokens = 0;
  double prompt_s = 0;  // until the first token
  double decode_s = 0;  // from the first token to the last
};

enum class TextKind { kContent, kReasoning };
using TextSink = std::function<void(TextKind, const std::string&)>;

// Blocks until the answer ends or Interrupted. Errors: as Backend::Generate, and what ended the generation.
Result<Answer> GenerateAnswer(Node& node, AnswerRequest request, const TextSink& sink);

}  // namespace shoal::cli
