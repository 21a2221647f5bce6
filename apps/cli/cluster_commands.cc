// One request to the node of this SHOAL_HOME each: invite, place, unplace, leave, revoke.
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include <sys/stat.h>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/named_models.h"
#include "apps/cli/status_text.h"
#include "apps/cli/terminal.h"
#include "node/cluster_node.h"

namespace shoal::cli {
namespace {

int Finish(const Status& status, const std::string& done) {
  if (!status.ok()) return Fail(status.error());
  std::printf("%s\n", done.c_str());
  return kExitOk;
}

void PrintInvite(const InviteStatus& invite) {
  if (StdoutIsTerminal()) std::fputs(invite.qr.c_str(), stdout);
  std::printf("\ncode  %s\nlink  %s\n\n", invite.code.c_str(), invite.url.c_str());
  std::printf("On the other device, within %lld minutes:\n  shoal up --join %s\n",
              static_cast<long long>((invite.expires_s + 59) / 60), invite.code.c_str());
  if (!invite.addresses.empty()) {
    std::printf("If it does not find this one by itself: --peer %s\n", invite.addresses.front().c_str());
  }
}

std::vector<std::string> SplitNames(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');) names.push_back(name);
  return names;
}

}  // namespace

std::string ModelForNode(const std::string& model) {
  char* absolute = ::realpath(model.c_str(), nullptr);
  if (absolute == nullptr) return model;
  const std::string path = absolute;
  std::free(absolute);
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? path : model;
}

std::string ControlSocketPath() { return ShoalHome() + "/control.sock"; }

ControlClient NodeHere() { return ControlClient(ControlSocketPath(), Interrupted); }

int RunInvite(bool json) {
  WatchSignals();
  const Result<InviteStatus> invite = NodeHere().Invite();
  if (!invite.ok()) return Fail(invite.error());
  if (json) {
    Json shown = ToJson(*invite);
    shown.erase("qr");
    std::printf("%s\n", DumpJson(shown).c_str());
  } else {
    PrintInvite(*invite);
  }
  return kExitOk;
}

int RunLeave() {
  WatchSignals();
  if (!NodeHere().NodeRuns()) return Finish(LeaveCluster(ShoalHome()), "left the cluster; no node was running");
  return Finish(NodeHere().Leave(), "left the cluster; the node has ended");
}

int RunRevoke(const std::string& node) {
  WatchSignals();
  return Finish(NodeHere().Revoke(node), node + " is no longer a member");
}

int RunPlace(const PlaceOptions& options) {
  WatchSignals();
  const Result<ClusterStatus> status = NodeHere().GetStatus();
  if (!status.ok()) return Fail(status.error());
  const Result<std::string> model = ObtainModel(options.model, &*status, options.json);
  if (!model.ok()) return Fail(model.error());
  const PlaceCommand command{
      ModelForNode(*model), options.stages, SplitNames(options.nodes), options.context, options.slots,
      options.wire,         options.goal,   CopiesOf(options.standby)};
  TransferBar bar(!options.json);
  const Result<PlacementStatus> placed =
      NodeHere().Place(command, [&](const std::vector<NodeStatus>& nodes) { ShowFetching(bar, nodes); });
  if (!placed.ok()) return Fail(placed.error());
  if (options.json) {
    std::printf("%s\n", DumpJson(ToJson(*placed)).c_str());
  } else {
    std::printf("%s: %s\n%s", placed->model.c_str(), placed->state.c_str(), PlacementText(*placed).c_str());
  }
  return kExitOk;
}

int RunUnplace(const std::string& model) {
  WatchSignals();
  return Finish(NodeHere().Unplace(model), model + " is no longer placed");
}

}  // namespace shoal::cli
