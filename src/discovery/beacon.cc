// The thread of the beacon: sends when it is time, opens what arrives, lets the filter judge, answers, reports.
#include "discovery/beacon.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/thread_name.h"
#include "discovery/beacon_filter.h"
#include "discovery/beacon_packet.h"
#include "discovery/beacon_sockets.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr int kPacketsAtOnceMax = 64;  // looked at before it is checked again whether to send or stop
constexpr int kDeafMs = 20;            // how long a flooded beacon leaves packets to the system
constexpr double kIntervalGrowth = 1.5;

std::int64_t UnixMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

// What other threads set and the beacon's thread reads.
struct Settings {
  std::optional<SecretKey> cluster_key, seek_key;
  std::vector<SecretKey> invite_keys;
  std::uint16_t port = 0;
  bool hurry = false;
  bool stop = false;
};

}  // namespace

struct Beacon::State {
  State(BeaconOptions options_in, Handler handler_in, BeaconSockets sockets_in)
      : options(std::move(options_in)),
        handler(std::move(handler_in)),
        sockets(std::move(sockets_in)),
        filter(options.instance),
        rng(RandomSeed()) {}
  ~State() {
    for (const int fd : wake) {
      if (fd >= 0) close(fd);
    }
  }

  void Run();
  void SendHello(const Settings& now_set);
  void Take(const Settings& now_set, const Datagram& datagram);
  void TakeMember(const Settings& now_set, const BeaconPacket& packet, const SocketAddress& from);
  void TakeSeek(const Settings& now_set, const SecretKey& key, const BeaconPacket& packet, const SocketAddress& from);
  void Answer(const Settings& now_set, const SecretKey& key, BeaconKind kind, const BeaconPacket& to,
              const SocketAddress& from);
  void Report(Sighting::Kind kind, const BeaconPacket& packet, const SocketAddress& from);
  BeaconPacket MakePacket(const Settings& now_set, BeaconKind kind);
  DurationUs UntilNextHello();
  Settings CopySettings();
  template <typename Change>
  void Set(Change change);
  template <typename Change>
  void Count(Change change);

  // Set once.
  const BeaconOptions options;
  const Handler handler;
  int wake[2] = {-1, -1};
  std::thread thread;

  // The beacon's thread alone.
  BeaconSockets sockets;
  BeaconFilter filter;
  Rng rng;
  RealClock clock;
  TimeUs started = clock.Now();
  TimeUs next_hello = 0;
  DurationUs interval = kBeaconIntervalMinUs;
  std::uint64_t sequence = 0;

  mutable std::mutex mutex;
  Settings settings;  // guarded by mutex
  BeaconStats stats;  // guarded by mutex
};

template <typename Change>
void Beacon::State::Set(Change change) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    change(settings);
  }
  const char byte = 0;
  // A full pipe wakes as well.
  while (write(wake[1], &byte, 1) < 0 && errno == EINTR) {}
}

template <typename Change>
void Beacon::State::Count(Change change) {
  const std::lock_guard<std::mutex> lock(mutex);
  change(stats);
}

Settings Beacon::State::CopySettings() {
  const std::lock_guard<std::mutex> lock(mutex);
  Settings copy = settings;
  settings.hurry = false;
  return copy;
}

void Beacon::State::Run() {
  while (true) {
    const Settings now_set = CopySettings();
    if (now_set.stop) return;
    if (now_set.hurry) {
      interval = kBeaconIntervalMinUs;
      next_hello = 0;
    }
    if (clock.Now() >= next_hello) SendHello(now_set);
    bool deaf = false;
    for (int i = 0; i < kPacketsAtOnceMax && !deaf; ++i) {
      deaf = !filter.MayReceive(clock.Now());
      if (deaf) break;
      const std::optional<Datagram> datagram = sockets.Receive(kBeaconPacketBytes + 1);
      if (!datagram) break;
      Take(now_set, *datagram);
    }
    const DurationUs until_us = std::max<DurationUs>(next_hello - clock.Now(), 0);
    const int until_ms = static_cast<int>(until_us / 1000) + 1;
    sockets.Wait(wake[0], deaf ? std::min(kDeafMs, until_ms) : until_ms, deaf);
    std::array<char, 64> drained;
    while (read(wake[0], drained.data(), drained.size()) > 0) {}
  }
}

