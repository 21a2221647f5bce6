// The bytes of one beacon packet: sealed, always of the same length, and random to whoever lacks the key.
//
// A packet is Seal(key, text padded to kBeaconTextBytes): so its length, its kind and the cluster's id tell a stranger
// nothing, and a forged one costs its receiver one MAC. Layout of the text, little-endian:
//   u8 version=1, u8 kind, u8[32] node, u64 instance, i64 uptime_us, i64 unix_ms, u64 sequence,
//   u64 echo_instance, u64 echo_sequence, u16 port, u8 address count, then per address
//   u8 family (4 or 6) and 16 bytes (IPv4 in the first 4, the rest zero); zeros up to the end.
// Pure; knows no sockets and no time. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "identity/crypto.h"
#include "identity/instance.h"
#include "identity/invite.h"

namespace shoal {

inline constexpr std::size_t kBeaconAddressesMax = 8;
inline constexpr std::size_t kBeaconTextBytes = 256;
inline constexpr std::size_t kBeaconPacketBytes = kBeaconTextBytes + kSealOverheadBytes;

enum class BeaconKind : std::uint8_t {
  kHello = 1,   // a member, to all: who hears this?
  kAnswer = 2,  // a member, to the one that said hello
  kSeek = 3,    // one with an invite, to all: who invited me?
  kOffer = 4,   // the inviter, to the one that seeks
};

struct BeaconPacket {
  BeaconKind kind = BeaconKind::kHello;
  NodeId node;
  InstanceNumber instance = 0;
  std::int64_t uptime_us = 0;  // >= 0
  std::int64_t unix_ms = 0;    // the sender's clock, which may be wrong
  std::uint64_t sequence = 0;  // counts the packets of this instance
  // In answers and offers: instance and sequence of the packet answered, which proves them fresh. Else 0.
  InstanceNumber echo_instance = 0;
  std::uint64_t echo_sequence = 0;
  std::uint16_t port = 0;              // TCP; 0 = does not listen
  std::vector<std::string> addresses;  // own IP literals without zone; at most kBeaconAddressesMax

  bool operator==(const BeaconPacket&) const = default;
};

// Keys of the two kinds of talk, from the cluster's secret and from an invite's.
SecretKey BeaconClusterKey(const SecretKey& cluster_secret);
SecretKey BeaconInviteKey(const InviteSecret& secret);

// The padded text. Addresses over the limit, and texts that are no IP literals, are left out.
Bytes EncodeBeaconText(const BeaconPacket& packet);
// Nothing for what EncodeBeaconText cannot have made.
std::optional<BeaconPacket> DecodeBeaconText(ByteSpan text);

// Errors: kInternal (no random bytes).
Result<Bytes> SealBeacon(const SecretKey& key, const BeaconPacket& packet);
// Nothing when the length, the key or the text is wrong.
std::optional<BeaconPacket> OpenBeacon(const SecretKey& key, ByteSpan bytes);

}  // namespace shoal
