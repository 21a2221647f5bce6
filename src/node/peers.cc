// Connections are the network's, addresses the book's; here they meet. Of two connected nodes the one with the lower id
// opens the control stream.
#include "node/peers.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <optional>
#include <utility>

#include "base/log.h"
#include "discovery/own_addresses.h"
#include "identity/keys.h"
#include "node/answer_streams.h"
#include "node/resolve.h"
#include "runtime/ask_loop.h"
#include "runtime/rng.h"
#include "transport/stream_probe.h"

namespace shoal {
namespace {

constexpr std::uint32_t kStreamOpenMs = 3'000;
constexpr DurationUs kReopenUs = 100'000, kReopenFailedUs = 300'000;
constexpr DurationUs kLinkSilentUs = 600'000;  // a control link that says nothing for so long is opened anew
constexpr std::chrono::seconds kListenMax{3};
constexpr std::size_t kDialsKnownMax = 1024;
constexpr DurationUs kMeasureUs = 1'000'000;
constexpr DurationUs kRelaysUs = 30'000'000;
constexpr DurationUs kHostsUs = 2'000'000;

std::string Canonical(const std::string& multiaddr) {
  const Result<Endpoint> endpoint = ParseEndpoint(multiaddr);
  return endpoint.ok() ? EndpointMultiaddr(*endpoint) : multiaddr;
}

std::uint16_t PortOf(const std::string& multiaddr) {
  const Result<Endpoint> endpoint = ParseEndpoint(multiaddr);
  return endpoint.ok() ? endpoint->port : 0;
}

// The network shares its port with whoever shares it too, so that a second node of this machine would get half of the
// first one's connections: asked by a socket that does not share.
bool IsFree(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_PASSIVE;
  addrinfo* address = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &address) != 0) return true;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(address, &freeaddrinfo);
  const int fd = ::socket(address->ai_family, SOCK_STREAM, 0);
  if (fd < 0) return true;  // the network will say why
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // connections of the last run do not count
  if (address->ai_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  const bool listens = ::bind(fd, address->ai_addr, address->ai_addrlen) == 0 && ::listen(fd, 1) == 0;
  const bool taken = !listens && errno == EADDRINUSE;
  ::close(fd);
  return !taken;
}

}  // namespace

Peers::Peers(Loop& loop, BlockingTasks& tasks, PeersOptions options, PeersHandlers handlers)
    : loop_(loop),
      tasks_(tasks),
      options_(std::move(options)),
      handlers_(std::move(handlers)),
      book_(options_.self, RandomSeed()),
      started_(loop.clock().Now()) {}

Result<std::unique_ptr<Peers>> Peers::Start(Loop& loop, BlockingTasks& tasks, PeersOptions options,
                                            PeersHandlers handlers) {
  std::unique_ptr<Peers> peers(new Peers(loop, tasks, std::move(options), std::move(handlers)));
  Peers* self = peers.get();
  SHOAL_ASSIGN_OR_RETURN(peers->network_, Network::Start(peers->options_.network, [self](NetworkEvent event) {
                           self->Heard(std::move(event));
                         }));
  for (const char* protocol : {kControlProtocol, kPipeProtocol, kGenerateProtocol, kKeepProtocol, kAnswerProtocol,
                               kCopyProtocol, kProbeProtocol, kWeightsProtocol}) {
    SHOAL_RETURN_IF_ERROR(peers->network_->Serve(protocol));
  }
  SHOAL_RETURN_IF_ERROR(peers->Listen());
  for (const std::string& given : peers->options_.given) {
    SHOAL_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint(given));
    peers->book_.Learn({}, endpoint, AddressSource::kGiven, loop.clock().Now());
  }
  BeaconOptions beacon = peers->options_.beacon;
  const std::vector<std::string>& hosts = peers->options_.listen;
  beacon.loopback_only = !hosts.empty() && std::all_of(hosts.begin(), hosts.end(), [](const std::string& host) {
    const Result<Endpoint> endpoint = ParseEndpoint(host);
    return endpoint.ok() && IsLoopback(*endpoint);
  });
  {
    const std::lock_guard lock(self->listening_mutex_);
    beacon.port = PortOf(*self->listening_.begin());  // no circuit is asked for yet
  }
  Result<std::unique_ptr<Beacon>> started = Beacon::Start(
      beacon, [self](const Sighting& sighting) { self->loop_.Post([self, sighting] { self->Sighted(sighting); }); });
  if (started.ok()) {
    peers->beacon_ = *std::move(started);
  } else {
    Log(LogLevel::kWarning, "network", "no beacon, others are found by other ways: " + started.error().message);
  }
  return peers;
}

