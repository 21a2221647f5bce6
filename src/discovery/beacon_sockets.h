// The UDP sockets of a beacon: one datagram to everybody on every network of this machine, and what comes back.
//
// Two sockets an IP version: one bound to the beacon port, shared by all nodes of the machine, hears what is sent to
// everybody; one on a port of its own sends, so that an answer reaches this process and no other. Knows no packet
// format and no time. One thread; nothing blocks but Wait.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "discovery/endpoint.h"
#include "identity/crypto.h"

namespace shoal {

inline constexpr std::size_t kBeaconInterfacesMax = 32;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

// The host of `address` as an endpoint with `port`; link-local IPv6 with its zone.
Endpoint EndpointOf(const SocketAddress& address, std::uint16_t port);

struct Datagram {
  Bytes bytes;
  SocketAddress from;
};

struct BeaconSocketOptions {
  std::uint16_t port = 0;
  bool ipv4 = true;
  bool ipv6 = true;
  bool loopback_only = false;
  bool interfaces_unknown = false;  // as if the system refused to list them
};

class BeaconSockets {
 public:
  // Errors: kIo (not one IP version works; says why).
  static Result<BeaconSockets> Open(const BeaconSocketOptions& options);
  ~BeaconSockets();
  BeaconSockets(BeaconSockets&& other) noexcept;
  BeaconSockets& operator=(BeaconSockets&&) = delete;

  // Reads the interfaces anew and joins the multicast groups on those that are up. True when the addresses of this
  // machine are others than at the last call.
  bool Refresh();

  // IP literals at which others may reach this machine, without loopback and link-local IPv6; as of Refresh.
  const std::vector<std::string>& own_addresses() const { return own_addresses_; }

  // Sends to everybody, every way there is; the number of datagrams that left. A way that fails is left out.
  int SendToAll(ByteSpan bytes);
  bool SendTo(ByteSpan bytes, const SocketAddress& to);

  // Blocks until a datagram waits, `wake_fd` is readable, or `timeout_ms` have passed. With `deaf`, datagrams do not
  // end the wait.
  void Wait(int wake_fd, int timeout_ms, bool deaf) const;

  // A datagram that waits, cut at `bytes_max`; nothing when none does.
  std::optional<Datagram> Receive(std::size_t bytes_max);

 private:
  // One interface that is up.
  struct Interface {
    unsigned index = 0;  // 0 = whichever the system picks
    bool has_ipv4 = false;
    bool has_ipv6 = false;
    bool operator==(const Interface&) const = default;
  };

  BeaconSockets() = default;
  void AddInterfaces();
  void AddDefaultInterface();
  void JoinGroups();
  Interface* InterfaceOf(unsigned index);

  BeaconSocketOptions options_;
  int hear4_ = -1, talk4_ = -1, hear6_ = -1, talk6_ = -1;
  std::vector<Interface> interfaces_;
  std::vector<in_addr> broadcasts_;
  std::vector<std::string> own_addresses_;
};

}  // namespace shoal
