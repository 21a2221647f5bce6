// One function an object of OpenAI's API.
#include "api/openai_responses.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "api/json_input.h"
#include "base/check.h"
#include "identity/crypto.h"

namespace shoal {
namespace {

std::string Dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string Event(const Json& value) { return "data: " + Dump(value) + "\n\n"; }

// JSON has no infinity; OpenAI shows very unlikely tokens as -9999.
double ShownLogprob(float logprob) { return std::isfinite(logprob) ? std::max<double>(logprob, -9999.0) : -9999.0; }

Json NullIfEmpty(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

// The bytes of a token, and its text. Half a character is U+FFFD in the text: the bytes tell all.
Json TokenObject(const std::string& bytes, float logprob) {
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return {{"token", bytes}, {"logprob", ShownLogprob(logprob)}, {"bytes", std::move(list)}};
}

Json ChatLogprobs(const std::vector<TokenReport>& tokens) {
  Json content = Json::array();
  for (const TokenReport& token : tokens) {
    Json entry = TokenObject(token.bytes, token.logprob);
    Json top = Json::array();
    for (const auto& other : token.alternatives) top.push_back(TokenObject(other.bytes, other.logprob));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// A key of a JSON object must be text that survives dumping: two halves of characters must not become one key twice.
std::string KeyText(const std::string& bytes) {
  const std::string dumped = Dump(Json(bytes));
  if (dumped.find("\xEF\xBF\xBD") == std::string::npos || bytes.find("\xEF\xBF\xBD") != std::string::npos) return bytes;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
  }
  return text;
}

Json CompletionLogprobs(const std::vector<TokenReport>& tokens) {
  Json names = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const TokenReport& token : tokens) {
    names.push_back(KeyText(token.bytes));
    logprobs.push_back(ShownLogprob(token.logprob));
    Json top = Json::object();
    for (const auto& other : token.alternatives) top[KeyText(other.bytes)] = ShownLogprob(other.logprob);
    tops.push_back(std::move(top));
    offsets.push_back(token.offset_characters);
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json UsageObject(const RunUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

Json Head(const AnswerHead& head, const char* object) {
  Json out = {{"id", head.id},
              {"object", object},
              {"created", head.created_s},
              {"model", head.model},
              {"system_fingerprint", "shoal"}};
  if (head.token_ids) out["prompt_tokens"] = head.prompt_tokens;
  return out;
}

Json WithTokenIds(const AnswerHead& head, Json choice, const std::vector<TokenId>& token_ids) {
  if (head.token_ids) choice["token_ids"] = token_ids;
  return choice;
}

Json Chunk(const AnswerHead& head, const char* object, Json choice) {
  Json chunk = Head(head, object);
  chunk["choices"] = Json::array({std::move(choice)});
  if (head.usage_in_chunks) chunk["usage"] = nullptr;
  return chunk;
}

Json MessageObject(const ChatMessage& message) {
  Json out = {{"role", "assistant"}};
  out["content"] = message.content.empty() && !message.tool_calls.empty() ? Json(nullptr) : Json(message.content);
  out["refusal"] = nullptr;
  if (!message.reasoning.empty()) out["reasoning_content"] = message.reasoning;
  if (message.tool_calls.empty()) return out;
  Json calls = Json::array();
  for (const ToolCall& call : message.tool_calls) {
    calls.push_back(
        {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  out["tool_calls"] = std::move(calls);
  return out;
}

Json DeltaObject(const ChatDelta& delta) {
  Json out = Json::object();
  if (!delta.content.empty()) out["content"] = delta.content;
  if (!delta.reasoning.empty()) out["reasoning_content"] = delta.reasoning;
  if (delta.tool_calls.empty()) return out;
  Json calls = Json::array();
  for (const auto& call : delta.tool_calls) {
    Json entry = {{"index", call.index}};
    if (!call.id.empty()) {
      entry["id"] = call.id;
      entry["type"] = "function";
    }
    Json function = Json::object();
    if (!call.name.empty()) function["name"] = call.name;
    function["arguments"] = call.arguments;
    entry["function"] = std::move(function);
    calls.push_back(std::move(entry));
  }
  out["tool_calls"] = std::move(calls);
  return out;
}

Json CardObject(const ModelCard& card) {
  return {{"id", card.id},
          {"object", "model"},
          {"created", card.created_s},
          {"owned_by", "shoal"},
          {"context_length", card.context_tokens_max}};
}

}  // namespace

std::string MakeId(std::string_view prefix) {
  static constexpr char kAlphabet[] = "abcdefghijkmnopqrstuvwxyz0123456";  // 32 of them
  std::string id(prefix);
  std::array<std::uint8_t, 24> bytes{};
  const Status random = FillRandom(bytes);
  SHOAL_CHECK(random.ok());  // a system without random numbers has no secrets to keep
  for (const std::uint8_t byte : bytes) id += kAlphabet[byte & 31];
  return id;
}

std::string ChatObject(const AnswerHead& head, const std::vector<ChatAnswer>& choices, bool logprobs,
                       const RunUsage& usage) {
  Json out = Head(head, "chat.completion");
  Json list = Json::array();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    list.push_back(WithTokenIds(head,
                                {{"index", i},
                                 {"message", MessageObject(choices[i].message)},
                                 {"logprobs", logprobs ? ChatLogprobs(choices[i].tokens) : Json(nullptr)},
                                 {"finish_reason", choices[i].finish_reason}},
                                choices[i].token_ids));
  }
  out["choices"] = std::move(list);
  out["usage"] = UsageObject(usage);
  return Dump(out);
}

std::string CompletionObject(const AnswerHead& head, const std::vector<CompletionAnswer>& choices, bool logprobs,
                             const RunUsage& usage) {
  Json out = Head(head, "text_completion");
  Json list = Json::array();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    list.push_back(WithTokenIds(head,
                                {{"text", choices[i].text},
                                 {"index", i},
                                 {"logprobs", logprobs ? CompletionLogprobs(choices[i].tokens) : Json(nullptr)},
                                 {"finish_reason", choices[i].finish_reason}},
                                choices[i].token_ids));
  }
  out["choices"] = std::move(list);
  out["usage"] = UsageObject(usage);
  return Dump(out);
}

std::string ChatRoleEvent(const AnswerHead& head, std::size_t index) {
  return Event(Chunk(head, "chat.completion.chunk",
                     {{"index", index},
                      {"delta", {{"role", "assistant"}, {"content", ""}}},
                      {"logprobs", nullptr},
                      {"finish_reason", nullptr}}));
}

std::string ChatDeltaEvent(const AnswerHead& head, std::size_t index, const ChatDelta& delta,
                           const std::vector<TokenReport>* tokens, const std::vector<TokenId>& token_ids,
                           const std::string& finish_reason) {
  return Event(Chunk(head, "chat.completion.chunk",
                     WithTokenIds(head,
                                  {{"index", index},
                                   {"delta", DeltaObject(delta)},
                                   {"logprobs", tokens != nullptr ? ChatLogprobs(*tokens) : Json(nullptr)},
                                   {"finish_reason", NullIfEmpty(finish_reason)}},
                                  token_ids)));
}

std::string CompletionEvent(const AnswerHead& head, std::size_t index, const std::string& text,
                            const std::vector<TokenReport>* tokens, const std::vector<TokenId>& token_ids,
                            const std::string& finish_reason) {
  return Event(Chunk(head, "text_completion",
                     WithTokenIds(head,
                                  {{"text", text},
                                   {"index", index},
                                   {"logprobs", tokens != nullptr ? CompletionLogprobs(*tokens) : Json(nullptr)},
                                   {"finish_reason", NullIfEmpty(finish_reason)}},
                                  token_ids)));
}

std::string UsageEvent(const AnswerHead& head, bool chat, const RunUsage& usage) {
  Json out = Head(head, chat ? "chat.completion.chunk" : "text_completion");
  out["choices"] = Json::array();
  out["usage"] = UsageObject(usage);
  return Event(out);
}

std::string ErrorEvent(const ApiError& error) { return "data: " + ErrorBody(error) + "\n\n"; }

std::string ModelObject(const ModelCard& card) { return Dump(CardObject(card)); }

std::string ModelListObject(const std::vector<ModelCard>& cards) {
  Json data = Json::array();
  for (const ModelCard& card : cards) data.push_back(CardObject(card));
  return Dump({{"object", "list"}, {"data", std::move(data)}});
}

}  // namespace shoal