Peers::~Peers() { Stop(); }

void Peers::Stop() {
  if (network_gone_) return;
  std::unique_ptr<Beacon> beacon;  // its end takes a moment
  AskLoop(loop_, [this, &beacon] {
    beacon = std::move(beacon_);
    links_.clear();
    return ended_ = true;
  });
  beacon.reset();
  {
    const std::unique_lock lock(network_use_);
    network_gone_ = true;
    if (network_) network_->Stop(500);
  }
  for (const NetworkEvent& event : early_) {  // it never began
    if (event.kind == NetworkEventKind::kInbound) ::close(event.fd);
  }
  AskLoop(loop_, [] { return true; });  // what the network posted last
}

// One IP version after the other, so that both get the same port.
Status Peers::Listen() {
  std::uint16_t port = options_.port;
  std::vector<std::string> hosts = options_.listen;
  if (hosts.empty()) hosts = {"0.0.0.0", "::"};
  const auto listens = [this] {
    const std::lock_guard lock(listening_mutex_);
    return !listening_.empty();
  };
  Status last;
  const auto try_each = [&] {
    for (const std::string& host : hosts) {
      Status listening = ListenOn(host, port);
      if (!listening.ok()) last = std::move(listening);
      listened_hosts_.insert(host);
    }
  };
  try_each();
  if (listens()) return {};
  if (options_.listen.empty()) {
    is_blind_ = true;
    hosts.clear();
    for (const OwnAddress& own : ListOwnAddresses()) {
      if (!IsLinkLocal({own.kind, own.host, 1})) hosts.push_back(own.host);
    }
    try_each();
    if (listens()) {
      Log(LogLevel::kInfo, "network", "interfaces cannot be watched here: changes of address are noticed later");
      return {};
    }
  }
  return Error{ErrorCode::kUnavailable,
               "there is no address to listen on: " + (last.ok() ? "nothing is up" : last.error().message)};
}

// Addresses that came up since; the port is the one that others know.
void Peers::ListenOnNew() {
  std::uint16_t port = 0;
  {
    const std::lock_guard lock(listening_mutex_);
    for (const std::string& address : listening_) port = std::max(port, PortOf(address));  // circuits have none
  }
  std::set<std::string> hosts;
  for (const OwnAddress& own : ListOwnAddresses()) {
    const Endpoint endpoint{own.kind, own.host, port};
    if (IsLinkLocal(endpoint)) continue;
    hosts.insert(own.host);
    if (!listened_hosts_.contains(own.host)) (void)network_->Listen(EndpointMultiaddr(endpoint));
  }
  listened_hosts_ = std::move(hosts);  // one that went and comes back is new
}

// Tries `port`, then any free one, which becomes `port`.
Status Peers::ListenOn(const std::string& host, std::uint16_t& port) {
  const bool is_v6 = host.find(':') != std::string::npos;
  Status last;
  for (const std::uint16_t attempt : {port, std::uint16_t{0}}) {
    if (attempt != 0 && !IsFree(host, attempt)) continue;
    const std::string address = (is_v6 ? "/ip6/" : "/ip4/") + host + "/tcp/" + std::to_string(attempt);
    std::unique_lock lock(listening_mutex_);
    const std::set<std::string> before = listening_;
    listen_failed_.clear();
    lock.unlock();
    SHOAL_RETURN_IF_ERROR(network_->Listen(address));
    lock.lock();
    listening_changed_.wait_for(lock, kListenMax,
                                [&] { return listening_.size() > before.size() || !listen_failed_.empty(); });
    const auto added = std::find_if(listening_.begin(), listening_.end(),
                                    [&](const std::string& one) { return !before.contains(one); });
    if (added != listening_.end()) {
      port = PortOf(*added);
      return {};
    }
    last = Error{ErrorCode::kUnavailable,
                 address + ": " + (listen_failed_.empty() ? "no answer" : listen_failed_.begin()->second)};
  }
  return last;
}

