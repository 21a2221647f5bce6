// libFuzzer: any bytes to both request parsers. What they accept must be in range and must not throw when formatted.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/openai_requests.h"

namespace {

void Require(bool claim) {
  if (!claim) std::abort();
}

void CheckCommon(const shoal::RequestCommon& request) {
  Require(request.choices >= 1 && request.choices <= shoal::kChoicesMax);
  Require(request.stops.size() <= shoal::kStopsMax);
  for (const auto& stop : request.stops) Require(!stop.empty() && stop.size() <= shoal::kStopBytesMax);
  Require(!request.tokens_max || *request.tokens_max >= 0);
  Require(request.sampling.logprobs >= -1 && request.sampling.logprobs <= shoal::kLogprobsMax);
  Require(request.sampling.logit_bias.size() <= shoal::kLogitBiasMax);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  shoal::CompletionRequest completion;
  if (const auto error = shoal::ParseCompletionRequest(body, completion)) {
    Require(error->status == 400 && !shoal::ErrorBody(*error).empty());
  } else {
    CheckCommon(completion);
    Require(!completion.prompts.empty() && completion.prompts.size() <= shoal::kPromptsMax);
  }
  shoal::ChatCompletionRequest chat;
  if (const auto error = shoal::ParseChatCompletionRequest(body, chat)) {
    Require(error->status == 400 && !shoal::ErrorBody(*error).empty());
  } else {
    CheckCommon(chat);
    Require(!chat.chat.messages_json.empty());
  }
  return 0;
}
