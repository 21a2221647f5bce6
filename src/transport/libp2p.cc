// The C border of net/ as C++: a handle with a thread that pulls events.
#include "transport/libp2p.h"

#include <poll.h>
#include <shoal_net.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/thread_name.h"

namespace shoal {
namespace {

static_assert(sizeof(NodeId) == SN_KEY_BYTES);
constexpr std::size_t kBulkRatesMax = 256;  // as many as peers may be connected

ErrorCode CodeOf(std::int64_t status) {
  switch (status) {
    case SN_EINVAL: return ErrorCode::kInvalidArgument;
    case SN_ETIMEOUT:
    case SN_ECLOSED:
    case SN_EIO: return ErrorCode::kUnavailable;
    case SN_EUNSUPPORTED: return ErrorCode::kUnsupported;
    case SN_ESPACE: return ErrorCode::kOverloaded;
    case SN_EFORMAT:
    case SN_EFORGED: return ErrorCode::kCorrupt;
    case SN_EEXPIRED: return ErrorCode::kStale;
    case SN_EREFUSED: return ErrorCode::kInvalidArgument;
    default: return ErrorCode::kInternal;
  }
}

std::string_view TextOf(std::int64_t status) {
  switch (status) {
    case SN_EINVAL: return "an argument is not what it should be";
    case SN_ETIMEOUT: return "no answer in time";
    case SN_ECLOSED: return "not connected";
    case SN_EUNSUPPORTED: return "the other node does not serve this";
    case SN_EIO: return "the network refused";
    case SN_ESPACE: return "too many at once";
    case SN_EFORMAT: return "not in the right form";
    case SN_EFORGED: return "the signature or proof is wrong";
    case SN_EEXPIRED: return "expired";
    case SN_EREFUSED: return "the other side refused";
    default: return "a bug in the network";
  }
}

Error ErrorOf(std::int64_t status, const std::string& what, std::string_view detail = {}) {
  return {CodeOf(status), what + ": " + std::string(detail.empty() ? TextOf(status) : detail)};
}

Status StatusOf(std::int64_t status, const std::string& what) {
  if (status >= 0) return {};
  return ErrorOf(status, what);
}

NodeId NodeOf(const std::uint8_t* key) {
  NodeId id;
  std::copy_n(key, id.bytes.size(), id.bytes.begin());
  return id;
}

NetworkEvent Convert(const sn_event& event) {
  static_assert(SN_EVENT_LISTENING == 1 && SN_EVENT_FATAL == static_cast<int>(NetworkEventKind::kFatal) + 1);
  NetworkEvent out;
  out.kind = static_cast<NetworkEventKind>(event.kind - 1);
  out.peer = NodeOf(event.peer);
  out.address = event.address;
  out.text = event.text;
  out.data.assign(event.data, event.data + event.data_len);
  out.fd = event.fd;
  out.stream = event.id;
  out.dialer = event.dialer != 0;
  out.lost = event.lost != 0;
  out.by_peer = event.by_peer != 0;
  out.later = event.later != 0;
  out.reason = static_cast<RefusalReason>(event.reason);
  return out;
}

}  // namespace

struct Network::State {
  sn_node* node = nullptr;
  Handler handler;
  int wake[2] = {-1, -1};  // a byte here ends the event thread
  std::thread events;

