// What names things: small integers (plain on purpose: they are array indexes and wire fields), and the id of a node.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

namespace shoal {

using TokenId = std::int32_t;        // an entry of the model's vocabulary
using Position = std::int32_t;       // 0-based index of a token in its sequence
using SequenceId = std::int32_t;     // a slot of the KV cache, 0 .. slots_max-1; the same on every stage
using StageIndex = std::int32_t;     // 0 = the head
using Epoch = std::uint64_t;         // version of a placement; a message of another epoch is refused
using GenerationId = std::uint64_t;  // one request's one choice; never reused within an epoch
using BatchId = std::uint64_t;       // one micro-batch, counted by the head

// Layers [first, last) of a model.
struct LayerRange {
  std::int32_t first = 0;
  std::int32_t last = 0;
  std::int32_t count() const { return last - first; }
  bool operator==(const LayerRange&) const = default;
};

// A node of a cluster: its Ed25519 public key. The text form for people is a libp2p peer id (identity/keys.h). All zero
// is no node.
struct NodeId {
  std::array<std::uint8_t, 32> bytes{};

  bool IsZero() const {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
  }
  auto operator<=>(const NodeId&) const = default;
};

// The first 4 bytes as 8 hex digits: for log lines, where the whole id would be noise. Not unique.
inline std::string ShortHex(const NodeId& id) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < 4; ++i) {
    text += kDigits[id.bytes[i] >> 4];
    text += kDigits[id.bytes[i] & 15];
  }
  return text;
}

}  // namespace shoal

// Public keys are as good as random: eight of their bytes are a hash. Not proof against keys made to collide, so tables
// of ids that strangers can fill have to be bounded.
template <>
struct std::hash<shoal::NodeId> {
  std::size_t operator()(const shoal::NodeId& id) const noexcept {
    std::uint64_t word = 0;
    std::memcpy(&word, id.bytes.data(), sizeof word);
    return static_cast<std::size_t>(word);
  }
};
