// The files of SHOAL_HOME. What one operation writes is ordered so that a crash between two files leaves a folder that
// Open understands: the certificate is written last and makes a member, the cluster key is removed first.
#include "identity/home.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/environment.h"
#include "base/log.h"
#include "identity/private_file.h"

namespace shoal {
namespace {

constexpr char kNodeKeyFile[] = "node.key";
constexpr char kClusterKeyFile[] = "cluster.key";
constexpr char kCertificateFile[] = "certificate";
constexpr char kClusterSecretFile[] = "cluster.secret";
constexpr char kRevocationsFile[] = "revocations";
constexpr char kPeersFile[] = "peers.json";
constexpr char kMembersFile[] = "members";
constexpr char kIncarnationFile[] = "incarnation";
constexpr char kSerialFile[] = "serial";
constexpr char kLockFile[] = "lock";

Error Broken(const std::string& path, const std::string& why, const char* advice) {
  return Error{ErrorCode::kCorrupt, path + " is broken (" + why + "): " + advice};
}

Result<std::optional<NodeKey>> ReadKey(const std::string& path, const char* advice) {
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadPrivateFile(path, NodeKey::kSeedBytes));
  if (!bytes) return std::optional<NodeKey>();
  auto key = NodeKey::FromSeed(*bytes);
  if (!key.ok()) return Broken(path, key.error().message, advice);
  return std::optional<NodeKey>(*key);
}

constexpr char kRestoreKey[] = "restore it from a copy, or remove the folder to start as a new node";
constexpr char kRestoreOwner[] = "restore it from a copy; without it this cluster can admit nobody";
constexpr char kJoinAgain[] = "restore it from a copy, or remove the file and join again";

}  // namespace

Result<std::string> DefaultHomeFolder() {
  if (std::string folder = Environment("SHOAL_HOME"); !folder.empty()) return folder;
  if (const std::string user = Environment("HOME"); !user.empty()) return user + "/.shoal";
  return Error{ErrorCode::kNotFound, "neither SHOAL_HOME nor HOME is set: set SHOAL_HOME to a folder for this node"};
}

Result<std::unique_ptr<Home>> Home::Open(const std::string& folder, std::int64_t now_s) {
  if (folder.empty()) return Error{ErrorCode::kIo, "the folder of the node has no name: set SHOAL_HOME"};
  SHOAL_RETURN_IF_ERROR(MakePrivateFolder(folder));
  std::unique_ptr<Home> home(new Home);
  home->folder_ = folder;
  SHOAL_ASSIGN_OR_RETURN(home->lock_fd_, LockFile(home->Path(kLockFile)));
  SHOAL_RETURN_IF_ERROR(home->LoadNodeKey());
  SHOAL_RETURN_IF_ERROR(home->LoadMembership(now_s));
  SHOAL_RETURN_IF_ERROR(home->LoadRevocations());
  SHOAL_RETURN_IF_ERROR(home->LoadKnownMembers());
  return home;
}

Home::~Home() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

Status Home::LoadNodeKey() {
  SHOAL_ASSIGN_OR_RETURN(node_key_, ReadKey(Path(kNodeKeyFile), kRestoreKey));
  if (node_key_) return {};
  // A certificate without a key is a folder that lost a file; a new key beside it would only hide that.
  SHOAL_ASSIGN_OR_RETURN(const auto certificate, ReadPrivateFile(Path(kCertificateFile), kCertificateBytesMax));
  if (certificate) return Broken(Path(kNodeKeyFile), "absent, beside a certificate", kRestoreKey);
  SHOAL_ASSIGN_OR_RETURN(node_key_, NodeKey::Generate());
  is_new_ = true;
  return WritePrivateFile(Path(kNodeKeyFile), node_key_->seed());
}

