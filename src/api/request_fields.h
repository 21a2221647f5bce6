// Reads typed fields of one JSON object and remembers the first that is wrong.
//
// Knows JSON and ranges, no meaning: the request parsers use it, so that each field is one line there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "api/json_input.h"

namespace shoal {

class FieldReader {
 public:
  // `object` must outlive the reader. `prefix` goes before names in errors, e.g. "stream_options.".
  explicit FieldReader(const Json& object, std::string prefix = "") : object_(object), prefix_(std::move(prefix)) {}

  // Null when absent or JSON null, or once a field was wrong.
  const Json* Find(const char* name) const;

  // Each leaves `out` alone when the field is absent, and returns whether it was set.
  bool Bool(const char* name, bool& out);
  bool String(const char* name, std::string& out);
  bool Number(const char* name, double min, double max, float& out);  // finite
  bool Integer(const char* name, std::int64_t min, std::int64_t max, std::int32_t& out);
  bool Seed(const char* name, std::uint64_t& out);  // any 64-bit integer
  const Json* Object(const char* name);
  const Json* Array(const char* name);

  // Only the first error is kept. `name` may go deeper: "messages[0].role".
  void Fail(const std::string& name, const std::string& message);
  bool ok() const { return !error_.has_value(); }
  const std::optional<ApiError>& error() const { return error_; }

 private:
  const Json& object_;
  std::string prefix_;
  std::optional<ApiError> error_;
};

}  // namespace shoal
