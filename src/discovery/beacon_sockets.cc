// POSIX sockets.
#include "discovery/beacon_sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "discovery/own_addresses.h"

namespace shoal {
namespace {

// Groups of our own: IPv4 in the block for local use (RFC 2365), IPv6 transient and link-local (RFC 4291).
constexpr char kGroup4[] = "239.255.83.72";
constexpr char kGroup6[] = "ff12::5348:4f41:4c31";
constexpr std::size_t kOwnAddressesMax = 8;
constexpr std::size_t kOwnIpv4Max = 5;  // of them, when there are IPv6 ones too

in_addr Group4() {
  in_addr group{};
  SHOAL_CHECK(inet_pton(AF_INET, kGroup4, &group) == 1);
  return group;
}
in6_addr Group6() {
  in6_addr group{};
  SHOAL_CHECK(inet_pton(AF_INET6, kGroup6, &group) == 1);
  return group;
}

bool SetFlag(int fd, int level, int option) {
  const int on = 1;
  return setsockopt(fd, level, option, &on, sizeof on) == 0;
}

template <typename Address>
SocketAddress Wrap(const Address& address) {
  static_assert(sizeof(Address) <= sizeof(sockaddr_storage));
  SocketAddress out;
  std::memcpy(&out.storage, &address, sizeof address);
  out.bytes = sizeof address;
  return out;
}

SocketAddress Address4(in_addr host, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr = host;
  address.sin_port = htons(port);
  return Wrap(address);
}

SocketAddress Address6(const in6_addr& host, unsigned scope, std::uint16_t port) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = host;
  address.sin6_scope_id = scope;
  address.sin6_port = htons(port);
  return Wrap(address);
}

bool Bind(int fd, int family, std::uint16_t port) {
  const SocketAddress any = family == AF_INET ? Address4({htonl(INADDR_ANY)}, port) : Address6(in6addr_any, 0, port);
  return bind(fd, reinterpret_cast<const sockaddr*>(&any.storage), any.bytes) == 0;
}

// A UDP socket bound to `port` of any address, 0 for a free one; -1 with errno. Closed on exec, never blocks.
int OpenSocket(int family, std::uint16_t port) {
  const int fd = socket(family, SOCK_DGRAM, 0);
  if (fd < 0) return -1;
  bool ok = fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
  if (family == AF_INET) ok = ok && SetFlag(fd, SOL_SOCKET, SO_BROADCAST);
  if (family == AF_INET6) ok = ok && SetFlag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  if (port != 0) {
    ok = ok && SetFlag(fd, SOL_SOCKET, SO_REUSEADDR);
#ifdef SO_REUSEPORT
    SetFlag(fd, SOL_SOCKET, SO_REUSEPORT);  // some systems share a port by this option only; old kernels lack it
#endif
  }
  if (ok && Bind(fd, family, port)) return fd;
  const int code = errno;
  close(fd);
  errno = code;
  return -1;
}

// The address that the system would send from to a distant host; sends nothing. Nothing when there is no route.
std::optional<std::string> DefaultSource(int family) {
  const int fd = socket(family, SOCK_DGRAM, 0);
  if (fd < 0) return std::nullopt;
  SocketAddress distant;  // of the blocks for documentation: never a neighbour
  if (family == AF_INET) {
    distant = Address4({htonl(0xCB007101)}, 9);
  } else {
    in6_addr host{};
    SHOAL_CHECK(inet_pton(AF_INET6, "2001:db8::1", &host) == 1);
    distant = Address6(host, 0, 9);
  }
  SocketAddress own;
  own.bytes = sizeof own.storage;
  const bool known = connect(fd, reinterpret_cast<const sockaddr*>(&distant.storage), distant.bytes) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&own.storage), &own.bytes) == 0;
  close(fd);
  if (!known) return std::nullopt;
  const Endpoint endpoint = EndpointOf(own, 1);
  if (!IsDialable(endpoint) || IsLoopback(endpoint)) return std::nullopt;
  return endpoint.host;
}

// Whether others could reach us at this address of ours.
bool WorthTelling(const Endpoint& endpoint) {
  return IsDialable(endpoint) && !IsLoopback(endpoint) && !(endpoint.kind == HostKind::kIpv6 && IsLinkLocal(endpoint));
}

}  // namespace

