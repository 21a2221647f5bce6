// One attempt after the other, addresses that were given first, then those that the beacon hears.
#include "node/joining.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <set>
#include <utility>

#include "base/log.h"
#include "discovery/address_book.h"
#include "discovery/beacon.h"
#include "discovery/endpoint.h"
#include "identity/certificate.h"
#include "identity/instance.h"
#include "identity/invite.h"
#include "node/cluster_node.h"
#include "node/device.h"
#include "node/resolve.h"
#include "runtime/rng.h"
#include "transport/libp2p.h"

namespace shoal {
namespace {

constexpr std::size_t kExtrasBytesMax = 480;
constexpr std::chrono::seconds kJoinMax{30};
constexpr std::uint32_t kAttemptMs = 5'000;
constexpr std::chrono::milliseconds kListenSlice{200};
constexpr std::chrono::seconds kAfterRefusal{5};  // how long others are looked for
constexpr std::size_t kCandidatesMax = 64;

// Addresses to try, filled by the beacon's thread too.
class Candidates {
 public:
  void Add(const Endpoint& endpoint) {
    const std::lock_guard lock(mutex_);
    if (all_.size() >= kCandidatesMax || std::find(all_.begin(), all_.end(), endpoint) != all_.end()) return;
    all_.push_back(endpoint);
    added_.notify_all();
  }
  // The one at `index`, waiting a little for it.
  std::optional<Endpoint> At(std::size_t index) {
    std::unique_lock lock(mutex_);
    added_.wait_for(lock, kListenSlice, [&] { return index < all_.size(); });
    return index < all_.size() ? std::optional<Endpoint>(all_[index]) : std::nullopt;
  }

 private:
  std::mutex mutex_;
  std::condition_variable added_;
  std::vector<Endpoint> all_;
};

}  // namespace

Bytes EncodeInviteExtras(const InviteExtras& extras) {
  Bytes bytes(extras.cluster_secret.bytes.begin(), extras.cluster_secret.bytes.end());
  for (const std::string& address : extras.addresses) {
    if (bytes.size() + address.size() + 1 > kExtrasBytesMax) break;
    bytes.insert(bytes.end(), address.begin(), address.end());
    bytes.push_back('\n');
  }
  return bytes;
}

Result<InviteExtras> DecodeInviteExtras(ByteSpan bytes) {
  InviteExtras extras;
  if (bytes.size() < extras.cluster_secret.bytes.size() || bytes.size() > kExtrasBytesMax) {
    return Error{ErrorCode::kCorrupt, "the invite of another version of shoal? What came with it cannot be read"};
  }
  const auto text = bytes.subspan(extras.cluster_secret.bytes.size());
  std::copy_n(bytes.begin(), extras.cluster_secret.bytes.size(), extras.cluster_secret.bytes.begin());
  std::string address;
  for (const std::uint8_t byte : text) {
    if (byte != '\n') {
      address.push_back(static_cast<char>(byte));
      continue;
    }
    extras.addresses.push_back(std::exchange(address, {}));
  }
  return extras;
}

Status MayJoin(const Home& home) {
  if (!home.membership()) return {};
  SHOAL_ASSIGN_OR_RETURN(const bool never_invited, home.HasNeverInvited());
  SHOAL_ASSIGN_OR_RETURN(const std::string peers, home.LoadPeers());
  AddressBook book(home.id(), 0);
  if (!peers.empty()) SHOAL_RETURN_IF_ERROR(book.AddJson(peers, 0));
  if (never_invited && book.Nodes().empty()) return {};
  return Error{ErrorCode::kInvalidArgument,
               "this device is a member of a cluster with others already, or has invited somebody: `shoal leave` "
               "first, or use another SHOAL_HOME"};
}

Status KeepGrant(Home& home, const ReceivedGrant& received) {
  const auto& [grant, from] = received;
  const std::int64_t now_s = std::time(nullptr);
  SHOAL_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(grant.certificate, now_s));
  SHOAL_ASSIGN_OR_RETURN(const InviteExtras extras, DecodeInviteExtras(grant.extras));
  if (certificate.member != home.id()) {
    return Error{ErrorCode::kInvalidArgument, "the certificate that was given is for another node"};
  }
  if (home.membership()) SHOAL_RETURN_IF_ERROR(home.ForgetCluster());
  SHOAL_RETURN_IF_ERROR(home.StoreGrant(certificate, extras.cluster_secret));
  AddressBook book(home.id(), RandomSeed());
  book.Learn(grant.inviter, from, AddressSource::kGiven, 0);
  for (const std::string& address : extras.addresses) {
    const Result<Endpoint> endpoint = ParseEndpoint(address);
    if (endpoint.ok()) book.Learn(grant.inviter, *endpoint, AddressSource::kGossiped, 0);
  }
  book.Succeeded({grant.inviter, from, AddressSource::kGiven}, grant.inviter, now_s);
  const Status stored = home.StorePeers(book.ToJson());
  if (!stored.ok()) Log(LogLevel::kWarning, "join", "where the others are was not kept: " + stored.error().message);
  return {};
}

