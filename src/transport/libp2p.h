// Authenticated, encrypted streams to the other members of a cluster: libp2p (TCP, Noise, yamux) behind net/.
//
// Only members get in: certificates are exchanged inside the connection's handshake, and who has none, or one that is
// forged, expired or revoked, is refused before any protocol is spoken. One Network is one libp2p node with one port.
// Streams of StreamPriority::kBulk have a connection of their own to each peer, behind the same gate, so that a large
// transfer never delays control and activations. Knows no frames (transport/stream_link.h) and not whom to dial
// (discovery/).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace shoal {

struct NetworkOptions {
  std::vector<std::uint8_t> seed;         // 32 bytes: the node's Ed25519 key
  NodeId cluster;                         // the cluster's public key
  std::vector<std::uint8_t> certificate;  // shown to every peer; empty: nobody lets us in
  std::string agent = "shoal";
  std::uint64_t instance = 0;  // random, the same for the networks of one process: tells a clone of our key
  bool mdns = false;
  bool relay = false;  // members may reach each other through this node; needs SHOAL_NET_FEATURES=mdns,wan
};

enum class NetworkEventKind {
  kListening,     // address
  kListenFailed,  // address, text
  kNotListening,  // address
  kConnected,     // peer, address, dialer, data: its certificate. Each connection, also beside others
  kDisconnected,  // peer, text
  kDialFailed,    // address, text
  kRefused,       // peer, address, dialer, by_peer, reason, text
  kClone,         // address, later: someone else is alive with our key; we started later
  kInbound,       // peer, text: protocol, fd (the receiver's to close), stream
  kStreamEnd,     // peer, stream, lost
  kDiscovered,    // peer, address: mDNS saw it; unauthenticated
  kExpired,       // peer, address: mDNS no longer does
  kJoined,        // peer, stream: the invite's id, data: the certificate issued
  kInviteClosed,  // stream: the invite's id, text
  kNotice,        // text: something people should know
  kFatal,         // text: the network does nothing any more
};

// SN_REASON_* of net/include/shoal_net.h.
enum class RefusalReason : std::uint8_t {
  kNone = 0,
  kNoCertificate = 1,
  kForged = 2,
  kOtherCluster = 3,
  kExpired = 4,
  kRevoked = 5,
  kJoinClosed = 6,
  kJoinWrong = 7,
  kMalformed = 8,
  kSelf = 9,
  kJoinUnproved = 10,
};

struct NetworkEvent {
  NetworkEventKind kind = NetworkEventKind::kFatal;
  NodeId peer;
  std::string address;  // multiaddr
  std::string text;
  std::vector<std::uint8_t> data;
  int fd = -1;
  std::uint64_t stream = 0;
  bool dialer = false, lost = false, by_peer = false, later = false;
  RefusalReason reason = RefusalReason::kNone;
};

struct NetworkStats {
  std::uint64_t bytes_sent = 0, bytes_received = 0;  // on TCP, encryption and all
  std::uint64_t cpu_ns = 0;                          // of the network thread
  std::uint64_t events_dropped = 0, refused_inbound = 0;
  std::uint32_t connections = 0;       // peers that are connected
  std::uint32_t bulk_connections = 0;  // second connections to them
  std::uint32_t pending_inbound = 0, streams = 0;
};

struct InviteOptions {
  std::vector<std::uint8_t> cluster_seed;  // 32 bytes: the signing key
  std::vector<std::uint8_t> secret;        // 10 to 64 bytes
  std::uint32_t valid_ms = 600'000;
  std::uint64_t serial = 1;
  std::int64_t expires_s = 0;        // of the certificate, Unix seconds
  std::vector<std::uint8_t> extras;  // sealed for the joiner; at most 480 bytes
};

struct JoinGrant {
  NodeId cluster, inviter;
  std::vector<std::uint8_t> certificate, extras;
};

enum class StreamPriority : std::uint32_t {
  kActivations = 0,  // control, activations, tokens: small and urgent
  kBulk = 1,         // layers: as much as the link carries; on a connection of its own
};

class Network {
 public:
  // On the network's event thread, one at a time; must not block for long and must not destroy the Network.
  using Handler = std::function<void(NetworkEvent)>;

  // Errors: kInvalidArgument, kIo.
  static Result<std::unique_ptr<Network>> Start(const NetworkOptions& options, Handler handler);
  ~Network();  // Stop(1000)
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // Sends what streams still hold, closes connections, joins the threads: at most `deadline_ms` and half a second.
  // Nobody may use the Network meanwhile or after. Idempotent.
  void Stop(std::uint32_t deadline_ms);

  // All below: any thread. The answer to these three is an event. Errors: kInvalidArgument (no multiaddr of TCP),
  // kOverloaded, kUnavailable (stopped).
  Status Listen(const std::string& multiaddr);
  Status Dial(const std::string& multiaddr);
  Status Disconnect(const NodeId& peer);

  // Lets peers open streams of `protocol`: kInbound. Errors: kInvalidArgument (also: served already).
  Status Serve(const std::string& protocol);
  // A stream to a connected peer, as a blocking socket that the caller closes: a peer that does not read blocks
  // writing after a few MiB. Blocks for a round trip, at most `timeout_ms`. The first kBulk stream to a peer takes a
  // few more: its connection is made then, by the port that is known already, and closed a minute after the last one.
  // Where none can be made within 3 s, the stream shares the first connection. At the peer all come alike as kInbound.
  // Errors: kUnavailable (not connected, lost, timeout), kUnsupported (the peer does not serve it).
  Result<int> OpenStream(const NodeId& peer, const std::string& protocol, std::uint32_t timeout_ms,
                         StreamPriority priority = StreamPriority::kActivations);

  // Errors: kCorrupt (not a revocation of our cluster), kOverloaded.
  Status Revoke(const std::vector<std::uint8_t>& revocation);
  Status SetCertificate(const std::vector<std::uint8_t>& certificate);
  // Lets one joiner in that proves the secret. The invite's id. Errors: kInvalidArgument, kOverloaded.
  Result<std::int64_t> OpenInvite(const InviteOptions& options);
  void CloseInvite(std::int64_t id);
  NetworkStats stats() const;
  // What bulk streams to a peer delivered at best in the last two seconds of sending, bytes a second: what the link
  // carries, if it was asked for that much. Of peers with a bulk connection of which it is known.
  std::vector<std::pair<NodeId, std::uint64_t>> bulk_rates() const;

  // Joins a cluster without being a node of it: dials an inviter, proves the secret, checks its proof. Blocks.
  // Errors: kUnavailable (nobody there, timeout), kInvalidArgument (refused: the code is wrong, or no invite is open),
  // kCorrupt (the other side does not know the code). Who was refused finds in `reason` why.
  static Result<JoinGrant> Join(const std::vector<std::uint8_t>& seed, const std::string& name,
                                const std::string& multiaddr, const std::vector<std::uint8_t>& secret,
                                std::uint32_t timeout_ms, RefusalReason* reason = nullptr);

 private:
  struct State;
  explicit Network(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
