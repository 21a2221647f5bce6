// Node keys and peer ids over net/include/shoal_net.h. Holds no state.
#include "identity/keys.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "shoal_net.h"

namespace shoal {
namespace {

// Longer text is no peer id; short enough to copy for the NUL that C wants.
constexpr std::size_t kPeerIdTextBytesMax = SN_PEER_ID_CAP - 1;

}  // namespace

static_assert(NodeKey::kSeedBytes == SN_KEY_BYTES && sizeof(NodeId::bytes) == SN_KEY_BYTES);

Result<NodeKey> NodeKey::Generate() {
  NodeKey key;
  if (sn_key_generate(key.seed_.data()) != SN_OK) {
    return Error{ErrorCode::kInternal, "no key could be made: the operating system gives no random numbers"};
  }
  SHOAL_CHECK(sn_key_public(key.seed_.data(), key.id_.bytes.data()) == SN_OK);
  return key;
}

Result<NodeKey> NodeKey::FromSeed(std::span<const std::uint8_t> seed) {
  if (seed.size() != kSeedBytes) {
    return Error{ErrorCode::kCorrupt, "a key has 32 bytes, not " + std::to_string(seed.size())};
  }
  NodeKey key;
  std::copy(seed.begin(), seed.end(), key.seed_.begin());
  SHOAL_CHECK(sn_key_public(key.seed_.data(), key.id_.bytes.data()) == SN_OK);
  return key;
}

NodeKey::~NodeKey() {
  // Volatile, so that the compiler does not drop writes that nobody reads.
  volatile std::uint8_t* byte = seed_.data();
  for (std::size_t i = 0; i < seed_.size(); ++i) byte[i] = 0;
}

std::string PeerIdText(const NodeId& id) {
  char text[SN_PEER_ID_CAP] = {};
  // Ids come from peers too: bytes that are no key have no peer id, and still a name for a log.
  if (sn_peer_id(id.bytes.data(), text, sizeof text) != SN_OK) return "no-key-" + ShortHex(id);
  return text;
}

Result<NodeId> ParsePeerId(std::string_view text) {
  NodeId id;
  const bool fits = text.size() <= kPeerIdTextBytesMax && text.find('\0') == std::string_view::npos;
  if (!fits || sn_peer_id_parse(std::string(text).c_str(), id.bytes.data()) != SN_OK) {
    return Error{ErrorCode::kInvalidArgument,
                 "not the id of a node (52 characters that begin with 12D3KooW): " + std::string(text.substr(0, 64))};
  }
  return id;
}

}  // namespace shoal
