// What a handler of the API gives back, and what it sees of its client. Knows no dialect and no sockets.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "api/errors.h"

namespace shoal {

// The client's side of a request.
struct ClientLink {
  std::function<bool()> gone;  // it left, or the server stops: true for good once true
};

// Where a streamed answer goes. One thread.
class EventSink {
 public:
  virtual ~EventSink() = default;
  // False when the client is gone. Blocks while the client does not read, up to the write timeout.
  virtual bool Write(std::string_view bytes) = 0;
};

// An answer: a body at once, or a stream written by a function that runs on the connection's thread.
struct Reply {
  int status = 200;
  std::string body;
  int retry_after_s = 0;
  std::function<void(EventSink&)> stream;  // text/event-stream, when set
};

inline Reply ErrorReply(const ApiError& error) {
  return {error.status, ErrorBody(error), error.retry_after_s, nullptr};
}

}  // namespace shoal
