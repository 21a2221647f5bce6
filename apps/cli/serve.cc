// `shoal serve`: a model behind the OpenAI API until a signal comes.
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "api/server.h"
#include "apps/cli/api_url.h"
#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "node/kernel_keeper.h"

namespace shoal::cli {
namespace {

constexpr int kDrainMs = 2000;

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

// Finds out meanwhile with which kernels and threads the next start is the fastest (node/kernel_keeper.h).
class KernelWatch {
 public:
  KernelWatch(Node& node, const ServeOptions& options) : node_(node), keeper_(tasks_, OptionsOf(options)) {}

  void Look() {
    if (++looks_ % kLooksApart != 0) return;
    const ScheduleStats stats = node_.Stats();
    const std::uint64_t done = stats.tokens_prefilled + stats.tokens_decoded;
    const bool busy = stats.running > 0 || stats.waiting > 0 || done != std::exchange(done_, done);
    keeper_.Tick(clock_.Now(), busy, {node_.model_info().quantization});
  }

 private:
  static constexpr int kLooksApart = 4;
  static KernelKeeperOptions OptionsOf(const ServeOptions& options) {
    KernelKeeperOptions kernels;
    kernels.home = ShoalHome();
    kernels.known = LoadKernelChoices(kernels.home, ReadDeviceProfile(SystemFiles(), nullptr));
    kernels.may_measure = options.speed_test != "off" && options.model.stages == "1";
    kernels.threads = options.model.threads;
    return kernels;
  }

  Node& node_;
  const RealClock clock_;
  BlockingTasks tasks_{1};
  KernelKeeper keeper_;
  int looks_ = 0;
  std::uint64_t done_ = 0;
};

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
  const std::string url = ApiUrl(options.host, server->port());
  std::printf("shoal serves %s at %s\n", (*node)->model().id.c_str(), url.c_str());
  std::fflush(stdout);
  {
    KernelWatch kernels(**node, options);
    while (!Interrupted()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      kernels.Look();
    }
  }
  server->Stop(kDrainMs);
  (*node)->Stop();
  return Terminating() ? kExitOk : kExitInterrupted;
}

}  // namespace shoal::cli
