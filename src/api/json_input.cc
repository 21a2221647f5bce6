// A scan for the limits, without building anything, then nlohmann's parser.
#include "api/json_input.h"

#include <array>
#include <string>

namespace shoal {
namespace {

// Walks the bytes of `text` outside of strings and counts. Malformed text is the parser's to find: this stops at the
// first limit only.
std::optional<ApiError> CheckLimits(std::string_view text) {
  std::array<std::size_t, kJsonDepthMax> members{};  // of the containers open now
  std::array<bool, kJsonDepthMax> is_object{};
  std::size_t depth = 0;
  std::size_t values = 1;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') {
      if (depth == kJsonDepthMax) {
        return InvalidRequest("The JSON is nested deeper than " + std::to_string(kJsonDepthMax) + " levels, at byte " +
                                  std::to_string(i) + ".",
                              "", "invalid_json");
      }
      is_object[depth] = c == '{';
      members[depth++] = 1;
      ++values;
    }
    if ((c == '}' || c == ']') && depth > 0) --depth;
    if (c == ',') {
      ++values;
      if (depth > 0 && ++members[depth - 1] > kJsonObjectKeysMax && is_object[depth - 1]) {
        return InvalidRequest("A JSON object has more than " + std::to_string(kJsonObjectKeysMax) + " keys.", "",
                              "invalid_json");
      }
    }
    if (values > kJsonValuesMax) {
      return InvalidRequest("The JSON has more than " + std::to_string(kJsonValuesMax) + " values.", "",
                            "invalid_json");
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ParseJson(std::string_view text, Json& out) {
  if (auto error = CheckLimits(text)) return error;
  try {
    out = Json::parse(text.begin(), text.end());
    return std::nullopt;
  } catch (const nlohmann::json::exception& e) {  // also numbers out of range
    std::string_view what = e.what();
    if (const auto end = what.find("] "); what.substr(0, 1) == "[" && end != what.npos) what.remove_prefix(end + 2);
    return InvalidRequest("The body is not valid JSON: " + std::string(what), "", "invalid_json");
  }
}

}  // namespace shoal