Status Home::LoadMembership(std::int64_t now_s) {
  const std::string path = Path(kCertificateFile);
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadPrivateFile(path, kCertificateBytesMax));
  if (!bytes) return {};
  auto certificate = ParseCertificate(*bytes, 0);
  if (!certificate.ok()) return Broken(path, certificate.error().message, kJoinAgain);
  SHOAL_ASSIGN_OR_RETURN(const auto secret, ReadPrivateFile(Path(kClusterSecretFile), sizeof(SecretKey::bytes)));
  if (!secret || secret->size() != sizeof(SecretKey::bytes)) {
    return Broken(Path(kClusterSecretFile), secret ? "not 32 bytes" : "absent, beside a certificate", kJoinAgain);
  }
  Membership membership{*certificate, {}, std::nullopt};
  std::copy(secret->begin(), secret->end(), membership.cluster_secret.bytes.begin());
  SHOAL_ASSIGN_OR_RETURN(membership.cluster_key, ReadKey(Path(kClusterKeyFile), kRestoreOwner));
  if (membership.cluster_key && membership.cluster_key->id() != membership.cluster()) {
    return Broken(Path(kClusterKeyFile), "the key of another cluster than the certificate's", kRestoreOwner);
  }
  const auto fresh = ParseCertificate(*bytes, now_s);
  if (fresh.ok() && certificate->member == id()) {
    membership_ = std::move(membership);
    return {};
  }
  if (!membership.is_owner()) {
    if (!fresh.ok()) {
      expired_ = Error{fresh.error().code, path + ": " + fresh.error().message};
      expired_cluster_ = membership.cluster();
      return {};
    }
    return Broken(path, "for another node key", kJoinAgain);
  }
  SHOAL_ASSIGN_OR_RETURN(membership.certificate, IssueOwn(*membership.cluster_key, id(), certificate->name, now_s));
  membership_ = std::move(membership);
  return WritePrivateFile(path, membership_->certificate.encoded);
}

Status Home::LoadRevocations() {
  const std::string path = Path(kRevocationsFile);
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadPrivateFile(path, kRevocationsFileBytesMax));
  if (!bytes || !membership_) return {};
  Result<std::vector<Revocation>> revocations = ParseRevocations(*bytes, membership_->cluster());
  if (!revocations.ok()) {
    return Broken(path, revocations.error().message, "remove it; the other members tell it again");
  }
  revocations_ = *std::move(revocations);
  return {};
}

Status Home::LoadKnownMembers() {
  const std::string path = Path(kMembersFile);
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadPrivateFile(path, kKnownMembersFileBytesMax));
  if (!bytes || !membership_ || !membership_->is_owner()) return {};
  Result<KnownMembers> members = ParseKnownMembers(*bytes);
  if (members.ok()) {
    known_members_ = *std::move(members);
  } else {  // after a power cut, for nothing waits for it to be on disk
    Log(LogLevel::kWarning, "identity",
        path + " is broken (" + members.error().message +
            "): the names of members are learnt anew from those that come");
  }
  return {};
}

// The number in the file; 0 when there is none.
Result<std::uint64_t> Home::LastCount(const char* name) const {
  const std::string path = Path(name);
  SHOAL_ASSIGN_OR_RETURN(const auto bytes, ReadPrivateFile(path, kNumberFileBytesMax));
  if (!bytes) return std::uint64_t{0};
  const Result<std::uint64_t> last = ParseNumber(*bytes);
  if (last.ok()) return *last;
  return Broken(path, last.error().message, "write a number into it that is higher than the one before, or remove it");
}

// One more than the number in the file, at least `at_least`; written before it returns.
Result<std::uint64_t> Home::NextCount(const char* name, std::uint64_t at_least) const {
  SHOAL_ASSIGN_OR_RETURN(const std::uint64_t last, LastCount(name));
  const std::uint64_t next = std::max(last + 1, at_least);
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(name), EncodeNumber(next)));
  return next;
}

Result<Certificate> Home::IssueOwn(const NodeKey& cluster_key, const NodeId& member, std::string_view name,
                                   std::int64_t now_s) const {
  SHOAL_ASSIGN_OR_RETURN(const std::uint64_t serial,
                         NextCount(kSerialFile, static_cast<std::uint64_t>(std::max<std::int64_t>(now_s, 0))));
  return IssueCertificate(cluster_key, member, name, serial, now_s);
}

