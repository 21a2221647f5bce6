// What stands in those files of SHOAL_HOME that are more than a key: bytes to values and back. Pure.
//
// Files may be cut, broken or somebody else's work: every error is kCorrupt and says what is wrong; home.h names the
// file and what to do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "identity/certificate.h"
#include "identity/crypto.h"

namespace shoal {

inline constexpr std::size_t kRevocationsMax = 1024;
inline constexpr std::size_t kRevocationsFileBytesMax = kRevocationsMax * (2 + kRevocationBytesMax);
inline constexpr std::size_t kKnownMembersMax = 1024;
inline constexpr std::size_t kKnownMembersFileBytesMax = kKnownMembersMax * 256;
inline constexpr std::size_t kNumberFileBytesMax = 32;

// u16 length and a revocation of `cluster`, repeated. Precondition of the encoder (CHECK): at most kRevocationsMax.
Result<std::vector<Revocation>> ParseRevocations(ByteSpan bytes, const NodeId& cluster);
Bytes EncodeRevocations(const std::vector<Revocation>& revocations);

using KnownMembers = std::map<NodeId, std::string>;  // what people call them

// Lines of a peer id, a space and a name. Precondition of the encoder (CHECK): at most kKnownMembersMax.
Result<KnownMembers> ParseKnownMembers(ByteSpan bytes);
Bytes EncodeKnownMembers(const KnownMembers& members);

// A decimal number with or without a newline, below 2^64 - 1, so that one more can follow.
Result<std::uint64_t> ParseNumber(ByteSpan bytes);
Bytes EncodeNumber(std::uint64_t number);

}  // namespace shoal
