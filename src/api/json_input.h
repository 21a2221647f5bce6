// JSON from clients, parsed within stated limits: nesting, number of values, keys of one object, valid UTF-8.
//
// Knows no request: openai_requests.cc gives the fields their meaning. Objects keep the order of their keys, for
// templates and schemas show it.
#pragma once

#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

#include "api/errors.h"

namespace shoal {

using Json = nlohmann::ordered_json;

inline constexpr std::size_t kJsonDepthMax = 128;         // dumping and comparing recurse: this bounds the stack
inline constexpr std::size_t kJsonValuesMax = 300'000;    // bounds memory: a value costs up to ~150 bytes
inline constexpr std::size_t kJsonObjectKeysMax = 2'048;  // bounds time: ordered objects are searched linearly

// Parses `text`, which must be one JSON value and nothing else, into `out`.
// Errors (400): not JSON, with line and column; not UTF-8; over a limit above.
std::optional<ApiError> ParseJson(std::string_view text, Json& out);

}  // namespace shoal
