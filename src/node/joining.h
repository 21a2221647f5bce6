// How a device becomes a member: finds whoever made the invite, proves that it knows the code, keeps what it is given.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "identity/crypto.h"
#include "identity/home.h"

namespace shoal {

// What an invite hands over besides the certificate: the cluster's secret, and where members can be reached.
struct InviteExtras {
  SecretKey cluster_secret;
  std::vector<std::string> addresses;  // HOST:PORT; what does not fit is left out
};
Bytes EncodeInviteExtras(const InviteExtras& extras);
// Errors: kCorrupt.
Result<InviteExtras> DecodeInviteExtras(ByteSpan bytes);

// Tries the addresses of the invite, those in `peers`, and whoever answers on this network that the invite is his,
// until one lets us in. A cluster of this node alone is forgotten then. Blocks, at most `timeout_ms`
// and some seconds. Errors: as JoinCluster of cluster_node.h.
Status JoinWithCode(Home& home, const std::string& name, const std::string& code, const std::vector<std::string>& peers,
                    std::uint16_t beacon_port, std::uint32_t timeout_ms);

}  // namespace shoal
