// How a device becomes a member: finds whoever made the invite, proves that it knows the code, keeps what it is given.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "discovery/endpoint.h"
#include "identity/crypto.h"
#include "identity/home.h"
#include "transport/libp2p.h"

namespace shoal {

inline constexpr std::uint32_t kJoinMs = 30'000;  // for somebody to let us in

// What an invite hands over besides the certificate: the cluster's secret, and where members can be reached.
struct InviteExtras {
  SecretKey cluster_secret;
  std::vector<std::string> addresses;  // HOST:PORT; what does not fit is left out
};
Bytes EncodeInviteExtras(const InviteExtras& extras);
// Errors: kCorrupt.
Result<InviteExtras> DecodeInviteExtras(ByteSpan bytes);

// Who wants to become a member, and how.
struct JoinRequest {
  NodeId id;
  std::vector<std::uint8_t> seed;  // of its key
  std::string name;
  std::string code;  // an invite's, or its link
  std::vector<std::string> peers;
  std::uint16_t beacon_port = 0;
};

// Who let it in, and what it was given, until that is kept.
struct FoundInviter {
  JoinGrant grant;
  Endpoint at;
};

// A device that was started before it was invited has a cluster of its own, with nobody else in it: that gives way.
// Errors: kInvalidArgument (others are members already), kIo, kCorrupt.
Status MayJoin(const Home& home);

// Tries the addresses of the invite, those in `peers`, and whoever answers on this network that the invite is his,
// until one lets us in. Touches no Home. Blocks, at most `timeout_ms` and some seconds. `thrown_out`: set when that
// cluster knows the key as one that was thrown out. Errors: as JoinCluster of cluster_node.h.
Result<FoundInviter> AskToJoin(const JoinRequest& request, std::uint32_t timeout_ms, bool& thrown_out);

// In place of the cluster that this node is alone in, if it has one. Errors: kCorrupt, kIo.
Status KeepGrant(Home& home, const FoundInviter& inviter);

// MayJoin, AskToJoin and KeepGrant; a key that was thrown out is replaced first.
Status JoinWithCode(Home& home, const std::string& name, const std::string& code, const std::vector<std::string>& peers,
                    std::uint16_t beacon_port, std::uint32_t timeout_ms);

}  // namespace shoal
