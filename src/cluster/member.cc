// Names, precedence and hashes of member records. Knows no messages.
#include "cluster/member.h"

#include <cstring>
#include <utility>

namespace shoal {

std::string_view MemberStateName(MemberState state) {
  switch (state) {
    case MemberState::kAlive: return "alive";
    case MemberState::kSuspect: return "suspect";
    case MemberState::kDead: return "dead";
    case MemberState::kLeft: return "left";
  }
  return "unknown";
}

bool Supersedes(std::uint64_t incarnation_a, MemberState state_a, std::uint64_t incarnation_b, MemberState state_b) {
  return std::pair(incarnation_a, state_a) > std::pair(incarnation_b, state_b);
}

// The finalizer of splitmix64 over both words.
std::uint64_t MixHash(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15 + b + 0xD1B54A32D192ED03;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

std::uint64_t HashOf(const NodeId& id) {
  return HashOf(std::string_view(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()));
}

std::uint64_t HashOf(std::string_view text) {
  std::uint64_t hash = text.size();
  for (std::size_t at = 0; at < text.size(); at += sizeof(std::uint64_t)) {
    const std::string_view part = text.substr(at, sizeof(std::uint64_t));
    std::uint64_t word = 0;
    std::memcpy(&word, part.data(), part.size());
    hash = MixHash(hash, word);
  }
  return hash;
}

}  // namespace shoal
