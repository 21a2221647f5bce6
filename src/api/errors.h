// Errors as OpenAI's clients know them: an HTTP status and a JSON body {"error": {message, type, param, code}}.
//
// Knows no requests and no sockets: any handler of api/ makes one, server.cc sends it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace shoal {

// Of an answer that nobody reads any more, for the metrics alone; as nginx counts it.
inline constexpr int kClientLeftStatus = 499;
inline constexpr const char* kContextFullCode = "context_length_exceeded";

struct ApiError {
  int status = 500;       // HTTP
  std::string message;    // for a person
  std::string type;       // OpenAI's family, e.g. "invalid_request_error"
  std::string param;      // the field at fault, e.g. "messages[2].content"; empty: none (null in JSON)
  std::string code;       // for programs, e.g. "context_length_exceeded"; empty: none (null in JSON)
  int retry_after_s = 0;  // > 0: a Retry-After header
};

// 400: the request cannot be served as it stands, because of `param`.
ApiError InvalidRequest(std::string message, std::string param = "", std::string code = "");

// An error of the layers below. `param` names the field it is about where that is known.
ApiError FromError(const Error& error, std::string param = "");

// The error that belongs to a bare HTTP status (404, 405, 413, ...), with `message` or a general one.
ApiError FromStatus(int status, std::string message = "");

// {"error":{...}} as JSON text. Bytes of the message that are not UTF-8 become U+FFFD.
std::string ErrorBody(const ApiError& error);

}  // namespace shoal
