// A secret, the certificate that is to be given for it, and the beacon that says where.
#include "node/inviting.h"

#include <ctime>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "node/joining.h"

namespace shoal {
namespace {

std::int64_t UnixS() { return static_cast<std::int64_t>(std::time(nullptr)); }

}  // namespace

Result<InviteStatus> Inviting::Invite(const std::string& owner) {
  const std::optional<Membership>& membership = home_.membership();
  if (!membership || !membership->is_owner()) {
    return Error{ErrorCode::kUnsupported, "this node cannot invite: it has no signing key; ask on " + owner};
  }
  SHOAL_ASSIGN_OR_RETURN(const InviteSecret secret, GenerateInviteSecret());
  InviteStatus status;
  for (const std::string& address : peers_.own_addresses()) {
    const Result<Endpoint> endpoint = ParseEndpoint(address);
    if (endpoint.ok() && status.addresses.size() < kInviteAddressesMax) {
      status.addresses.push_back(EndpointText(*endpoint));
    }
  }
  InviteOptions invite;
  const auto seed = membership->cluster_key->seed();
  invite.cluster_seed.assign(seed.begin(), seed.end());
  invite.secret.assign(secret.begin(), secret.end());
  invite.valid_ms = static_cast<std::uint32_t>(kInviteLifetimeS * 1000);
  SHOAL_ASSIGN_OR_RETURN(invite.serial, home_.NextSerial(UnixS()));
  invite.expires_s = UnixS() + kCertificateLifetimeS;
  invite.extras = EncodeInviteExtras({membership->cluster_secret, status.addresses});
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t id, peers_.network().OpenInvite(invite));
  open_[static_cast<std::uint64_t>(id)] = secret;
  Show();
  status.code = InviteCode(secret);
  status.expires_s = kInviteLifetimeS;
  status.url = InviteUrl({secret, status.addresses});
  if (Result<std::string> qr = QrForTerminal(status.url); qr.ok()) status.qr = *std::move(qr);
  return status;
}

void Inviting::Show() {
  if (peers_.beacon() == nullptr) return;
  std::vector<InviteSecret> secrets;
  for (const auto& [id, secret] : open_) secrets.push_back(secret);
  peers_.beacon()->SetInvites(secrets);
}

void Inviting::OnEvent(const NetworkEvent& event) {
  if (event.kind == NetworkEventKind::kJoined) {
    const Result<Certificate> certificate = ParseCertificate(event.data, UnixS());
    Log(LogLevel::kInfo, "cluster", "'" + (certificate.ok() ? certificate->name : "a node") + "' has joined");
    const Status kept = certificate.ok() ? home_.Remember(certificate->member, certificate->name) : Status();
    if (!kept.ok()) Log(LogLevel::kWarning, "cluster", "its name is not remembered: " + kept.error().message);
  } else {
    Log(LogLevel::kInfo, "cluster", "an invite has ended: " + event.text);
  }
  open_.erase(event.stream);
  Show();
}

}  // namespace shoal