Endpoint EndpointOf(const SocketAddress& address, std::uint16_t port) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.storage.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address.storage, sizeof v4);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return {HostKind::kIpv4, text, port};
  }
  sockaddr_in6 v6{};
  std::memcpy(&v6, &address.storage, sizeof v6);
  inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  Endpoint endpoint{HostKind::kIpv6, text, port};
  char name[IF_NAMESIZE] = {};
  if (IsLinkLocal(endpoint) && if_indextoname(v6.sin6_scope_id, name) != nullptr) {
    endpoint.host += "%" + std::string(name);
  }
  return endpoint;
}

Result<BeaconSockets> BeaconSockets::Open(const BeaconSocketOptions& options) {
  BeaconSockets sockets;
  sockets.options_ = options;
  std::string why;
  const auto open_pair = [&](int family, int& hear, int& talk) {
    hear = OpenSocket(family, options.port);
    if (hear >= 0) talk = OpenSocket(family, 0);
    if (talk >= 0) return;
    why += std::string(why.empty() ? "" : "; ") + (family == AF_INET ? "IPv4: " : "IPv6: ") +
           std::generic_category().message(errno);
    if (hear >= 0) close(std::exchange(hear, -1));
  };
  if (options.ipv4) open_pair(AF_INET, sockets.hear4_, sockets.talk4_);
  if (options.ipv6) open_pair(AF_INET6, sockets.hear6_, sockets.talk6_);
  if (sockets.talk4_ < 0 && sockets.talk6_ < 0) {
    return Error{ErrorCode::kIo, "no beacon on UDP port " + std::to_string(options.port) + " (" + why + ")"};
  }
  const unsigned char hops = 1;  // link-local
  const int hops6 = 1;
  if (sockets.talk4_ >= 0) setsockopt(sockets.talk4_, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops);
  if (sockets.talk6_ >= 0) setsockopt(sockets.talk6_, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops6, sizeof hops6);
  return sockets;
}

BeaconSockets::BeaconSockets(BeaconSockets&& other) noexcept
    : options_(other.options_),
      hear4_(std::exchange(other.hear4_, -1)),
      talk4_(std::exchange(other.talk4_, -1)),
      hear6_(std::exchange(other.hear6_, -1)),
      talk6_(std::exchange(other.talk6_, -1)),
      interfaces_(std::move(other.interfaces_)),
      broadcasts_(std::move(other.broadcasts_)),
      own_addresses_(std::move(other.own_addresses_)) {}

BeaconSockets::~BeaconSockets() {
  for (const int fd : {hear4_, talk4_, hear6_, talk6_}) {
    if (fd >= 0) close(fd);
  }
}

BeaconSockets::Interface* BeaconSockets::InterfaceOf(unsigned index) {
  for (Interface& known : interfaces_) {
    if (known.index == index) return &known;
  }
  if (interfaces_.size() == kBeaconInterfacesMax) return nullptr;
  interfaces_.push_back({index});
  return &interfaces_.back();
}

// Nothing is added when the system tells nothing.
void BeaconSockets::AddInterfaces() {
  if (options_.interfaces_unknown) return;
  std::vector<std::string> v4, v6;
  for (const OwnAddress& own : ListOwnAddresses()) {
    if (options_.loopback_only && !own.is_loopback) continue;
    const bool is_v4 = own.kind == HostKind::kIpv4;
    Interface* const known = (is_v4 ? talk4_ : talk6_) >= 0 ? InterfaceOf(own.interface) : nullptr;
    if (known == nullptr) continue;
    (is_v4 ? known->has_ipv4 : known->has_ipv6) = true;
    if (WorthTelling({own.kind, own.host, 1})) (is_v4 ? v4 : v6).push_back(own.host);
    if (own.broadcast) broadcasts_.push_back(*own.broadcast);
  }
  if (!v6.empty() && v4.size() > kOwnIpv4Max) v4.resize(kOwnIpv4Max);
  own_addresses_ = std::move(v4);
  own_addresses_.insert(own_addresses_.end(), v6.begin(), v6.end());
  if (own_addresses_.size() > kOwnAddressesMax) own_addresses_.resize(kOwnAddressesMax);
}

// What is left where interfaces cannot be listed: the one that the system picks.
void BeaconSockets::AddDefaultInterface() {
  interfaces_.push_back({0, talk4_ >= 0, talk6_ >= 0});
  if (options_.loopback_only) broadcasts_.push_back({htonl(0x7FFFFFFF)});
  for (const int family : {AF_INET, AF_INET6}) {
    if ((family == AF_INET ? talk4_ : talk6_) < 0 || options_.loopback_only) continue;
    if (auto address = DefaultSource(family)) own_addresses_.push_back(std::move(*address));
  }
}

