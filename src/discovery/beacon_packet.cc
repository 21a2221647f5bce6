// The text of a beacon packet field by field, and its seal. Holds no state.
#include "discovery/beacon_packet.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kAddressBytes = 16;
constexpr std::size_t kFixedBytes = 2 + 32 + 7 * 8 + 2 * 2 + 1;
static_assert(kFixedBytes + kBeaconAddressesMax * (1 + kAddressBytes) <= kBeaconTextBytes);

using AddressField = std::array<std::uint8_t, 1 + kAddressBytes>;  // family, then the address, zeros after IPv4

std::optional<AddressField> FieldOf(const std::string& text) {
  AddressField field{};
  if (inet_pton(AF_INET, text.c_str(), field.data() + 1) == 1) {
    field[0] = 4;
    return field;
  }
  if (inet_pton(AF_INET6, text.c_str(), field.data() + 1) == 1) {
    field[0] = 6;
    return field;
  }
  return std::nullopt;
}

// Nothing for an unknown family, or when bytes follow an IPv4 address.
std::optional<std::string> TextOf(std::span<const std::uint8_t> field) {
  if (field.size() != 1 + kAddressBytes || (field[0] != 4 && field[0] != 6)) return std::nullopt;
  const auto is_zero = [](std::uint8_t byte) { return byte == 0; };
  if (field[0] == 4 && !std::all_of(field.begin() + 5, field.end(), is_zero)) return std::nullopt;
  char text[INET6_ADDRSTRLEN] = {};
  SHOAL_CHECK(inet_ntop(field[0] == 4 ? AF_INET : AF_INET6, field.data() + 1, text, sizeof text) != nullptr);
  return text;
}

}  // namespace

SecretKey BeaconClusterKey(const SecretKey& cluster_secret) {
  return DeriveKey(cluster_secret.bytes, "shoal beacon of a cluster, 1");
}

SecretKey BeaconInviteKey(const InviteSecret& secret) { return DeriveKey(secret, "shoal beacon of an invite, 1"); }

Bytes EncodeBeaconText(const BeaconPacket& packet) {
  std::vector<AddressField> fields;
  for (const std::string& address : packet.addresses) {
    const std::optional<AddressField> field = FieldOf(address);
    if (field && fields.size() < kBeaconAddressesMax) fields.push_back(*field);
  }
  Bytes text;
  text.reserve(kBeaconTextBytes);
  ByteWriter out(text);
  out.Put(kVersion);
  out.Put(static_cast<std::uint8_t>(packet.kind));
  out.PutArray(std::span<const std::uint8_t>(packet.node.bytes));
  out.Put(packet.instance);
  out.Put(packet.uptime_us);
  out.Put(packet.unix_ms);
  out.Put(packet.sequence);
  out.Put(packet.echo_instance);
  out.Put(packet.echo_sequence);
  out.Put(packet.port);
  out.Put(static_cast<std::uint8_t>(fields.size()));
  for (const AddressField& field : fields) out.PutArray(std::span<const std::uint8_t>(field));
  SHOAL_CHECK(text.size() <= kBeaconTextBytes);
  text.resize(kBeaconTextBytes);
  return text;
}

std::optional<BeaconPacket> DecodeBeaconText(ByteSpan text) {
  if (text.size() != kBeaconTextBytes) return std::nullopt;
  ByteReader in(text);
  BeaconPacket packet;
  if (in.Get<std::uint8_t>() != kVersion) return std::nullopt;
  const auto kind = in.Get<std::uint8_t>();
  if (kind < static_cast<std::uint8_t>(BeaconKind::kHello) || kind > static_cast<std::uint8_t>(BeaconKind::kOffer)) {
    return std::nullopt;
  }
  packet.kind = static_cast<BeaconKind>(kind);
  const auto node = in.Take(packet.node.bytes.size());
  std::copy(node.begin(), node.end(), packet.node.bytes.begin());
  packet.instance = in.Get<std::uint64_t>();
  packet.uptime_us = in.Get<std::int64_t>();
  packet.unix_ms = in.Get<std::int64_t>();
  packet.sequence = in.Get<std::uint64_t>();
  packet.echo_instance = in.Get<std::uint64_t>();
  packet.echo_sequence = in.Get<std::uint64_t>();
  packet.port = in.Get<std::uint16_t>();
  const auto count = in.Get<std::uint8_t>();
  if (count > kBeaconAddressesMax || packet.uptime_us < 0) return std::nullopt;
  for (std::uint8_t i = 0; i < count; ++i) {
    std::optional<std::string> address = TextOf(in.Take(1 + kAddressBytes));
    if (!address) return std::nullopt;
    packet.addresses.push_back(std::move(*address));
  }
  const auto padding = in.Take(in.remaining());
  if (in.failed() || !std::all_of(padding.begin(), padding.end(), [](std::uint8_t byte) { return byte == 0; })) {
    return std::nullopt;
  }
  return packet;
}

Result<Bytes> SealBeacon(const SecretKey& key, const BeaconPacket& packet) {
  return Seal(key, EncodeBeaconText(packet));
}

std::optional<BeaconPacket> OpenBeacon(const SecretKey& key, ByteSpan bytes) {
  if (bytes.size() != kBeaconPacketBytes) return std::nullopt;
  const std::optional<Bytes> text = Open(key, bytes);
  if (!text) return std::nullopt;
  return DecodeBeaconText(*text);
}

}  // namespace shoal
