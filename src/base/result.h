// Errors that the world causes: a value or an Error, never an exception.
//
// A bug of ours is a CHECK (base/check.h). Bytes from a peer, a file or a client end here instead.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace shoal {

// A code exists only where some caller reacts to it.
enum class ErrorCode {
  kInvalidArgument,  // the caller's request cannot be served as it stands
  kNotFound,         // a file, tensor, model or sequence is absent
  kCorrupt,          // bytes that break their format
  kUnsupported,      // valid, but not something this build or architecture does
  kOutOfMemory,      // would exceed a stated memory limit
  kKvFull,           // no room left in a KV cache
  kContextFull,      // a prompt does not fit the context window
  kOverloaded,       // a bounded queue is full; try again later
  kCancelled,        // the caller asked to stop
  kStale,            // from an older epoch
  kUnavailable,      // a peer, stage or file cannot be reached now
  kIo,               // the operating system refused a read or write
  kInternal,         // a library failed in a way we do not understand
};

std::string_view ErrorCodeName(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // for a person: what went wrong and what to do
};

template <typename T = void>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // Precondition: ok(). From a temporary the value itself comes out, so that `for (x : *F())` does not dangle.
  T& value() & {
    SHOAL_CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    SHOAL_CHECK(ok());
    return std::get<0>(state_);
  }
  T value() && {
    SHOAL_CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // Precondition: !ok().
  const Error& error() const& {
    SHOAL_CHECK(!ok());
    return std::get<1>(state_);
  }
  Error&& error() && {
    SHOAL_CHECK(!ok());
    return std::get<1>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const& {
    SHOAL_CHECK(!ok());
    return *error_;
  }
  Error&& error() && {
    SHOAL_CHECK(!ok());
    return *std::move(error_);
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace shoal

#define SHOAL_CONCAT_INNER(a, b) a##b
#define SHOAL_CONCAT(a, b) SHOAL_CONCAT_INNER(a, b)

// Returns the error of a Status or Result from the enclosing function, if it has one.
#define SHOAL_RETURN_IF_ERROR(expression)                           \
  do {                                                              \
    auto shoal_status = (expression);                               \
    if (!shoal_status.ok()) return std::move(shoal_status).error(); \
  } while (false)

// SHOAL_ASSIGN_OR_RETURN(auto x, F()): x is F()'s value, or F()'s error is returned.
#define SHOAL_ASSIGN_OR_RETURN(declaration, expression) \
  SHOAL_ASSIGN_OR_RETURN_IMPL(SHOAL_CONCAT(shoal_result_, __LINE__), declaration, expression)
#define SHOAL_ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                        \
  if (!result.ok()) return std::move(result).error();                \
  declaration = std::move(result).value()
