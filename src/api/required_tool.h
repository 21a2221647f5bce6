// A required tool call for a model whose own template knows no tools: the tools told in the system message, the answer
// bound to a JSON object {"name": ..., "arguments": ...}, and that object read as the call.
//
// With tool_choice "auto" such a model answers in plain words, as llama-common has it; only "required" and a named
// function, which promise a call, need this.
#pragma once

#include <memory>

#include "base/result.h"
#include "text/chat.h"

namespace shoal {

// Renders `request`, which has tools_json as openai_requests.h checks it, and no response format. One call an answer.
// Errors: as ChatTemplate::Render.
Result<std::shared_ptr<const ChatPrompt>> RenderRequiredTool(const ChatTemplate& chat_template,
                                                             const ChatRequest& request);

}  // namespace shoal
