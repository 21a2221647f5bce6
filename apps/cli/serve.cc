// `shoal serve`: a model behind the OpenAI API until a signal comes.
#include <chrono>
#include <cstdio>
#include <thread>

#include "api/server.h"
#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/terminal.h"
#include "base/units.h"

namespace shoal::cli {
namespace {

constexpr int kDrainMs = 2000;

bool IsLoopback(const std::string& host) { return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0; }

Result<std::shared_ptr<Node>> OpenNode(const ServeOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(NodeOptions node_options, OpenNodeOptions(options.model));
  node_options.placement.queue_max = options.queue_max;
  LoadProgress progress(!options.model.quiet);
  node_options.placement.on_progress = [&](std::size_t stage, float f) { return progress.Update(stage, f); };
  return Node::Open(node_options);
}

Result<ServerOptions> MakeServerOptions(const ServeOptions& options) {
  ServerOptions server;
  server.host = options.host;
  server.port = options.port;
  server.api_key = options.api_key;
  server.cors_origin = options.cors_origin;
  SHOAL_ASSIGN_OR_RETURN(server.body_bytes_max, ParseBytes(options.body_max));
  server.requests_max = options.requests_max;
  server.connections_max = options.connections_max;
  return server;
}

}  // namespace

int RunServe(const ServeOptions& options) {
  WatchSignals();
  const Result<ServerOptions> server_options = MakeServerOptions(options);
  if (!server_options.ok()) return Fail(server_options.error());
  const Result<std::shared_ptr<Node>> node = OpenNode(options);
  if (!node.ok()) return Fail(node.error());
  const std::unique_ptr<Server> server = Server::Make(*node, *server_options);
  if (const Status started = server->Start(); !started.ok()) return Fail(started.error());

  if (!options.model.quiet) {
    std::fputs(StageTable((*node)->Report()).c_str(), stderr);
    if (options.api_key.empty() && !IsLoopback(options.host)) {
      std::fputs("shoal: anyone who reaches this address can use the model; --api-key asks for a key\n", stderr);
    }
  }
  std::printf("shoal serves %s at http://%s:%d/v1\n", (*node)->model().id.c_str(), options.host.c_str(),
              server->port());
  std::fflush(stdout);
  while (!Interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server->Stop(kDrainMs);
  (*node)->Stop();
  return Terminating() ? kExitOk : kExitInterrupted;
}

}  // namespace shoal::cli
