// One small function a JSON type.
#include "api/request_fields.h"

#include <cmath>
#include <cstdio>

namespace shoal {
namespace {

std::string Show(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

// Whether it is a whole number that is written as a fraction, as by clients that know no other numbers: 10.0.
bool IsWhole(const Json& value) {
  const double number = value.is_number_float() ? value.get<double>() : std::nan("");
  return std::abs(number) < 1e15 && number == std::trunc(number);
}

}  // namespace

const Json* FieldReader::Find(const char* name) const {
  if (error_) return nullptr;
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void FieldReader::Fail(const std::string& name, const std::string& message) {
  if (!error_) error_ = InvalidRequest("'" + prefix_ + name + "' " + message, prefix_ + name);
}

bool FieldReader::Bool(const char* name, bool& out) {
  const Json* value = Find(name);
  if (value == nullptr) return false;
  if (!value->is_boolean()) return Fail(name, "must be true or false."), false;
  out = value->get<bool>();
  return true;
}

bool FieldReader::String(const char* name, std::string& out) {
  const Json* value = Find(name);
  if (value == nullptr) return false;
  if (!value->is_string()) return Fail(name, "must be a string."), false;
  out = value->get_ref<const std::string&>();
  return true;
}

bool FieldReader::Number(const char* name, double min, double max, float& out) {
  const Json* value = Find(name);
  if (value == nullptr) return false;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max)) {
    return Fail(name, "must be a number from " + Show(min) + " to " + Show(max) + "."), false;
  }
  out = static_cast<float>(number);
  return true;
}

bool FieldReader::Integer(const char* name, std::int64_t min, std::int64_t max, std::int32_t& out) {
  const Json* value = Find(name);
  if (value == nullptr) return false;
  // A number over 2^63 is unsigned here, and never below `max`.
  const bool fits =
      IsWhole(*value) ||
      (value->is_number_integer() &&
       (!value->is_number_unsigned() || value->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)));
  const std::int64_t number = fits ? value->get<std::int64_t>() : 0;
  if (!fits || number < min || number > max) {
    return Fail(name, "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max) + "."), false;
  }
  out = static_cast<std::int32_t>(number);
  return true;
}

bool FieldReader::Seed(const char* name, std::uint64_t& out) {
  const Json* value = Find(name);
  if (value == nullptr) return false;
  if (!value->is_number_integer() && !IsWhole(*value)) {
    return Fail(name, "must be a whole number of 64 bits."), false;
  }
  out = value->is_number_unsigned() ? value->get<std::uint64_t>()
                                    : static_cast<std::uint64_t>(value->get<std::int64_t>());
  return true;
}

const Json* FieldReader::Object(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_object()) return Fail(name, "must be an object."), nullptr;
  return value;
}

const Json* FieldReader::Array(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) return Fail(name, "must be an array."), nullptr;
  return value;
}

}  // namespace shoal