Result<ReceivedGrant> AskToJoin(const JoinRequest& request, bool& thrown_out) {
  thrown_out = false;
  SHOAL_ASSIGN_OR_RETURN(const Invite invite, ParseInvite(request.code));
  Candidates candidates;
  for (const std::vector<std::string>& list : {request.peers, invite.addresses}) {
    for (const std::string& address : list) {
      SHOAL_ASSIGN_OR_RETURN(const std::vector<Endpoint> resolved, Resolve(address));
      for (const Endpoint& endpoint : resolved) candidates.Add(endpoint);
    }
  }
  SHOAL_ASSIGN_OR_RETURN(const InstanceNumber instance, MakeInstance());
  BeaconOptions seek;
  seek.self = request.id;
  seek.instance = instance;
  seek.seek = invite.secret;
  const Result<std::unique_ptr<Beacon>> beacon = Beacon::Start(seek, [&](const Sighting& sighting) {
    if (sighting.kind != Sighting::Kind::kInviter) return;
    for (const Endpoint& endpoint : sighting.addresses) candidates.Add(endpoint);
  });
  if (!beacon.ok()) Log(LogLevel::kWarning, "join", "nobody can be found by the beacon: " + beacon.error().message);

  auto deadline = std::chrono::steady_clock::now() + kJoinMax;
  Error last{ErrorCode::kUnavailable,
             "nobody answered: is the device that showed the code on the same network, and its invite not older than "
             "ten minutes? Else give its address with --peer HOST:PORT"};
  const std::vector<std::uint8_t> secret(invite.secret.begin(), invite.secret.end());
  std::set<std::size_t> answered;  // candidates that are not asked again
  for (std::size_t next = 0; std::chrono::steady_clock::now() < deadline && !thrown_out;) {
    if (request.given_up && request.given_up())
      return Error{ErrorCode::kCancelled, "joining was given up, for this node ends"};
    const std::optional<Endpoint> endpoint = candidates.At(next);
    if (!endpoint) {
      next = 0;  // those that did not answer once more
      continue;
    }
    const std::size_t asked = next++;
    if (answered.contains(asked)) continue;
    RefusalReason reason = RefusalReason::kNone;
    Result<JoinGrant> grant = Network::Join(request.seed, CleanNodeName(request.name), EndpointMultiaddr(*endpoint),
                                            secret, kAttemptMs, &reason);
    if (grant.ok()) return ReceivedGrant{*std::move(grant), *endpoint};
    last = {grant.error().code, EndpointText(*endpoint) + ": " + grant.error().message};
    Log(LogLevel::kInfo, "join", last.message);
    thrown_out = reason == RefusalReason::kRevoked;
    if (last.code != ErrorCode::kUnavailable) answered.insert(asked);
    // Somebody else may be the one who invites; but the code may be wrong, which is to be said soon.
    if (last.code == ErrorCode::kInvalidArgument || last.code == ErrorCode::kCorrupt) {
      deadline = std::min(deadline, std::chrono::steady_clock::now() + kAfterRefusal);
    }
  }
  return last;
}

Status JoinWithCode(Home& home, const std::string& name, const std::string& code,
                    const std::vector<std::string>& peers) {
  SHOAL_RETURN_IF_ERROR(MayJoin(home));
  const auto ask = [&](bool& thrown_out) {
    const auto seed = home.node_key().seed();
    return AskToJoin({home.id(), {seed.begin(), seed.end()}, name, code, peers, {}}, thrown_out);
  };
  bool thrown_out = false;
  Result<ReceivedGrant> received = ask(thrown_out);
  if (thrown_out) {
    Log(LogLevel::kWarning, "join", "this device's key was thrown out of that cluster: it takes a new one");
    SHOAL_RETURN_IF_ERROR(home.ReplaceNodeKey(std::time(nullptr)));
    received = ask(thrown_out);
  }
  if (!received.ok()) return received.error();
  return KeepGrant(home, *received);
}

Status JoinCluster(const std::string& home_folder, const std::string& name, const std::string& code,
                   const std::vector<std::string>& peers) {
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<Home> home, Home::Open(home_folder, std::time(nullptr)));
  return JoinWithCode(*home, CleanNodeName(name.empty() ? NodeName(home->id()) : name), code, peers);
}

Status LeaveCluster(const std::string& home_folder) {
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<Home> home, Home::Open(home_folder, std::time(nullptr)));
  if (!home->membership() && home->expired().ok()) {
    return Error{ErrorCode::kNotFound, "this device is in no cluster"};
  }
  return home->ForgetCluster();
}

}  // namespace shoal
