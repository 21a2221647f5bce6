// Lengths before bytes, and every byte used.
#include "identity/state_files.h"

#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "identity/keys.h"

namespace shoal {
namespace {

Error Corrupt(std::string what) { return {ErrorCode::kCorrupt, std::move(what)}; }

}  // namespace

Result<std::vector<Revocation>> ParseRevocations(ByteSpan bytes, const NodeId& cluster) {
  std::vector<Revocation> revocations;
  while (!bytes.empty()) {
    if (bytes.size() < 2) return Corrupt("cut");
    const std::size_t length = bytes[0] + 256U * bytes[1];
    if (length > bytes.size() - 2) return Corrupt("cut");
    Result<Revocation> revocation = ParseRevocation(bytes.subspan(2, length), cluster);
    if (!revocation.ok()) return Corrupt(revocation.error().message);
    if (revocations.size() == kRevocationsMax) return Corrupt("too many entries");
    revocations.push_back(*std::move(revocation));
    bytes = bytes.subspan(2 + length);
  }
  return revocations;
}

Bytes EncodeRevocations(const std::vector<Revocation>& revocations) {
  SHOAL_CHECK(revocations.size() <= kRevocationsMax);
  Bytes bytes;
  for (const Revocation& revocation : revocations) {
    bytes.push_back(static_cast<std::uint8_t>(revocation.encoded.size() % 256));
    bytes.push_back(static_cast<std::uint8_t>(revocation.encoded.size() / 256));
    bytes.insert(bytes.end(), revocation.encoded.begin(), revocation.encoded.end());
  }
  return bytes;
}

Result<KnownMembers> ParseKnownMembers(ByteSpan bytes) {
  KnownMembers members;
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty()) {
    const std::size_t end = text.find('\n'), space = text.find(' ');
    if (end == std::string_view::npos) return Corrupt("cut");
    if (space > end) return Corrupt("a line without a name");
    const Result<NodeId> id = ParsePeerId(text.substr(0, space));
    if (!id.ok()) return Corrupt(id.error().message);
    if (members.size() == kKnownMembersMax) return Corrupt("too many entries");
    const bool is_new = members.emplace(*id, text.substr(space + 1, end - space - 1)).second;
    if (!is_new) return Corrupt("an entry twice");
    text.remove_prefix(end + 1);
  }
  return members;
}

Bytes EncodeKnownMembers(const KnownMembers& members) {
  SHOAL_CHECK(members.size() <= kKnownMembersMax);
  std::string text;
  for (const auto& [id, name] : members) text += PeerIdText(id) + " " + name + "\n";
  return {text.begin(), text.end()};
}

Result<std::uint64_t> ParseNumber(ByteSpan bytes) {
  const char* const first = reinterpret_cast<const char*>(bytes.data());
  const char* const end = first + bytes.size();
  std::uint64_t number = 0;
  const auto [rest, error] = std::from_chars(first, end, number);
  const bool whole = rest == end || (rest + 1 == end && *rest == '\n');
  if (error != std::errc() || !whole || number == UINT64_MAX) return Corrupt("not a number");
  return number;
}

Bytes EncodeNumber(std::uint64_t number) {
  const std::string text = std::to_string(number) + "\n";
  return {text.begin(), text.end()};
}

}  // namespace shoal
