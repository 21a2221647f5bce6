// How a device becomes a member: finds whoever made the invite, proves that it knows the code, keeps what it is given.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "discovery/endpoint.h"
#include "identity/crypto.h"
#include "identity/home.h"
#include "transport/libp2p.h"

namespace shoal {

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
  std::function<bool()> given_up;  // asked between attempts, of at most five seconds; empty: never
};

struct ReceivedGrant {
  JoinGrant grant;
  Endpoint from;
};

// A device that was started before it was invited has a cluster of its own, with nobody else in it: that gives way.
// Errors: kInvalidArgument (others are members already), kIo, kCorrupt.
Status MayJoin(const Home& home);

// Tries the addresses of the invite, those in `peers`, and whoever answers on this network that the invite is his,
// until one lets us in. Touches no Home. Blocks, at most half a minute and some seconds. `thrown_out`: set, besides an
// error, when that cluster knows the key as one that was thrown out. Errors: as JoinCluster of cluster_node.h.
Result<ReceivedGrant> AskToJoin(const JoinRequest& request, bool& thrown_out);

// In place of the cluster that this node is alone in, if it has one. Errors: kCorrupt, kInvalidArgument (nothing has
// changed then), kIo (it may be in no cluster).
Status KeepGrant(Home& home, const ReceivedGrant& received);

// MayJoin, AskToJoin and KeepGrant; a key that was thrown out is replaced first.
Status JoinWithCode(Home& home, const std::string& name, const std::string& code,
                    const std::vector<std::string>& peers);

}  // namespace shoal