  void PullEvents() {
    pollfd fds[2] = {{sn_event_fd(node), POLLIN, 0}, {wake[0], POLLIN, 0}};
    while (true) {
      if (poll(fds, 2, -1) < 0) {
        SHOAL_CHECK(errno == EINTR);
        continue;
      }
      if (fds[1].revents != 0) return;
      sn_event event;
      while (sn_next_event(node, &event) == 1) handler(Convert(event));
    }
  }
};

Network::Network(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Network>> Network::Start(const NetworkOptions& options, Handler handler) {
  if (options.seed.size() != SN_KEY_BYTES) {
    return Error{ErrorCode::kInvalidArgument, "the node's key must have 32 bytes"};
  }
  auto state = std::make_unique<State>();
  state->handler = std::move(handler);
  sn_config config{};
  config.seed = options.seed.data();
  config.cluster = options.cluster.bytes.data();
  config.certificate = options.certificate.data();
  config.certificate_len = options.certificate.size();
  config.agent = options.agent.c_str();
  config.instance = options.instance;
  if (options.mdns) config.flags |= SN_FLAG_MDNS;
  if (options.relay) config.flags |= SN_FLAG_RELAY;
  if (pipe(state->wake) != 0) return Error{ErrorCode::kIo, "no pipe can be made: too many open files"};
  char error[SN_ERROR_CAP] = "";
  if (const int status = sn_start(&config, &state->node, error, sizeof error); status != SN_OK) {
    for (const int fd : state->wake) close(fd);
    return ErrorOf(status, "the network cannot start", error);
  }
  state->events = std::thread([s = state.get()] {
    NameThisThread("shoal-net-event");
    s->PullEvents();
  });
  return std::unique_ptr<Network>(new Network(std::move(state)));
}

Network::~Network() { Stop(1000); }

void Network::Stop(std::uint32_t deadline_ms) {
  State& s = *state_;
  if (s.node == nullptr) return;
  const char byte = 0;
  SHOAL_CHECK(write(s.wake[1], &byte, 1) == 1);
  s.events.join();
  // Streams that nobody took are closed here, so that the peer sees their end.
  sn_event event;
  while (sn_next_event(s.node, &event) == 1) {
    if (event.fd >= 0) close(event.fd);
  }
  sn_stop(std::exchange(s.node, nullptr), deadline_ms);
  for (const int fd : s.wake) close(fd);
}

Status Network::Listen(const std::string& multiaddr) {
  return StatusOf(sn_listen(state_->node, multiaddr.c_str()), "cannot listen on " + multiaddr);
}

Status Network::Dial(const std::string& multiaddr) {
  return StatusOf(sn_dial(state_->node, multiaddr.c_str()), "cannot dial " + multiaddr);
}

Status Network::Disconnect(const NodeId& peer) {
  return StatusOf(sn_disconnect(state_->node, peer.bytes.data()), "cannot disconnect");
}

Status Network::Serve(const std::string& protocol) {
  return StatusOf(sn_serve(state_->node, protocol.c_str()), "cannot serve " + protocol);
}

Result<int> Network::OpenStream(const NodeId& peer, const std::string& protocol, std::uint32_t timeout_ms,
                                StreamPriority priority) {
  static_assert(static_cast<std::uint32_t>(StreamPriority::kBulk) == SN_PRIORITY_BULK);
  char error[SN_ERROR_CAP] = "";
  std::uint64_t id = 0;
  const int fd = sn_open(state_->node, peer.bytes.data(), protocol.c_str(), static_cast<std::uint32_t>(priority),
                         timeout_ms, &id, error, sizeof error);
  if (fd < 0) return ErrorOf(fd, "no stream to node " + ShortHex(peer), error);
  return fd;
}

Status Network::Revoke(const std::vector<std::uint8_t>& revocation) {
  return StatusOf(sn_revoke(state_->node, revocation.data(), revocation.size()), "the revocation is not taken");
}

Status Network::SetCertificate(const std::vector<std::uint8_t>& certificate) {
  return StatusOf(sn_set_certificate(state_->node, certificate.data(), certificate.size()),
                  "the certificate is not taken");
}

Result<std::int64_t> Network::OpenInvite(const InviteOptions& options) {
  if (options.cluster_seed.size() != SN_KEY_BYTES) {
    return Error{ErrorCode::kInvalidArgument, "the cluster's key must have 32 bytes"};
  }
  sn_invite invite{};
  invite.cluster_seed = options.cluster_seed.data();
  invite.secret = options.secret.data();
  invite.secret_len = options.secret.size();
  invite.valid_ms = options.valid_ms;
  invite.serial = options.serial;
  invite.expires_s = options.expires_s;
  invite.extras = options.extras.data();
  invite.extras_len = options.extras.size();
  const std::int64_t id = sn_invite_open(state_->node, &invite);
  if (id < 0) return ErrorOf(id, "the invite cannot be opened");
  return id;
}

void Network::CloseInvite(std::int64_t id) { sn_invite_close(state_->node, id); }

NetworkStats Network::stats() const {
  sn_stats stats{};
  SHOAL_CHECK(sn_get_stats(state_->node, &stats) == SN_OK);
  NetworkStats out;
  out.bytes_sent = stats.bytes_sent;
  out.bytes_received = stats.bytes_received;
  out.cpu_ns = stats.cpu_ns;
  out.events_dropped = stats.events_dropped;
  out.refused_inbound = stats.refused_inbound;
  out.connections = stats.connections;
  out.bulk_connections = stats.bulk_connections;
  out.pending_inbound = stats.pending_inbound;
  out.streams = stats.streams;
  return out;
}

std::vector<std::pair<NodeId, std::uint64_t>> Network::bulk_rates() const {
  std::vector<sn_bulk_rate> rates(kBulkRatesMax);
  const std::int64_t count = sn_bulk_rates(state_->node, rates.data(), rates.size());
  SHOAL_CHECK(count >= 0);
  rates.resize(static_cast<std::size_t>(count));
  std::vector<std::pair<NodeId, std::uint64_t>> out;
  for (const sn_bulk_rate& rate : rates) out.emplace_back(NodeOf(rate.peer), rate.bytes_per_s);
  return out;
}

Result<JoinGrant> Network::Join(const std::vector<std::uint8_t>& seed, const std::string& name,
                                const std::string& multiaddr, const std::vector<std::uint8_t>& secret,
                                std::uint32_t timeout_ms, RefusalReason* reason) {
  if (seed.size() != SN_KEY_BYTES) return Error{ErrorCode::kInvalidArgument, "the node's key must have 32 bytes"};
  auto grant = std::make_unique<sn_grant>();
  char error[SN_ERROR_CAP] = "";
  std::uint8_t refused = SN_REASON_NONE;
  const int status = sn_join(seed.data(), name.c_str(), multiaddr.c_str(), secret.data(), secret.size(), timeout_ms,
                             grant.get(), &refused, error, sizeof error);
  if (reason != nullptr) *reason = static_cast<RefusalReason>(refused);
  if (status != SN_OK) return ErrorOf(status, "joining by " + multiaddr + " failed", error);
  JoinGrant out;
  out.cluster = NodeOf(grant->cluster);
  out.inviter = NodeOf(grant->inviter);
  out.certificate.assign(grant->certificate, grant->certificate + grant->certificate_len);
  out.extras.assign(grant->extras, grant->extras + grant->extras_len);
  return out;
}

}  // namespace shoal
