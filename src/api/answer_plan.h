// A request understood: what is to be generated for it, and how that is shown to a client, streamed or whole.
//
// A plan is a function of the record and the model alone: every node that makes it again makes the same one, and from
// the same tokens shows the same bytes. chat.cc and completion.cc have the dialects; nothing here generates.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "api/backend.h"
#include "api/choice.h"
#include "api/errors.h"
#include "api/openai_responses.h"
#include "wire/answer_messages.h"

namespace shoal {

// A client's view of a streamed answer: from steps to whole server-sent events. One client, one thread.
class StreamView {
 public:
  virtual ~StreamView() = default;
  // The event that comes before all others of this choice; empty: none.
  virtual std::string Begin(std::size_t choice) = 0;
  virtual std::vector<std::string> Add(std::size_t choice, ChoiceStep& step) = 0;
};

// The same of an answer that comes in one piece.
class WholeView {
 public:
  virtual ~WholeView() = default;
  virtual void Add(std::size_t choice, ChoiceStep& step) = 0;
  virtual std::string Body(const RunUsage& usage) = 0;
};

struct RunPrompt {
  std::vector<TokenId> tokens;
  SamplingParams sampling;      // choice i of a prompt draws with seed + i
  std::int32_t tokens_max = 0;  // as GenerateOptions
  std::vector<std::string> stops;
};

class AnswerPlan {
 public:
  virtual ~AnswerPlan() = default;
  virtual std::unique_ptr<StreamView> Stream(const AnswerHead& as) const = 0;
  virtual std::unique_ptr<WholeView> Whole() const = 0;

  std::size_t choices() const { return prompts.size() * choices_per_prompt; }
  const RunPrompt& PromptOf(std::size_t choice) const { return prompts[choice / choices_per_prompt]; }
  GenerateOptions OptionsOf(std::size_t choice) const;
  ChoiceText TextOf(std::size_t choice) const;

  std::shared_ptr<Backend> backend;
  AnswerHead head;
  std::vector<RunPrompt> prompts;      // at least one
  std::size_t choices_per_prompt = 1;  // choice index = prompt index * choices_per_prompt + i
  bool chat = false, streamed = false;
  bool nothing = false;  // no token is wanted
};

using PlannedAnswer = std::variant<std::unique_ptr<AnswerPlan>, ApiError>;

// What both dialects read: the body, and what was fixed when the answer was first asked for.
PlannedAnswer PlanChat(Service& service, const AnswerRecord& record);
PlannedAnswer PlanCompletion(Service& service, const AnswerRecord& record);
PlannedAnswer PlanAnswer(Service& service, const AnswerRecord& record);

// --- What the dialects share.

// 404 model_not_found.
ApiError ModelNotFound(std::string_view name);
// The model of `record`, else the one that the request names. Errors: 404; 503 when there is no model at all.
std::optional<ApiError> FindBackend(Service& service, const AnswerRecord& record, const std::string& name,
                                    std::shared_ptr<Backend>& out);
// Token ids of the vocabulary only, the whole set in range, a grammar that can be followed; where it cannot, the error
// names `grammar_field`. Errors: 400.
std::optional<ApiError> CheckSampling(const Backend& backend, const SamplingParams& sampling,
                                      const char* grammar_field);
// "stop" or "length".
std::string FinishReasonText(GenerationEnd end);

}  // namespace shoal
