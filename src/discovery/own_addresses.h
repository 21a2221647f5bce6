// The addresses of this machine's interfaces, also where a program may not ask netlink for them (Android since 11).
//
// There, IPv4 comes from ioctl and IPv6 from a file of /proc, each if it can be had. Any thread; does not block.
#pragma once

#include <netinet/in.h>

#include <optional>
#include <string>
#include <vector>

#include "discovery/endpoint.h"

namespace shoal {

inline constexpr std::size_t kOwnAddressesListedMax = 256;

struct OwnAddress {
  unsigned interface = 0;  // the system's index
  HostKind kind = HostKind::kIpv4;
  std::string host;                  // canonical; a link-local one without its zone
  std::optional<in_addr> broadcast;  // of the IPv4 network, where it has one
  bool is_loopback = false;
};

// Of interfaces that are up. Empty when the system tells nothing.
std::vector<OwnAddress> ListOwnAddresses();
// As where netlink is forbidden. For tests, and for ListOwnAddresses.
std::vector<OwnAddress> ListOwnAddressesWithoutNetlink();

}  // namespace shoal