bool BeaconSockets::Refresh() {
  const std::vector<std::string> before = std::move(own_addresses_);
  const std::vector<Interface> interfaces_before = std::move(interfaces_);
  own_addresses_.clear();
  interfaces_.clear();
  broadcasts_.clear();
  AddInterfaces();
  if (interfaces_.empty()) AddDefaultInterface();
  if (!options_.loopback_only) broadcasts_.push_back({htonl(INADDR_BROADCAST)});
  const auto less = [](const in_addr& a, const in_addr& b) { return a.s_addr < b.s_addr; };
  const auto equal = [](const in_addr& a, const in_addr& b) { return a.s_addr == b.s_addr; };
  std::sort(broadcasts_.begin(), broadcasts_.end(), less);
  broadcasts_.erase(std::unique(broadcasts_.begin(), broadcasts_.end(), equal), broadcasts_.end());
  if (broadcasts_.size() > kBeaconInterfacesMax) broadcasts_.resize(kBeaconInterfacesMax);
  JoinGroups();
  return own_addresses_ != before || interfaces_ != interfaces_before;
}

// Joining twice says EADDRINUSE, and an interface that went away has left by itself: so no record is kept.
void BeaconSockets::JoinGroups() {
  for (const Interface& known : interfaces_) {
    if (known.has_ipv4 && hear4_ >= 0) {
      ip_mreqn request{};
      request.imr_multiaddr = Group4();
      request.imr_ifindex = static_cast<int>(known.index);
      setsockopt(hear4_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request);
    }
    if (known.has_ipv6 && hear6_ >= 0) {
      ipv6_mreq request{};
      request.ipv6mr_multiaddr = Group6();
      request.ipv6mr_interface = known.index;
      setsockopt(hear6_, IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof request);
    }
  }
}

int BeaconSockets::SendToAll(ByteSpan bytes) {
  int sent = 0;
  if (talk4_ >= 0) {
    for (const in_addr& broadcast : broadcasts_) sent += SendTo(bytes, Address4(broadcast, options_.port));
  }
  for (const Interface& known : interfaces_) {
    if (known.has_ipv4 && talk4_ >= 0) {
      ip_mreqn request{};
      request.imr_ifindex = static_cast<int>(known.index);
      if (setsockopt(talk4_, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) == 0) {
        sent += SendTo(bytes, Address4(Group4(), options_.port));
      }
    }
    if (known.has_ipv6 && talk6_ >= 0) sent += SendTo(bytes, Address6(Group6(), known.index, options_.port));
  }
  return sent;
}

bool BeaconSockets::SendTo(ByteSpan bytes, const SocketAddress& to) {
  const int fd = to.storage.ss_family == AF_INET ? talk4_ : talk6_;
  if (fd < 0) return false;
  const ssize_t sent =
      sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to.storage), to.bytes);
  return sent == static_cast<ssize_t>(bytes.size());
}

void BeaconSockets::Wait(int wake_fd, int timeout_ms, bool deaf) const {
  std::array<pollfd, 5> fds{};
  fds[0] = {wake_fd, POLLIN, 0};
  const int sockets[] = {hear4_, talk4_, hear6_, talk6_};
  // poll skips negative descriptors.
  for (std::size_t i = 0; i < 4; ++i) fds[i + 1] = {deaf ? -1 : sockets[i], POLLIN, 0};
  poll(fds.data(), fds.size(), timeout_ms);
}

std::optional<Datagram> BeaconSockets::Receive(std::size_t bytes_max) {
  for (const int fd : {talk4_, talk6_, hear4_, hear6_}) {
    if (fd < 0) continue;
    Datagram datagram;
    datagram.bytes.resize(bytes_max);
    datagram.from.bytes = sizeof datagram.from.storage;
    const ssize_t got = recvfrom(fd, datagram.bytes.data(), bytes_max, 0,
                                 reinterpret_cast<sockaddr*>(&datagram.from.storage), &datagram.from.bytes);
    if (got < 0) continue;  // nothing waits, or an ICMP error of something sent before
    datagram.bytes.resize(static_cast<std::size_t>(got));
    return datagram;
  }
  return std::nullopt;
}

}  // namespace shoal
