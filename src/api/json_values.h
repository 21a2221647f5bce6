// What a JSON object says under a key, for readers of texts that may be anything: a value of another type is as none.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace shoal {

inline std::string TextIn(const nlohmann::ordered_json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

inline double NumberIn(const nlohmann::ordered_json& object, const char* key, double otherwise = 0) {
  const auto at = object.find(key);
  return at != object.end() && at->is_number() ? at->get<double>() : otherwise;
}

}  // namespace shoal