// The interval grows from the shortest to the longest, and is spread by a fifth so that nodes do not speak in step.
DurationUs Beacon::State::UntilNextHello() {
  const auto spread = static_cast<DurationUs>(static_cast<double>(interval) * (0.8 + 0.4 * rng.Uniform()));
  interval = std::min(static_cast<DurationUs>(static_cast<double>(interval) * kIntervalGrowth), kBeaconIntervalMaxUs);
  return spread;
}

BeaconPacket Beacon::State::MakePacket(const Settings& now_set, BeaconKind kind) {
  BeaconPacket packet;
  packet.kind = kind;
  packet.node = options.self;
  packet.instance = options.instance;
  packet.uptime_us = clock.Now() - started;
  packet.unix_ms = UnixMs();
  packet.sequence = ++sequence;
  packet.port = now_set.port;
  packet.addresses = sockets.own_addresses();
  return packet;
}

void Beacon::State::SendHello(const Settings& now_set) {
  if (sockets.Refresh()) interval = kBeaconIntervalMinUs;
  next_hello = clock.Now() + UntilNextHello();
  std::uint64_t sent = 0;
  const auto send = [&](const std::optional<SecretKey>& key, BeaconKind kind) {
    if (!key) return;
    const BeaconPacket packet = MakePacket(now_set, kind);
    const Result<Bytes> sealed = SealBeacon(*key, packet);
    if (!sealed.ok()) return;  // no random numbers now: perhaps next time
    filter.Sent(packet.sequence, clock.Now());
    sent += static_cast<std::uint64_t>(sockets.SendToAll(*sealed));
  };
  send(now_set.cluster_key, BeaconKind::kHello);
  send(now_set.seek_key, BeaconKind::kSeek);
  Count([&](BeaconStats& count) { count.sent += sent; });
}

// Tries the keys in turn; each kind of packet counts under its own key only.
void Beacon::State::Take(const Settings& now_set, const Datagram& datagram) {
  Count([](BeaconStats& count) { ++count.received; });
  if (options.loopback_only && !IsLoopback(EndpointOf(datagram.from, 1))) return;
  const auto open = [&](const SecretKey& key) {
    std::optional<BeaconPacket> packet = OpenBeacon(key, datagram.bytes);
    if (packet) Count([](BeaconStats& count) { ++count.opened; });
    return packet;
  };
  if (now_set.cluster_key) {
    if (const auto packet = open(*now_set.cluster_key)) return TakeMember(now_set, *packet, datagram.from);
  }
  if (now_set.seek_key) {
    if (const auto packet = open(*now_set.seek_key)) {
      if (packet->kind != BeaconKind::kOffer || packet->instance == options.instance) return;
      const auto verdict = filter.Judge(*packet, EndpointOf(datagram.from, 0).host, UnixMs(), clock.Now());
      if (verdict == BeaconFilter::Verdict::kProven) Report(Sighting::Kind::kInviter, *packet, datagram.from);
      return;
    }
  }
  for (const SecretKey& key : now_set.invite_keys) {
    if (const auto packet = open(key)) return TakeSeek(now_set, key, *packet, datagram.from);
  }
  Count([](BeaconStats& count) { ++count.forged; });
}

void Beacon::State::TakeMember(const Settings& now_set, const BeaconPacket& packet, const SocketAddress& from) {
  const bool is_hello = packet.kind == BeaconKind::kHello;
  if (packet.instance == options.instance || (!is_hello && packet.kind != BeaconKind::kAnswer)) return;
  const std::string source = EndpointOf(from, 0).host;
  const auto verdict = filter.Judge(packet, source, UnixMs(), clock.Now());
  if (verdict == BeaconFilter::Verdict::kReplayed) {
    Count([](BeaconStats& count) { ++count.replayed; });
    return;
  }
  // Only an answer to what we said just now shows a clone: what our own last run said would look the same.
  const bool is_proven = verdict == BeaconFilter::Verdict::kProven;
  if (packet.node == options.self) {
    if (is_proven) Report(Sighting::Kind::kClone, packet, from);
  } else if (verdict != BeaconFilter::Verdict::kUnproven) {
    Report(Sighting::Kind::kMember, packet, from);
  }
  if (is_hello) Answer(now_set, *now_set.cluster_key, BeaconKind::kAnswer, packet, from);
}

