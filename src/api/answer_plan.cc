// The parts of a plan that no dialect changes.
#include "api/answer_plan.h"

#include "engine/grammar_check.h"

namespace shoal {

GenerateOptions AnswerPlan::OptionsOf(std::size_t choice) const {
  const RunPrompt& prompt = PromptOf(choice);
  GenerateOptions options{prompt.tokens, prompt.sampling, prompt.tokens_max};
  options.sampling.seed += static_cast<std::uint64_t>(choice % choices_per_prompt);
  return options;
}

ChoiceText AnswerPlan::TextOf(std::size_t choice) const {
  const RunPrompt& prompt = PromptOf(choice);
  return {backend->shared_vocabulary(), prompt.stops, prompt.sampling.preserved_tokens, prompt.sampling.logprobs >= 0};
}

PlannedAnswer PlanAnswer(Service& service, const AnswerRecord& record) {
  return record.dialect == Dialect::kChat ? PlanChat(service, record) : PlanCompletion(service, record);
}

ApiError ModelNotFound(std::string_view name) {
  return {404,
          "The model '" + std::string(name) + "' is not served here; GET /v1/models lists what is.",
          "invalid_request_error",
          "model",
          "model_not_found",
          0};
}

std::optional<ApiError> FindBackend(Service& service, const AnswerRecord& record, const std::string& name,
                                    std::shared_ptr<Backend>& out) {
  const std::string& wanted = record.model.empty() ? name : record.model;
  out = service.Find(wanted);
  if (out != nullptr) return std::nullopt;
  if (!service.models().empty()) return ModelNotFound(wanted);
  return FromStatus(503, "No model is placed here yet: `shoal place MODEL` places one.");
}

std::optional<ApiError> CheckSampling(const Backend& backend, const SamplingParams& sampling,
                                      const char* grammar_field) {
  for (const LogitBias& bias : sampling.logit_bias) {
    if (bias.token >= backend.vocabulary().size()) {
      return InvalidRequest(
          "'logit_bias' names token " + std::to_string(bias.token) + ", which is not in the vocabulary.", "logit_bias");
    }
  }
  if (const Status status = Validate(sampling); !status.ok()) return FromError(status.error());
  // The last stage looks too; here it costs no slot, and the client is told which field it is.
  if (const Status status = CheckGrammar(sampling.grammar); !sampling.grammar.empty() && !status.ok()) {
    return FromError(status.error(), grammar_field);
  }
  return std::nullopt;
}

std::string FinishReasonText(GenerationEnd end) { return end == GenerationEnd::kLength ? "length" : "stop"; }

}  // namespace shoal