Status Home::CreateCluster(std::string_view name, std::int64_t now_s) {
  if (membership_)
    return Error{ErrorCode::kInvalidArgument, "this node is a member of a cluster already: leave it first"};
  SHOAL_ASSIGN_OR_RETURN(const NodeKey cluster_key, NodeKey::Generate());
  SHOAL_ASSIGN_OR_RETURN(const Certificate certificate, IssueOwn(cluster_key, id(), name, now_s));
  Membership membership{certificate, {}, cluster_key};
  SHOAL_RETURN_IF_ERROR(FillRandom(membership.cluster_secret.bytes));
  SHOAL_RETURN_IF_ERROR(RemoveFile(Path(kRevocationsFile)));
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kClusterKeyFile), cluster_key.seed()));
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kClusterSecretFile), membership.cluster_secret.bytes));
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kCertificateFile), certificate.encoded));
  membership_ = std::move(membership);
  return {};
}

Status Home::StoreGrant(const Certificate& certificate, const SecretKey& cluster_secret) {
  if (certificate.member != id()) { return Error{ErrorCode::kInvalidArgument, "the certificate is for another node"}; }
  const bool same = membership_ && membership_->cluster() == certificate.cluster;
  if (membership_ && !same) {
    return Error{ErrorCode::kInvalidArgument, "this node is a member of another cluster: leave it first"};
  }
  Membership membership{certificate, cluster_secret, same ? membership_->cluster_key : std::nullopt};
  if (!same) {
    // Leftovers of a cluster that was never begun or half forgotten; who was thrown out of this one stays out.
    const bool again = !expired_.ok() && expired_cluster_ == certificate.cluster;
    for (const char* name : {kClusterKeyFile, kSerialFile, kMembersFile}) {
      SHOAL_RETURN_IF_ERROR(RemoveFile(Path(name)));
    }
    if (!again) SHOAL_RETURN_IF_ERROR(RemoveFile(Path(kRevocationsFile)));
    revocations_.clear();
    known_members_.clear();
  }
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kClusterSecretFile), cluster_secret.bytes));
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kCertificateFile), certificate.encoded));
  membership_ = std::move(membership);
  expired_ = {};
  return LoadRevocations();
}

// Every invite and every revocation takes a serial after that of the owner's own certificate.
Result<bool> Home::HasNeverInvited() const {
  if (!membership_ || !membership_->is_owner()) return false;
  SHOAL_ASSIGN_OR_RETURN(const std::uint64_t last, LastCount(kSerialFile));
  return last == membership_->certificate.serial;
}

Status Home::ForgetCluster() {
  for (const char* name : {kClusterKeyFile, kCertificateFile, kClusterSecretFile, kRevocationsFile, kSerialFile,
                           kPeersFile, kMembersFile}) {
    SHOAL_RETURN_IF_ERROR(RemoveFile(Path(name)));
  }
  membership_.reset();
  expired_ = {};
  revocations_.clear();
  known_members_.clear();
  return {};
}

Status Home::ReplaceNodeKey(std::int64_t now_s) {
  SHOAL_ASSIGN_OR_RETURN(const NodeKey key, NodeKey::Generate());
  if (!membership_ || !membership_->is_owner()) {
    SHOAL_RETURN_IF_ERROR(ForgetCluster());
    SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kNodeKeyFile), key.seed()));
    node_key_ = key;
    return {};
  }
  const std::string name = membership_->certificate.name;
  SHOAL_ASSIGN_OR_RETURN(Certificate certificate, IssueOwn(*membership_->cluster_key, key.id(), name, now_s));
  // A crash between the two: Open sees a certificate for another key and, being the owner's, issues a new one.
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kNodeKeyFile), key.seed()));
  node_key_ = key;
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kCertificateFile), certificate.encoded));
  membership_->certificate = std::move(certificate);
  return {};
}