void Beacon::State::TakeSeek(const Settings& now_set, const SecretKey& key, const BeaconPacket& packet,
                             const SocketAddress& from) {
  if (packet.kind != BeaconKind::kSeek || packet.instance == options.instance) return;
  Answer(now_set, key, BeaconKind::kOffer, packet, from);
}

void Beacon::State::Answer(const Settings& now_set, const SecretKey& key, BeaconKind kind, const BeaconPacket& to,
                           const SocketAddress& from) {
  if (now_set.port == 0) return;
  if (!filter.MayAnswer(to, EndpointOf(from, 0).host, clock.Now())) {
    Count([](BeaconStats& count) { ++count.limited; });
    return;
  }
  BeaconPacket packet = MakePacket(now_set, kind);
  packet.echo_instance = to.instance;
  packet.echo_sequence = to.sequence;
  const Result<Bytes> sealed = SealBeacon(key, packet);
  if (!sealed.ok() || !sockets.SendTo(*sealed, from)) return;
  Count([](BeaconStats& count) {
    ++count.sent;
    ++count.answered;
  });
}

void Beacon::State::Report(Sighting::Kind kind, const BeaconPacket& packet, const SocketAddress& from) {
  Sighting sighting;
  sighting.kind = kind;
  sighting.node = packet.node;
  sighting.age = {packet.instance, packet.uptime_us};
  const auto add = [&](const Endpoint& endpoint) {
    const bool known =
        std::find(sighting.addresses.begin(), sighting.addresses.end(), endpoint) != sighting.addresses.end();
    if (IsDialable(endpoint) && !known) sighting.addresses.push_back(endpoint);
  };
  const Endpoint source = EndpointOf(from, packet.port);
  const bool scoped = source.kind == HostKind::kIpv6 && IsLinkLocal(source);
  if (!scoped) add(source);
  for (const std::string& address : packet.addresses) {
    const Result<Endpoint> endpoint = ParseEndpoint(address, packet.port);
    if (endpoint.ok() && !IsLoopback(*endpoint) && !IsLinkLocal(*endpoint)) add(*endpoint);
  }
  // Last, since libp2p's TCP cannot dial an address that needs a zone.
  if (scoped) add(source);
  if (sighting.addresses.empty() && kind != Sighting::Kind::kClone) return;
  handler(sighting);
}

Beacon::Beacon(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Beacon>> Beacon::Start(BeaconOptions options, Handler handler) {
  SHOAL_CHECK(options.instance != 0 && handler);
  BeaconSocketOptions socket_options;
  socket_options.port = options.beacon_port;
  socket_options.ipv4 = options.ipv4;
  socket_options.ipv6 = options.ipv6;
  socket_options.loopback_only = options.loopback_only;
  socket_options.interfaces_unknown = options.interfaces_unknown;
  SHOAL_ASSIGN_OR_RETURN(BeaconSockets sockets, BeaconSockets::Open(socket_options));
  auto state = std::make_unique<State>(std::move(options), std::move(handler), std::move(sockets));
  if (pipe(state->wake) != 0) return Error{ErrorCode::kIo, "no descriptor is left for the beacon"};
  for (const int fd : state->wake) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
  }
  Settings& settings = state->settings;
  settings.port = state->options.port;
  if (state->options.cluster_secret) settings.cluster_key = BeaconClusterKey(*state->options.cluster_secret);
  if (state->options.seek) settings.seek_key = BeaconInviteKey(*state->options.seek);
  std::unique_ptr<Beacon> beacon(new Beacon(std::move(state)));
  State* const running = beacon->state_.get();
  running->thread = std::thread([running] {
    NameThisThread("shoal-beacon");
    running->Run();
  });
  return beacon;
}

Beacon::~Beacon() {
  state_->Set([](Settings& settings) { settings.stop = true; });
  state_->thread.join();
}

void Beacon::SetInvites(const std::vector<InviteSecret>& secrets) {
  std::vector<SecretKey> keys;
  for (std::size_t i = 0; i < std::min(secrets.size(), kBeaconInvitesMax); ++i) {
    keys.push_back(BeaconInviteKey(secrets[i]));
  }
  state_->Set([&](Settings& settings) { settings.invite_keys = std::move(keys); });
}

void Beacon::Hurry() {
  state_->Set([](Settings& settings) { settings.hurry = true; });
}

BeaconStats Beacon::stats() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->stats;
}

}  // namespace shoal
