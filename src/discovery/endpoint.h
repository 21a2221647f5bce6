// Where a node can be dialled: a host and a port, in the two notations that people and libp2p use.
//
// Hosts stay text: an IPv4 or IPv6 literal in its canonical form (a link-local one with its zone, "fe80::1%eth0"), or a
// name. Resolving names is for others (getaddrinfo blocks). Pure; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace shoal {

inline constexpr std::uint16_t kNetPortDefault = 48100;
inline constexpr std::size_t kEndpointTextBytesMax = 320;

enum class HostKind : std::uint8_t { kIpv4, kIpv6, kName };

struct Endpoint {
  HostKind kind = HostKind::kIpv4;
  std::string host;  // canonical; without brackets
  std::uint16_t port = 0;

  auto operator<=>(const Endpoint&) const = default;
};

// Reads "HOST:PORT", "HOST", "[v6]:PORT", "[v6]", "v6", "/ip4/A/tcp/P", "/ip6/A/tcp/P", "/ip6zone/Z/ip6/A/tcp/P",
// "/dns/NAME/tcp/P" (dns4 and dns6 too), the last ones with or without a closing "/p2p/ID", which is dropped. Port 0 or
// none stands for `port_default`. IPv6 addresses that only wrap an IPv4 one become that one.
// Errors: kInvalidArgument, with what is wrong.
Result<Endpoint> ParseEndpoint(std::string_view text, std::uint16_t port_default = kNetPortDefault);

// "HOST:PORT" or "[v6]:PORT".
std::string EndpointText(const Endpoint& endpoint);

// "/ip4/A/tcp/P" or "/ip6/A/tcp/P" (a zone becomes a leading "/ip6zone/Z"; libp2p's TCP cannot dial those), names as
// "/dns/NAME/tcp/P". Precondition (CHECK): host is not empty.
std::string EndpointMultiaddr(const Endpoint& endpoint);

// For literals; false for names.
bool IsLoopback(const Endpoint& endpoint);     // 127/8 and ::1
bool IsLinkLocal(const Endpoint& endpoint);    // 169.254/16 and fe80::/10
bool IsUnspecified(const Endpoint& endpoint);  // 0.0.0.0 and ::
// Whether a node may be dialled there at all: a port, and neither unspecified, multicast nor broadcast. True for names.
bool IsDialable(const Endpoint& endpoint);

}  // namespace shoal
