// What makes a node a member: a certificate signed by the cluster's key; and what ends that: a revocation.
//
// Encoded, signed and checked in net/, in the same code that the connection gate runs, so that C++ and the gate cannot
// disagree about a certificate. Knows no clock: callers pass Unix seconds. Nothing blocks; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "identity/crypto.h"
#include "identity/keys.h"

namespace shoal {

inline constexpr std::size_t kCertificateBytesMax = 512;
inline constexpr std::size_t kRevocationBytesMax = 256;
inline constexpr std::size_t kNodeNameBytesMax = 63;
inline constexpr std::int64_t kCertificateLifetimeS = 10LL * 365 * 24 * 3600;

// A verified certificate: there is no way to get one that is not, but to fill the fields by hand.
struct Certificate {
  NodeId cluster;  // the cluster's public key, which signed it
  NodeId member;
  std::string name;  // of the member, for people: UTF-8 without control characters, 1 to kNodeNameBytesMax bytes
  std::uint64_t serial = 0;    // higher in every later certificate of the cluster
  std::int64_t issued_s = 0;   // Unix seconds
  std::int64_t expires_s = 0;  // Unix seconds
  Bytes encoded;               // as it goes over the wire and to disk

  bool operator==(const Certificate&) const = default;
};

// Signs a certificate with the cluster's key, valid from `now_s` for kCertificateLifetimeS.
// Errors: kInvalidArgument (name empty, too long, not UTF-8 or with control characters).
Result<Certificate> IssueCertificate(const NodeKey& cluster, const NodeId& member, std::string_view name,
                                     std::uint64_t serial, std::int64_t now_s);

// Reads a certificate and checks its signature by the cluster that it names. Whether that is *our* cluster is for the
// caller to compare. Only the expiry is held against the clock: boards without one live in the past.
// Errors: kCorrupt (not a certificate, or the signature is not the cluster's), kStale (expired at `now_s`).
Result<Certificate> ParseCertificate(ByteSpan bytes, std::int64_t now_s);

// Any text made into a name that a certificate takes: control characters and broken UTF-8 dropped, cut at
// kNodeNameBytesMax bytes, "node" when nothing is left. For host names.
std::string CleanNodeName(std::string_view text);

// A member thrown out: its certificates up to a serial are void. Another invite would make a higher one.
struct Revocation {
  NodeId cluster;
  NodeId member;
  std::uint64_t serial = 0;
  std::int64_t revoked_s = 0;  // Unix seconds; informative
  Bytes encoded;

  bool Covers(const Certificate& certificate) const {
    return certificate.cluster == cluster && certificate.member == member && certificate.serial <= serial;
  }

  bool operator==(const Revocation&) const = default;
};

// Signs a revocation of `member`'s certificates up to `serial` with the cluster's key. Errors: kInternal.
Result<Revocation> IssueRevocation(const NodeKey& cluster, const NodeId& member, std::uint64_t serial,
                                   std::int64_t now_s);

// Reads a revocation and checks that `cluster` signed it.
// Errors: kCorrupt (not a revocation, or of another cluster, or the signature is wrong).
Result<Revocation> ParseRevocation(ByteSpan bytes, const NodeId& cluster);

}  // namespace shoal
