// POST /v1/chat/completions: one conversation's JSON to an answer or a stream.
//
// The template, tool calls and reasoning are text/'s; this maps them to OpenAI's shapes.
#pragma once

#include <string_view>

#include "api/generation_run.h"

namespace shoal {

// Blocks until the answer is complete (or, streamed, until the stream may start). A connection's thread.
Reply AnswerChat(ApiContext& context, std::string_view body, const ClientLink& link);

}  // namespace shoal
