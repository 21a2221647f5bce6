// The HTTP server: OpenAI's API over a Service, and on a Unix socket also what api/control_server.h offers. Parses and
// formats on its own threads; all model work is the service's.
#pragma once

#include <memory>
#include <string>

#include "api/backend.h"
#include "api/control_service.h"
#include "base/result.h"

namespace shoal {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                // 0: any free port
  std::string unix_socket;        // a path that is served instead of host and port, for its owner only (mode 0600)
  std::string api_key;            // empty: no key asked
  std::string cors_origin = "*";  // Access-Control-Allow-Origin; empty: none
  std::size_t body_bytes_max = 8U << 20;
  int connections_max = 256;       // HTTP threads; one more connection gets 503
  int requests_max = 128;          // generations at once, waiting or running; one more gets 429; where the service has
                                   // no Answers of its own, as keep_grace_ms
  int read_timeout_s = 10;         // a client that sends slower loses its connection
  int stream_comment_ms = 15'000;  // a stream without events for so long gets an SSE comment
  int keep_grace_ms = 60'000;      // how long an answer that is to be kept goes on without a client
};

class Server {
 public:
  // `control`, when given, is served at /control/: on a Unix socket only (CHECK).
  static std::unique_ptr<Server> Make(std::shared_ptr<Service> service, const ServerOptions& options,
                                      std::shared_ptr<ControlService> control = nullptr);
  virtual ~Server() = default;
  // Binds and starts serving in the background.
  // Errors: kUnavailable (address in use, no such host); of unix_socket also as FreeSocketPath.
  virtual Status Start() = 0;
  virtual int port() const = 0;  // 0: a Unix socket
  // No new requests; running ones get `drain_ms` to end, then their connections close. Blocks until all threads are
  // gone. Removes the socket's file.
  virtual void Stop(int drain_ms) = 0;
};

}  // namespace shoal