Result<std::uint64_t> Home::NextSerial(std::int64_t now_s) {
  if (!membership_ || !membership_->is_owner()) {
    return Error{ErrorCode::kUnavailable,
                 "this node does not hold the cluster's key: ask on the device that created it"};
  }
  return NextCount(kSerialFile, static_cast<std::uint64_t>(std::max<std::int64_t>(now_s, 0)));
}

Result<Revocation> Home::Revoke(const NodeId& member, std::int64_t now_s) {
  if (member == id()) return Error{ErrorCode::kInvalidArgument, "a node cannot revoke itself: use `shoal leave`"};
  SHOAL_ASSIGN_OR_RETURN(const std::uint64_t serial, NextSerial(now_s));
  SHOAL_ASSIGN_OR_RETURN(Revocation revocation, IssueRevocation(*membership_->cluster_key, member, serial, now_s));
  SHOAL_ASSIGN_OR_RETURN(const bool added, AddRevocation(revocation));
  SHOAL_CHECK(added);  // its serial is the highest
  return revocation;
}

Result<bool> Home::AddRevocation(const Revocation& revocation) {
  if (!membership_ || membership_->cluster() != revocation.cluster) {
    return Error{ErrorCode::kInvalidArgument, "a revocation of another cluster"};
  }
  std::vector<Revocation> changed = revocations_;
  const auto known = std::find_if(changed.begin(), changed.end(),
                                  [&](const Revocation& other) { return other.member == revocation.member; });
  if (known != changed.end()) {
    if (known->serial >= revocation.serial) return false;
    *known = revocation;
  } else {
    if (changed.size() == kRevocationsMax) {
      return Error{ErrorCode::kOverloaded, "the list of revocations is full (" + std::to_string(kRevocationsMax) +
                                               "): make a new cluster and invite the members again"};
    }
    changed.push_back(revocation);
  }
  SHOAL_RETURN_IF_ERROR(WritePrivateFile(Path(kRevocationsFile), EncodeRevocations(changed)));
  revocations_ = std::move(changed);
  if (known_members_.erase(revocation.member) > 0) {
    (void)WritePrivateFile(Path(kMembersFile), EncodeKnownMembers(known_members_));  // a name too many does no harm
  }
  return true;
}

Status Home::Remember(const NodeId& member, const std::string& name) {
  if (!membership_ || !membership_->is_owner() || member == id()) return {};
  const std::string clean = CleanNodeName(name);
  const auto known = known_members_.find(member);
  if (known != known_members_.end() && known->second == clean) return {};
  const bool thrown_out = std::any_of(revocations_.begin(), revocations_.end(),
                                      [&](const Revocation& one) { return one.member == member; });
  if (thrown_out) return {};
  KnownMembers changed = known_members_;
  changed[member] = clean;
  if (changed.size() > kKnownMembersMax) return Error{ErrorCode::kOverloaded, "too many members to remember all names"};
  const Bytes file = EncodeKnownMembers(changed);
  SHOAL_RETURN_IF_ERROR(WritePrivateHint(Path(kMembersFile), std::string(file.begin(), file.end())));
  known_members_ = std::move(changed);
  return {};
}

bool Home::IsRevoked(const Certificate& certificate) const {
  return std::any_of(revocations_.begin(), revocations_.end(),
                     [&](const Revocation& revocation) { return revocation.Covers(certificate); });
}

Result<std::uint64_t> Home::NextIncarnation(std::uint64_t at_least) { return NextCount(kIncarnationFile, at_least); }

Result<std::string> Home::LoadPeers() const {
  const auto bytes = ReadPrivateFile(Path(kPeersFile), kPeersFileBytesMax);
  if (!bytes.ok() && bytes.error().code == ErrorCode::kCorrupt) return std::string();
  if (!bytes.ok()) return bytes.error();
  if (!bytes.value()) return std::string();
  return std::string(bytes.value()->begin(), bytes.value()->end());
}

Status Home::StorePeers(std::string_view json) const {
  if (json.size() > kPeersFileBytesMax) return Error{ErrorCode::kInvalidArgument, "peers.json would be too large"};
  return WritePrivateHint(Path(kPeersFile), json);  // the loop must not wait for the disk
}

}  // namespace shoal