void Peers::Heard(NetworkEvent event) {
  if (event.kind == NetworkEventKind::kListening || event.kind == NetworkEventKind::kNotListening ||
      event.kind == NetworkEventKind::kListenFailed) {
    const std::lock_guard lock(listening_mutex_);
    if (event.kind == NetworkEventKind::kListening) listening_.insert(Canonical(event.address));
    if (event.kind == NetworkEventKind::kNotListening) listening_.erase(Canonical(event.address));
    if (event.kind == NetworkEventKind::kListenFailed) listen_failed_[event.address] = event.text;
    listening_changed_.notify_all();
  }
  const std::lock_guard lock(early_mutex_);
  if (!begun_) {
    early_.push_back(std::move(event));
  } else {
    Post(std::move(event));
  }
}

void Peers::Post(NetworkEvent event) {
  loop_.Post([this, event = std::move(event)] { Handle(event); });
}

void Peers::Begin() {
  const std::lock_guard lock(early_mutex_);
  begun_ = true;
  for (NetworkEvent& event : std::exchange(early_, {})) Post(std::move(event));
}

void Peers::Handle(const NetworkEvent& event) {
  const TimeUs now = loop_.clock().Now();
  switch (event.kind) {
    case NetworkEventKind::kInbound: return HandleInbound(event);
    case NetworkEventKind::kConnected: return Reached(event);
    case NetworkEventKind::kDisconnected:
      book_.Disconnected(event.peer, now);
      if (beacon_) beacon_->Hurry();
      DropLink(event.peer);
      return Tick(now);
    case NetworkEventKind::kDialFailed:
    case NetworkEventKind::kRefused: {
      if (event.kind == NetworkEventKind::kRefused) {
        const bool ours =
            event.by_peer && (event.reason == RefusalReason::kRevoked || event.reason == RefusalReason::kExpired);
        Log(ours ? LogLevel::kWarning : LogLevel::kInfo, "network",
            event.address + (event.by_peer ? " refuses this node: " : " was refused: ") + event.text +
                (ours ? ". If that is so for all: `shoal leave` here, then join with a new invite" : ""));
      }
      const auto dial = dials_.find(Canonical(event.address));
      if (dial == dials_.end()) return;
      book_.Failed(dial->second, now);
      dials_.erase(dial);
      return;
    }
    case NetworkEventKind::kDiscovered: {
      const Result<Endpoint> endpoint = ParseEndpoint(event.address);
      if (endpoint.ok()) book_.Learn(event.peer, *endpoint, AddressSource::kMdns, now);
      return;
    }
    case NetworkEventKind::kListening:
    case NetworkEventKind::kNotListening:
      if (beacon_) beacon_->Hurry();
      return handlers_.on_addresses();
    case NetworkEventKind::kClone:
      if (event.later) handlers_.on_clone("another device runs with the same key");
      return;
    case NetworkEventKind::kJoined:
    case NetworkEventKind::kInviteClosed: return handlers_.on_invite(event);
    case NetworkEventKind::kNotice: Log(LogLevel::kWarning, "network", event.text); return;
    case NetworkEventKind::kFatal: return handlers_.on_end(event.text);
    case NetworkEventKind::kListenFailed:
      if (event.address.find("/p2p-circuit") != std::string::npos) {
        Log(LogLevel::kWarning, "network",
            event.address +
                " cannot be used (a build without SHOAL_NET_FEATURES=mdns,wan has no relays): " + event.text);
      }
      return;
    case NetworkEventKind::kStreamEnd:
    case NetworkEventKind::kExpired: return;
  }
}

void Peers::HandleInbound(const NetworkEvent& event) {
  if (ended_) {
    ::close(event.fd);
    return;
  }
  if (event.text == kControlProtocol) return AddLink(event.peer, event.fd);
  if (event.text == kProbeProtocol) {
    const bool is_new = probing_us_.insert(event.peer).second;
    const bool started = is_new && tasks_.Run([this, peer = event.peer, fd = event.fd] {
      TakeProbe(fd, LinkMeter::kProbeBytes);
      loop_.Post([this, peer] { probing_us_.erase(peer); });
    });
    if (is_new && !started) probing_us_.erase(event.peer);
    if (!started) ::close(event.fd);
    return;
  }
  handlers_.on_stream(event.peer, event.text, event.fd);
}

void Peers::Sighted(const Sighting& sighting) {
  if (ended_) return;
  if (sighting.kind == Sighting::Kind::kClone) {
    const InstanceAge mine{options_.beacon.instance, loop_.clock().Now() - started_};
    if (GivesWay(mine, sighting.age)) handlers_.on_clone("another device runs with the same key");
    return;
  }
  if (sighting.kind != Sighting::Kind::kMember) return;
  for (const Endpoint& endpoint : sighting.addresses) {
    book_.Learn(sighting.node, endpoint, AddressSource::kBeacon, loop_.clock().Now());
  }
  Tick(loop_.clock().Now());
}

