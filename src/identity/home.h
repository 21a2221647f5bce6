// The folder of one node (SHOAL_HOME): its key, what makes it a member, and what it should remember over restarts.
//
//   node.key        seed of the node's key, 32 bytes           certificate     this node's certificate
//   cluster.key     seed of the cluster's key (owner only)     cluster.secret  32 bytes that all members share
//   revocations     u16 length + revocation, repeated          peers.json      discovery/address_book.h
//   incarnation     a decimal number                           serial          the last one issued (owner only)
//   members         names of whom this owner let in            lock            held while a node runs here
//
// The folder is 0700, the files 0600; each is written whole beside its place, synced and renamed, so a crash leaves the
// old or the new file and never half of one. What breaks its format is an error that names the file, never a silent new
// identity. Not thread-safe: one thread at a time (the control loop). Every call that writes blocks on the disk, but
// for peers.json, which a node can do without and a power cut may spoil.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "identity/certificate.h"
#include "identity/crypto.h"
#include "identity/keys.h"
#include "identity/state_files.h"

namespace shoal {

inline constexpr std::size_t kPeersFileBytesMax = 256 * 1024;

// $SHOAL_HOME, else $HOME/.shoal. Errors: kNotFound (neither is set).
Result<std::string> DefaultHomeFolder();

// What a member has.
struct Membership {
  Certificate certificate;
  SecretKey cluster_secret;
  std::optional<NodeKey> cluster_key;  // on the device that created the cluster

  const NodeId& cluster() const { return certificate.cluster; }
  bool is_owner() const { return cluster_key.has_value(); }
};

class Home {
 public:
  // Opens `folder`, creating it and a new node key when absent, and takes its lock until the Home is destroyed.
  // An owner whose certificate has expired at `now_s`, or is for another key, issues itself a new one. For any other
  // node the first is no membership (expired() says so), the second an error.
  // Errors: kUnavailable (a node runs in this folder), kIo (permissions, disk full, read-only; says which file),
  // kCorrupt (a file breaks its format; says which and what to do).
  static Result<std::unique_ptr<Home>> Open(const std::string& folder, std::int64_t now_s);
  ~Home();
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  const std::string& folder() const { return folder_; }
  // Where the CLI finds the running node.
  std::string ControlSocketPath() const { return folder_ + "/control.sock"; }

  const NodeKey& node_key() const { return *node_key_; }
  const NodeId& id() const { return node_key_->id(); }
  // Nothing before CreateCluster or StoreGrant.
  const std::optional<Membership>& membership() const { return membership_; }
  // kStale, and what to do, when there is no membership because its certificate has expired.
  const Status& expired() const { return expired_; }
  // Whether node.key was made by this Open.
  bool is_new() const { return is_new_; }

  // Makes a cluster of which this node is owner and first member, named `name`.
  // Errors: kInvalidArgument (already a member; a bad name), kIo.
  Status CreateCluster(std::string_view name, std::int64_t now_s);

  // Becomes a member by what an inviter granted. Errors: kInvalidArgument (already a member of another cluster; the
  // certificate is for another key), kIo.
  Status StoreGrant(const Certificate& certificate, const SecretKey& cluster_secret);

  // Whether this node's cluster is its own and it has never invited nor revoked anybody.
  // Errors: kIo, kCorrupt (of the file with the serials).
  Result<bool> HasNeverInvited() const;

  // Leaves for good: removes the certificate, the secret, the cluster key, revocations and peers. Keeps the node key.
  // An owner's cluster can admit nobody after this. Errors: kIo.
  Status ForgetCluster();

  // A new node key, because a clone of this one runs elsewhere. An owner issues itself a new certificate; any other
  // node is no member afterwards. Errors: kIo, kInternal.
  Status ReplaceNodeKey(std::int64_t now_s);

  // The serial for the next certificate or revocation of an owner: higher than all before and at least `now_s` (so that
  // copies of an owner's folder still agree which is later); on disk before it returns.
  // Errors: kUnavailable (not the owner), kIo, kCorrupt.
  Result<std::uint64_t> NextSerial(std::int64_t now_s);

  // Voids all certificates issued to `member` so far; stores and returns the revocation.
  // Errors: kUnavailable (not the owner), kInvalidArgument (itself), kOverloaded (kRevocationsMax), kIo.
  Result<Revocation> Revoke(const NodeId& member, std::int64_t now_s);

  // Stores a revocation heard from a member, instead of an older one of the same node; true when it was news. Errors:
  // kInvalidArgument (no member, or of another cluster), kOverloaded, kIo.
  Result<bool> AddRevocation(const Revocation& revocation);

  // Keeps the name in a member's certificate, so that one that was lost long ago can still be named: on the owner's
  // device only, and not of those that were thrown out. Writes news only, and does not wait for the disk. Errors:
  // kOverloaded (kKnownMembersMax), kIo.
  Status Remember(const NodeId& member, const std::string& name);
  const KnownMembers& known_members() const { return known_members_; }

  const std::vector<Revocation>& revocations() const { return revocations_; }
  // Whether one of the revocations covers this certificate.
  bool IsRevoked(const Certificate& certificate) const;

  // The next incarnation: one more than ever before in this folder and at least `at_least`; on disk before it returns.
  // Errors: kIo, kCorrupt.
  Result<std::uint64_t> NextIncarnation(std::uint64_t at_least);

  // peers.json as it is; empty when there is none or it is larger than kPeersFileBytesMax. Errors: kIo.
  Result<std::string> LoadPeers() const;
  // Does not wait for the disk. Errors: kInvalidArgument (larger than kPeersFileBytesMax), kIo.
  Status StorePeers(std::string_view json) const;

 private:
  Home() = default;
  Status LoadNodeKey();
  Status LoadMembership(std::int64_t now_s);
  Status LoadRevocations();
  Status LoadKnownMembers();
  Result<std::uint64_t> LastCount(const char* name) const;
  Result<std::uint64_t> NextCount(const char* name, std::uint64_t at_least) const;
  Result<Certificate> IssueOwn(const NodeKey& cluster_key, const NodeId& member, std::string_view name,
                               std::int64_t now_s) const;
  std::string Path(std::string_view name) const { return folder_ + "/" + std::string(name); }

  std::string folder_;
  int lock_fd_ = -1;
  bool is_new_ = false;
  std::optional<NodeKey> node_key_;
  std::optional<Membership> membership_;
  Status expired_;
  NodeId expired_cluster_;
  std::vector<Revocation> revocations_;
  KnownMembers known_members_;
};

}  // namespace shoal
