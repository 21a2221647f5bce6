// Says "I am here" on every network of this machine, hears others say it, and tells a handler whom to dial where.
//
// Each hello goes as IPv4 broadcast (to 255.255.255.255 and to every interface's own broadcast address), IPv4 multicast
// and IPv6 link-local multicast on every interface, loopback included, so that one way that works is enough: access
// points drop multicast, phones do not hear it, some networks have one IP version only. Who hears a hello answers by
// unicast, so a phone that cannot hear multicast still learns of the others by announcing itself. The interfaces are
// read anew for each hello: a device that changed its network is heard at once. Where that is forbidden (Android 11+),
// the default interface and 255.255.255.255 remain.
//
// What is heard is a hint whom to dial, authenticated only as "somebody with the cluster's secret": identity is proved
// by the connection. Old packets played back are dropped: by sequence for instances known; else by the sender's clock,
// and where the clocks disagree by asking, since an answer quotes the hello. Knows no connections and no certificates.
//
// Threads: one of its own, which sends, receives and calls the handler. All methods: any thread, never block but Start
// and the destructor, which waits for the handler to return (at most that long). The handler must not destroy the
// Beacon.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "discovery/endpoint.h"
#include "identity/crypto.h"
#include "identity/instance.h"
#include "identity/invite.h"
#include "runtime/clock.h"

namespace shoal {

inline constexpr std::uint16_t kBeaconPortDefault = 48100;
inline constexpr DurationUs kBeaconIntervalMinUs = 100'000;
inline constexpr DurationUs kBeaconIntervalMaxUs = 5'000'000;
inline constexpr std::int64_t kBeaconWindowMs =
    120'000;  // how far clocks may differ before a hello alone is not enough
inline constexpr std::size_t kBeaconInvitesMax = 8;
inline constexpr std::size_t kBeaconPeersMax = 1024;  // instances whose sequence is remembered

// Somebody was heard. Where the same packet gives several addresses, the first is the one that it came from.
struct Sighting {
  enum class Kind : std::uint8_t {
    kMember,   // has the cluster's secret
    kClone,    // a member with our own node id and another instance: compare GivesWay
    kInviter,  // has our invite's secret and offers to let us in
  };
  Kind kind = Kind::kMember;
  NodeId node;
  InstanceAge age;
  std::vector<Endpoint> addresses;  // TCP; best first, all dialable
};

struct BeaconOptions {
  NodeId self;
  InstanceNumber instance = 0;
  std::uint16_t port = 0;                          // TCP, told to others; 0 = does not listen
  std::uint16_t beacon_port = kBeaconPortDefault;  // UDP; the same on all nodes
  std::optional<SecretKey> cluster_secret;         // none: no member (yet)
  std::optional<InviteSecret> seek;                // looks for who made this invite
  bool ipv4 = true;
  bool ipv6 = true;
  bool loopback_only = false;  // nothing is told or heard beyond this machine
  // For tests of machines whose interfaces cannot be listed.
  bool interfaces_unknown = false;
};

struct BeaconStats {
  std::uint64_t sent = 0;      // packets; one hello is several
  std::uint64_t received = 0;  // of any kind
  std::uint64_t opened = 0;    // under one of our keys
  std::uint64_t forged = 0;    // wrong length or wrong key
  std::uint64_t replayed = 0;  // opened, but old
  std::uint64_t answered = 0;
  std::uint64_t limited = 0;  // answers not sent: too many
};

class Beacon {
 public:
  using Handler = std::function<void(const Sighting&)>;

  // Opens the sockets and starts the thread. One IP version that fails is done without.
  // Errors: kIo (neither IPv4 nor IPv6 can be used: the port is taken by a program that does not share it).
  static Result<std::unique_ptr<Beacon>> Start(BeaconOptions options, Handler handler);
  ~Beacon();
  Beacon(const Beacon&) = delete;
  Beacon& operator=(const Beacon&) = delete;

  // From the next packet on: answers those who seek with one of these secrets; the first kBeaconInvitesMax of them.
  void SetInvites(const std::vector<InviteSecret>& secrets);

  // Back to the short interval: the network changed or a member was lost.
  void Hurry();

  BeaconStats stats() const;

 private:
  struct State;
  explicit Beacon(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