void Peers::Reached(const NetworkEvent& event) {
  const auto dial = dials_.find(Canonical(event.address));
  if (event.dialer && dial != dials_.end()) {
    book_.Succeeded(dial->second, event.peer, std::time(nullptr));
    dials_.erase(dial);
  }
  if (ended_) return;
  handlers_.on_certificate(event.data);
  book_.Connected(event.peer);
  OpenControl(event.peer);
}

void Peers::OpenControl(const NodeId& peer) {
  if (ended_ || peer < options_.self || HasLink(peer) || !book_.IsConnected(peer)) return;
  if (!opening_.insert(peer).second) return;
  const bool started = tasks_.Run([this, peer] {
    const Result<int> fd = OpenStream(peer, kControlProtocol, kStreamOpenMs);
    loop_.Post([this, peer, fd] {
      opening_.erase(peer);
      if (fd.ok() && !ended_) return AddLink(peer, *fd);
      if (fd.ok()) ::close(*fd);
      // Its connection may be one of an address that it no longer has, as in Connect.
      if (!fd.ok() && !ended_ && !HasLink(peer)) book_.Disconnected(peer, loop_.clock().Now());
      loop_.After(kReopenFailedUs, [this, peer] { OpenControl(peer); });
    });
  });
  if (!started) opening_.erase(peer);
}

void Peers::AddLink(const NodeId& peer, int fd) {
  Result<std::unique_ptr<ControlLink>> link = ControlLink::Open(
      loop_, fd,
      ControlLink::Handlers{[this, peer](ClusterMessage message) { handlers_.on_message(peer, std::move(message)); },
                            [this, peer] {
                              DropLink(peer);
                              loop_.After(kReopenUs, [this, peer] { OpenControl(peer); });
                            }});
  if (!link.ok()) {
    Log(LogLevel::kWarning, "cluster", "no link to node " + ShortHex(peer) + ": " + link.error().message);
    DropLink(peer);
    loop_.After(kReopenFailedUs, [this, peer] { OpenControl(peer); });
    return;
  }
  links_[peer] = *std::move(link);
  meter_.LinkUp(peer, loop_.clock().Now());
  handlers_.on_link_up(peer);
}

bool Peers::HasLink(const NodeId& peer) const {
  const auto link = links_.find(peer);
  return link != links_.end() && loop_.clock().Now() - link->second->heard() < kLinkSilentUs;
}

void Peers::DropLink(const NodeId& peer) {
  meter_.LinkDown(peer);
  if (links_.erase(peer) == 1 && !ended_) handlers_.on_link_down(peer);
}

void Peers::Tick(TimeUs now) {
  if (ended_) return;
  for (const Dial& dial : book_.Due(now)) DialNow(dial);
  if (now >= measure_due_) Measure(now);
  if (!options_.relays.empty() && now >= relays_due_) {
    relays_due_ = now + kRelaysUs;
    UseRelays();
  }
  if (is_blind_ && now >= hosts_due_) {
    hosts_due_ = now + kHostsUs;
    ListenOnNew();
  }
}

// Through a relay this node is reached, and reaches, whoever has the same relay and no other way. The network tries to
// make a direct connection of each.
void Peers::UseRelays() {
  for (const std::string& relay : options_.relays) {
    const std::string circuit = relay + "/p2p-circuit";
    bool reserved = false;
    {
      const std::lock_guard lock(listening_mutex_);
      reserved = std::any_of(listening_.begin(), listening_.end(),
                             [&](const std::string& one) { return one.find("/p2p-circuit") != std::string::npos; });
    }
    const Status asked = reserved ? Status() : network_->Listen(circuit);
    if (!asked.ok()) Log(LogLevel::kWarning, "network", asked.error().message);
    for (const NodeId& node : book_.Nodes()) {
      if (!book_.IsConnected(node) && relay.find(PeerIdText(node)) == std::string::npos) {
        (void)network_->Dial(circuit + "/p2p/" + PeerIdText(node));
      }
    }
  }
}

