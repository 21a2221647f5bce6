// The network side of a node of a cluster: whom to dial, who is connected, the control link to each, streams for
// others.
//
// Turns discovery and connections into what the cluster wants to know: a control link to a member is up, said this, is
// down. Knows no placements. On the loop, but where it says otherwise.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cluster/messages.h"
#include "discovery/address_book.h"
#include "discovery/beacon.h"
#include "node/control_link.h"
#include "node/link_meter.h"
#include "runtime/blocking_tasks.h"
#include "runtime/loop.h"
#include "transport/libp2p.h"
#include "transport/stream_link.h"

namespace shoal {

inline constexpr char kControlProtocol[] = "/shoal/control/1";
inline constexpr char kPipeProtocol[] = "/shoal/pipe/1";
inline constexpr char kGenerateProtocol[] = "/shoal/generate/1";
inline constexpr char kCopyProtocol[] = "/shoal/copy/1";    // bulk: what copies of stages are told
inline constexpr char kProbeProtocol[] = "/shoal/probe/1";  // bulk: bytes that mean nothing, to see how fast they go
inline constexpr char kWeightsProtocol[] = "/shoal/weights/1";

struct PeersHandlers {  // on the loop
  std::function<void(const NodeId&)> on_link_up, on_link_down;
  std::function<void(const NodeId&, ClusterMessage)> on_message;
  // A stream of another protocol that a member opened.
  std::function<void(const NodeId&, const std::string& protocol, int fd)> on_stream;
  std::function<void(const NetworkEvent&)> on_invite;                    // kJoined, kInviteClosed
  std::function<void(const std::vector<std::uint8_t>&)> on_certificate;  // of a member that connected; it is sound
  std::function<void(const std::string& why)> on_clone;                  // this node has to give way to its clone
  std::function<void(const std::string& why)> on_end;                    // the network does nothing any more
  std::function<void()> on_addresses;                                    // own_addresses() changed
  // The link to it was seen to carry so much.
  std::function<void(const NodeId&, std::uint64_t bytes_per_s)> on_throughput;
};

struct PeersOptions {
  NetworkOptions network;
  NodeId self;
  std::vector<std::string> listen;  // IP addresses; empty: all of this machine
  std::uint16_t port = 0;           // another one when taken
  BeaconOptions beacon;             // ports are filled in
  std::vector<std::string> given;   // addresses that a person named
  std::vector<std::string> relays;  // multiaddrs, with /p2p/, of members that this node and others are reached through
};

class Peers {
 public:
  // Not on the loop; blocks until it listens. What is heard waits for Begin().
  // Errors: as Network::Start; kUnavailable (no address to listen on).
  static Result<std::unique_ptr<Peers>> Start(Loop& loop, BlockingTasks& tasks, PeersOptions options,
                                              PeersHandlers handlers);
  ~Peers();  // Stop()

  // On the loop, once: from here on handlers are called, for what was heard since Start first.
  void Begin();

  // Ends all links and streams. Not on the loop, which must still run; nothing else may be called after. Idempotent.
  void Stop();

  void Tick(TimeUs now);                                 // dials what is due
  void Send(const NodeId& to, const FrameBytes& frame);  // nothing happens without a link
  // Dials, and opens the control link where a connection is up; also beside a link that says nothing.
  void Connect(const NodeId& node, const std::vector<std::string>& addresses, TimeUs now);
  void Disconnect(const NodeId& node);
  void Forget(const NodeId& node) { book_.Forget(node); }
  void LearnGossip(const NodeId& node, const std::vector<std::string>& addresses, TimeUs now);
  AddressBook& book() { return book_; }
  std::vector<std::string> own_addresses() const;  // multiaddrs, without loopback unless there is nothing else

  // Any thread. As Network::OpenStream.
  Result<int> OpenStream(const NodeId& peer, const std::string& protocol, std::uint32_t timeout_ms,
                         StreamPriority priority = StreamPriority::kActivations);
  Network& network() { return *network_; }
  Beacon* beacon() { return beacon_.get(); }

 private:
  Peers(Loop& loop, BlockingTasks& tasks, PeersOptions options, PeersHandlers handlers);
  Status Listen();
  Status ListenOn(const std::string& host, std::uint16_t& port);
  void ListenOnNew();
  void UseRelays();
  void Heard(NetworkEvent event);  // the network's thread
  void Post(NetworkEvent event);
  void Handle(const NetworkEvent& event);
  void HandleInbound(const NetworkEvent& event);
  void Sighted(const Sighting& sighting);
  void Reached(const NetworkEvent& event);
  void OpenControl(const NodeId& peer);
  void AddLink(const NodeId& peer, int fd);
  void DropLink(const NodeId& peer);
  void Measure(TimeUs now);
  void Probe(const NodeId& peer);          // blocks
  bool HasLink(const NodeId& peer) const;  // one that says something
  void DialNow(const Dial& dial);
  Status DialAt(const Endpoint& endpoint, const Dial& dial);

  Loop& loop_;
  BlockingTasks& tasks_;
  const PeersOptions options_;
  const PeersHandlers handlers_;
  AddressBook book_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Beacon> beacon_;
  // Where the network may not watch interfaces: it listens on addresses that are looked for from time to time.
  bool is_blind_ = false;
  std::set<std::string> listened_hosts_;
  TimeUs hosts_due_ = 0;
  LinkMeter meter_;
  TimeUs measure_due_ = 0, relays_due_ = 0;
  std::set<NodeId> probing_us_;             // whose probe is being taken
  std::map<NodeId, std::uint64_t> probed_;  // bytes a second that a probe reached since the last Measure
  std::set<NodeId> opening_;
  std::map<NodeId, std::unique_ptr<ControlLink>> links_;
  std::map<std::string, Dial> dials_;  // by the multiaddr dialled
  bool ended_ = false;                 // loop: nothing is begun any more
  TimeUs started_ = 0;

  std::shared_mutex network_use_;  // held for writing while the network stops
  bool network_gone_ = false;

  std::mutex early_mutex_;
  bool begun_ = false;               // guarded by early_mutex_
  std::vector<NetworkEvent> early_;  // guarded by early_mutex_: heard before Begin()

  mutable std::mutex listening_mutex_;
  std::condition_variable listening_changed_;
  std::set<std::string> listening_;                   // guarded by listening_mutex_
  std::map<std::string, std::string> listen_failed_;  // guarded by listening_mutex_
};

}  // namespace shoal
