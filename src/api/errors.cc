// The table from error codes to HTTP statuses and OpenAI's types and codes.
#include "api/errors.h"

#include <nlohmann/json.hpp>

namespace shoal {
namespace {

constexpr int kRetryAfterS = 1;

constexpr const char* kInvalidType = "invalid_request_error";
constexpr const char* kServerType = "server_error";

}  // namespace

ApiError InvalidRequest(std::string message, std::string param, std::string code) {
  return {400, std::move(message), kInvalidType, std::move(param), std::move(code), 0};
}

ApiError FromError(const Error& error, std::string param) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kCorrupt: return InvalidRequest(error.message, std::move(param));
    case ErrorCode::kContextFull: return InvalidRequest(error.message, std::move(param), kContextFullCode);
    case ErrorCode::kNotFound: return {404, error.message, kInvalidType, std::move(param), "not_found", 0};
    case ErrorCode::kOverloaded:
      return {429, error.message, "rate_limit_error", "", "rate_limit_exceeded", kRetryAfterS};
    case ErrorCode::kUnavailable:
    case ErrorCode::kCancelled:
    case ErrorCode::kStale:
    case ErrorCode::kKvFull:
    case ErrorCode::kOutOfMemory: return {503, error.message, kServerType, "", "unavailable", kRetryAfterS};
    case ErrorCode::kIo:
    case ErrorCode::kInternal: break;
  }
  return {500, error.message, kServerType, "", "internal_error", 0};
}

ApiError FromStatus(int status, std::string message) {
  struct Row {
    int status;
    const char* type;
    const char* code;
    const char* message;
  };
  static constexpr Row kRows[] = {
      {400, kInvalidType, "bad_request", "The request is not valid HTTP."},
      {401, kInvalidType, "invalid_api_key", "A valid API key is needed: send Authorization: Bearer <key>."},
      {404, kInvalidType, "not_found", "There is nothing at this address."},
      {405, kInvalidType, "method_not_allowed", "This address does not take this method."},
      {408, kInvalidType, "request_timeout", "The request did not arrive in time."},
      {413, kInvalidType, "request_too_large", "The request body is too large."},
      {414, kInvalidType, "uri_too_long", "The address of the request is too long."},
      {415, kInvalidType, "unsupported_media_type", "Send the body as plain application/json."},
      {416, kInvalidType, "range_not_satisfiable", "Ranges are not served."},
      {431, kInvalidType, "headers_too_large", "The request headers are too large."},
      {503, kServerType, "unavailable", "The server cannot take the request now."},
  };
  for (const Row& row : kRows) {
    if (row.status != status) continue;
    if (message.empty()) message = row.message;
    return {status, std::move(message), row.type, "", row.code, status == 503 ? kRetryAfterS : 0};
  }
  if (message.empty()) message = status < 500 ? "The request cannot be served." : "The server failed to answer.";
  if (status < 500) return {status, std::move(message), kInvalidType, "", "bad_request", 0};
  return {status, std::move(message), kServerType, "", "internal_error", 0};
}

std::string ErrorBody(const ApiError& error) {
  using Json = nlohmann::ordered_json;
  const auto text_or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  const Json body = {{"error",
                      {{"message", error.message},
                       {"type", error.type},
                       {"param", text_or_null(error.param)},
                       {"code", text_or_null(error.code)}}}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace shoal
