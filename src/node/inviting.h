// The invites of a node that has the cluster's signing key: made, shown by the beacon, ended.
//
// Knows no members. On the loop.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "api/control_service.h"
#include "base/result.h"
#include "identity/home.h"
#include "identity/invite.h"
#include "node/peers.h"

namespace shoal {

class Inviting {
 public:
  // Both must outlive it.
  Inviting(Home& home, Peers& peers) : home_(home), peers_(peers) {}

  // An invite for one device. Errors: kUnsupported (no signing key here; `owner` says for people who has it), kIo.
  Result<InviteStatus> Invite(const std::string& owner);
  // kJoined or kInviteClosed.
  void OnEvent(const NetworkEvent& event);

 private:
  void Show();

  Home& home_;
  Peers& peers_;
  std::map<std::uint64_t, InviteSecret> open_;
};

}  // namespace shoal
