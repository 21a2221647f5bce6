// getifaddrs, which asks netlink; else SIOCGIFCONF and /proc/net/if_inet6.
#include "discovery/own_addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

namespace shoal {
namespace {

OwnAddress Ipv4(unsigned interface, unsigned flags, in_addr address, std::optional<in_addr> mask) {
  OwnAddress own;
  own.interface = interface;
  own.is_loopback = (flags & IFF_LOOPBACK) != 0;
  std::array<char, INET_ADDRSTRLEN> text{};
  own.host = inet_ntop(AF_INET, &address, text.data(), text.size());
  const std::uint32_t hosts = mask ? ~ntohl(mask->s_addr) : 0;
  if (hosts > 1) own.broadcast = in_addr{htonl(ntohl(address.s_addr) | hosts)};
  return own;
}

OwnAddress Ipv6(unsigned interface, bool is_loopback, const in6_addr& address) {
  OwnAddress own;
  own.interface = interface;
  own.kind = HostKind::kIpv6;
  own.is_loopback = is_loopback;
  std::array<char, INET6_ADDRSTRLEN> text{};
  own.host = inet_ntop(AF_INET6, &address, text.data(), text.size());
  return own;
}

template <typename Address>
Address As(const sockaddr& from) {
  Address to{};
  std::memcpy(&to, &from, sizeof to);
  return to;
}

void AddIpv4ByIoctl(std::vector<OwnAddress>& list) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) return;
  std::array<ifreq, kOwnAddressesListedMax> requests{};
  ifconf configuration{};
  configuration.ifc_len = sizeof requests;
  configuration.ifc_req = requests.data();
  std::size_t count = 0;
  if (ioctl(fd, SIOCGIFCONF, &configuration) == 0) {
    count = static_cast<std::size_t>(configuration.ifc_len) / sizeof(ifreq);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const in_addr address = As<sockaddr_in>(requests[i].ifr_addr).sin_addr;
    ifreq asked = requests[i];
    if (ioctl(fd, SIOCGIFFLAGS, &asked) != 0 || (asked.ifr_flags & IFF_UP) == 0) continue;
    const auto flags = static_cast<unsigned>(asked.ifr_flags);
    asked = requests[i];
    std::optional<in_addr> mask;
    if (ioctl(fd, SIOCGIFNETMASK, &asked) == 0) mask = As<sockaddr_in>(asked.ifr_addr).sin_addr;
    list.push_back(Ipv4(if_nametoindex(requests[i].ifr_name), flags, address, mask));
  }
  close(fd);
}

// A line: 32 hexadecimal digits of the address, then index, prefix length, scope and flags in hexadecimal, and a name.
void AddIpv6ByProc(std::vector<OwnAddress>& list) {
  std::ifstream file("/proc/net/if_inet6");
  std::string line;
  while (list.size() < kOwnAddressesListedMax && std::getline(file, line)) {
    std::istringstream words(line);
    std::string digits;
    unsigned index = 0, prefix = 0, scope = 0;
    if (!(words >> digits >> std::hex >> index >> prefix >> scope) || digits.size() != 32) continue;
    std::string text;
    for (std::size_t at = 0; at < digits.size(); at += 4) text += (at == 0 ? "" : ":") + digits.substr(at, 4);
    in6_addr address{};
    if (inet_pton(AF_INET6, text.c_str(), &address) != 1) continue;
    list.push_back(Ipv6(index, IN6_IS_ADDR_LOOPBACK(&address), address));
  }
}

}  // namespace

std::vector<OwnAddress> ListOwnAddresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return ListOwnAddressesWithoutNetlink();
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(first, freeifaddrs);
  std::vector<OwnAddress> list;
  for (const ifaddrs* item = first; item != nullptr && list.size() < kOwnAddressesListedMax; item = item->ifa_next) {
    if (item->ifa_addr == nullptr || (item->ifa_flags & IFF_UP) == 0) continue;
    const unsigned index = if_nametoindex(item->ifa_name);
    if (item->ifa_addr->sa_family == AF_INET) {
      std::optional<in_addr> mask;
      if (item->ifa_netmask != nullptr) mask = As<sockaddr_in>(*item->ifa_netmask).sin_addr;
      list.push_back(Ipv4(index, item->ifa_flags, As<sockaddr_in>(*item->ifa_addr).sin_addr, mask));
    } else if (item->ifa_addr->sa_family == AF_INET6) {
      in6_addr address{};  // larger than the sockaddr that the list names
      std::memcpy(&address, reinterpret_cast<const char*>(item->ifa_addr) + offsetof(sockaddr_in6, sin6_addr),
                  sizeof address);
      list.push_back(Ipv6(index, (item->ifa_flags & IFF_LOOPBACK) != 0, address));
    }
  }
  return list;
}

std::vector<OwnAddress> ListOwnAddressesWithoutNetlink() {
  std::vector<OwnAddress> list;
  AddIpv4ByIoctl(list);
  AddIpv6ByProc(list);
  return list;
}

}  // namespace shoal
