// POST /v1/completions: one request's JSON to an answer or a stream.
#pragma once

#include <string_view>

#include "api/generation_run.h"

namespace shoal {

// Blocks until the answer is complete (or, streamed, until the stream may start). A connection's thread.
Reply AnswerCompletion(ApiContext& context, std::string_view body, const ClientLink& link);

// 404 model_not_found.
ApiError ModelNotFound(std::string_view name);
// The model that a request names. Errors: 404; 503 when there is no model at all.
std::optional<ApiError> FindBackend(Service& service, const std::string& name, std::shared_ptr<Backend>& out);

// Token ids of the vocabulary only, the seed chosen, the whole set in range. Errors: 400.
std::optional<ApiError> CheckSampling(const Backend& backend, bool seed_given, SamplingParams& sampling);

// "stop" or "length".
std::string FinishReason(GenerationEnd end);

// How long a stream waits for its first token before the status is sent: failures until then are plain HTTP errors.
inline constexpr std::chrono::milliseconds kFirstStepWait{1000};

}  // namespace shoal
