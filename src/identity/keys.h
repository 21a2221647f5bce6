// The Ed25519 key that a node is, and the text form of its public half.
//
// The same key is the node's libp2p identity, so the text form is a libp2p peer id ("12D3KooW..."). Knows no files:
// home.h keeps keys on disk. Nothing here blocks; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace shoal {

// An Ed25519 key pair: of a node, or of a cluster (then it signs certificates). Copyable; keep copies few.
class NodeKey {
 public:
  static constexpr std::size_t kSeedBytes = 32;

  // A new key from the system's random numbers. Errors: kInternal (there are none).
  static Result<NodeKey> Generate();
  // The key of a seed of 32 bytes (RFC 8032). Errors: kCorrupt (another length).
  static Result<NodeKey> FromSeed(std::span<const std::uint8_t> seed);

  NodeKey(const NodeKey&) = default;
  NodeKey& operator=(const NodeKey&) = default;
  ~NodeKey();  // wipes the seed

  const NodeId& id() const { return id_; }
  // Secret.
  std::span<const std::uint8_t, kSeedBytes> seed() const { return seed_; }

 private:
  NodeKey() = default;

  std::array<std::uint8_t, kSeedBytes> seed_{};
  NodeId id_;
};

// The libp2p peer id of a node: base58 of the identity multihash of its public key: 52 characters, "12D3KooW...". Bytes
// that are no public key give "no-key-" and eight hex digits.
std::string PeerIdText(const NodeId& id);

// The reverse. Errors: kInvalidArgument (not base58, not of an Ed25519 key, or too long).
Result<NodeId> ParsePeerId(std::string_view text);

}  // namespace shoal
