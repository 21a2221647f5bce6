// `shoal up` and `shoal join`: a node of a cluster in the foreground, and how a device gets its certificate.
#include <poll.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <optional>

#include "api/server.h"
#include "apps/cli/api_url.h"
#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/log_file.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "device/cpu_affinity.h"
#include "device/profile.h"
#include "node/cluster_node.h"
#include "node/core_choice.h"

namespace shoal::cli {
namespace {

constexpr std::chrono::seconds kDepartMax{10};  // for this node's layers to move to others
constexpr int kLookMs = 250;                    // whether this node has ended
constexpr int kAnewPauseMs = 100;
constexpr int kDrainMs = 800;  // of either server; with the node's own end, within three seconds

Result<ClusterNodeOptions> MakeOptions(const UpOptions& options) {
  ClusterNodeOptions node;
  for (const std::string& relay : options.relays) {
    if (relay.starts_with('/') && relay.find("/p2p/") != std::string::npos) continue;
    return Error{ErrorCode::kInvalidArgument, "--relay " + relay + ": give /ip4/A.B.C.D/tcp/PORT/p2p/ID of a member"};
  }
  node.home = ShoalHome();
  node.name = options.name;
  node.listen = options.listen;
  node.peers = options.peers;
  node.relays = options.relays;
  node.serve_relay = options.serve_relay;
  node.model_dirs = options.model_dirs;
  node.net_port = static_cast<std::uint16_t>(options.net_port);
  node.mdns = !options.no_mdns;
  node.join_code = options.join_code;
  node.threads = options.threads;
  node.kernels = UseChosenKernels("");
  node.drafts = options.drafts != "off";
  node.measure_speed = options.speed_test != "off";
  node.waiting_cpus = WaitingCpus(ReadDeviceProfile(SystemFiles(), nullptr));
  SHOAL_ASSIGN_OR_RETURN(node.device, ParseDeviceChoice(options.device));
  node.device.layers = options.device_layers;
  node.power = {options.pacing != "off", options.battery_floor, options.heat_drain != "off", options.system_root,
                node.home + "/pacing"};
  if (!options.memory.empty()) { SHOAL_ASSIGN_OR_RETURN(node.memory_bytes_max, ParseBytes(options.memory)); }
  if (!options.store.empty()) { SHOAL_ASSIGN_OR_RETURN(node.store_bytes_max, ParseBytes(options.store)); }
  return node;
}

// One line that scripts may wait for: "ready name=… id=… api=… cluster=…".
void PrintReady(ClusterNode& node, const std::string& url, const UpOptions& options) {
  const ClusterStatus status = node.cluster_status();
  std::string name;
  bool owner = false;
  for (const NodeStatus& n : status.nodes) {
    if (!n.self) continue;
    name = n.name;
    owner = n.owner;
  }
  std::fprintf(stderr, "ready name=%s id=%s api=%s cluster=%s\n", name.c_str(), status.self.c_str(), url.c_str(),
               status.cluster.c_str());
  if (options.quiet) return;
  if (owner && status.nodes.size() == 1) { std::fputs("To bring in another device: shoal invite\n", stderr); }
  if (options.api_key.empty() && !IsLoopback(options.host)) {
    std::fputs("shoal: anyone who reaches this address can use the models; --api-key asks for a key\n", stderr);
  }
}

int Serve(const std::shared_ptr<ClusterNode>& node, const UpOptions& options, const std::vector<int>& waiting_cpus,
          LogFile* log) {
  ServerOptions api, control;
  api.host = options.host;
  api.port = options.port;
  api.api_key = options.api_key;
  control.unix_socket = ControlSocketPath();
  control.cors_origin.clear();
  const std::unique_ptr<Server> api_server = Server::Make(node, api);
  const std::unique_ptr<Server> control_server = Server::Make(node, control, node);
  {
    const PlacedWhile placed(waiting_cpus);  // all threads of HTTP
    if (const Status started = api_server->Start(); !started.ok()) return Fail(started.error());
    if (const Status started = control_server->Start(); !started.ok()) return Fail(started.error());
  }
  const std::string url = ApiUrl(options.host, api_server->port());
  node->SetApiUrl(url);
  PrintReady(*node, url, options);
  while (!Interrupted() && !node->Ended()) {
    if (log != nullptr) log->RotateIfLarge();
    (void)::poll(nullptr, 0, kLookMs);  // a signal ends it
  }
  if (!node->Ended()) node->Depart(kDepartMax);  // Ctrl-C, as a second signal, ends it at once
  control_server->Stop(kDrainMs);                // whoever asked to leave gets the answer
  api_server->Stop(kDrainMs);
  return kExitOk;
}

}  // namespace

int RunUp(const UpOptions& options) {
  WatchSignals();
  if (!options.join_code.empty() && NodeHere().NodeRuns()) {
    return RunJoin({options.join_code, options.name, options.peers});
  }
  std::optional<LogFile> log;
  if (!options.log_file.empty()) {
    Result<LogFile> opened = LogFile::Open(options.log_file);
    if (!opened.ok()) return Fail(opened.error());
    log = std::move(*opened);
  }
  Result<ClusterNodeOptions> node_options = MakeOptions(options);
  if (!node_options.ok()) return Fail(node_options.error());
  for (;;) {
    const Result<std::shared_ptr<ClusterNode>> node = ClusterNode::Open(*node_options);
    if (!node.ok()) return Fail(node.error());
    const int code = Serve(*node, options, node_options->waiting_cpus, log ? &*log : nullptr);
    (*node)->Stop();
    if (Interrupted() || !(*node)->StartsAnew()) return code;
    (void)::poll(nullptr, 0, kAnewPauseMs);  // what ends it must not end it a thousand times a second
    node_options->join_code.clear();         // it is a member already
  }
}

int RunJoin(const JoinOptions& options) {
  WatchSignals();
  const ControlClient node = NodeHere();
  const bool runs = node.NodeRuns();
  const Status joined = runs ? node.Join({options.code, options.name, options.peers})
                             : JoinCluster(ShoalHome(), options.name, options.code, options.peers);
  if (!joined.ok()) return Fail(joined.error());
  std::puts(runs ? "joined; the node that runs here starts anew as a member" : "joined; `shoal up` starts the node");
  return kExitOk;
}

}  // namespace shoal::cli