// The network sees best what a link carries, if something keeps it full; what a probe reached is at most that.
void Peers::Measure(TimeUs now) {
  measure_due_ = now + kMeasureUs;
  const auto measured = [&](const NodeId& peer, std::uint64_t bytes_per_s) {
    if (meter_.Measured(peer, bytes_per_s, now)) handlers_.on_throughput(peer, bytes_per_s);
  };
  for (const auto& [peer, bytes_per_s] : network_->bulk_rates()) {
    probed_.erase(peer);
    measured(peer, bytes_per_s);
  }
  for (const auto& [peer, bytes_per_s] : std::exchange(probed_, {})) measured(peer, bytes_per_s);
  if (const std::optional<NodeId> peer = meter_.Due(now)) {
    tasks_.Run([this, peer = *peer] { Probe(peer); });  // or not, when this node does too much at a time
  }
}

void Peers::Probe(const NodeId& peer) {
  const Result<int> fd = OpenStream(peer, kProbeProtocol, kStreamOpenMs, StreamPriority::kBulk);
  if (!fd.ok()) return;
  const std::optional<std::uint64_t> bytes_per_s =
      ProbeStream(*fd, LinkMeter::kProbeBytes, std::chrono::milliseconds(LinkMeter::kProbeMaxUs / 1'000));
  if (bytes_per_s) loop_.Post([this, peer, rate = *bytes_per_s] { probed_[peer] = rate; });
}

void Peers::DialNow(const Dial& dial) {
  if (dial.endpoint.kind == HostKind::kName) {  // resolving blocks
    tasks_.Run([this, dial] {
      Result<std::vector<Endpoint>> found = Resolve(dial.endpoint);
      loop_.Post([this, dial, found = std::move(found)] {
        if (!found.ok()) return book_.Failed(dial, loop_.clock().Now());
        if (ended_) return;
        // The book's time limit sees to what fails at once here.
        for (const Endpoint& endpoint : *found) (void)DialAt(endpoint, dial);
      });
    });
    return;
  }
  if (!DialAt(dial.endpoint, dial).ok()) book_.Failed(dial, loop_.clock().Now());
}

// `endpoint` is an address of the one that `dial` names, or that one itself.
Status Peers::DialAt(const Endpoint& endpoint, const Dial& dial) {
  const std::string address = EndpointMultiaddr(endpoint);
  if (dials_.size() >= kDialsKnownMax) dials_.clear();
  dials_[address] = dial;
  Status asked = network_->Dial(address);
  if (!asked.ok()) dials_.erase(address);
  return asked;
}

void Peers::Send(const NodeId& to, const FrameBytes& frame) {
  const auto link = links_.find(to);
  if (link == links_.end() || link->second->Send(frame)) return;
  Log(LogLevel::kWarning, "network", "node " + ShortHex(to) + " does not read what it is told: its link is closed");
  loop_.Post([this, to] { Disconnect(to); });
}

void Peers::LearnGossip(const NodeId& node, const std::vector<std::string>& addresses, TimeUs now) {
  for (const std::string& address : addresses) {
    const Result<Endpoint> endpoint = ParseEndpoint(address);
    if (endpoint.ok()) book_.Learn(node, *endpoint, AddressSource::kGossiped, now);
  }
}

void Peers::Connect(const NodeId& node, const std::vector<std::string>& addresses, TimeUs now) {
  if (ended_) return;
  LearnGossip(node, addresses, now);
  // Its connection may be one of an address that it no longer has: a new one shows.
  if (links_.contains(node) && !HasLink(node)) book_.Disconnected(node, now);
  if (book_.IsConnected(node)) return OpenControl(node);
  Tick(now);
}

void Peers::Disconnect(const NodeId& node) {
  if (ended_) return;
  (void)network_->Disconnect(node);  // what is not connected need not be
  DropLink(node);
}

std::vector<std::string> Peers::own_addresses() const {
  const std::lock_guard lock(listening_mutex_);
  std::vector<std::string> addresses, loopback;
  for (const std::string& address : listening_) {
    const Result<Endpoint> endpoint = ParseEndpoint(address);
    if (!endpoint.ok() || IsUnspecified(*endpoint) || IsLinkLocal(*endpoint)) continue;
    (IsLoopback(*endpoint) ? loopback : addresses).push_back(address);
  }
  return addresses.empty() ? loopback : addresses;
}

Result<int> Peers::OpenStream(const NodeId& peer, const std::string& protocol, std::uint32_t timeout_ms,
                              StreamPriority priority) {
  const std::shared_lock lock(network_use_);
  if (network_gone_ || !network_) return Error{ErrorCode::kUnavailable, "this node is stopping"};
  return network_->OpenStream(peer, protocol, timeout_ms, priority);
}

}  // namespace shoal
