// Certificates and revocations over net/include/shoal_net.h, and what may be a name. Holds no state.
#include "identity/certificate.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "shoal_net.h"

namespace shoal {
namespace {

static_assert(kCertificateBytesMax == SN_CERTIFICATE_BYTES_MAX && kRevocationBytesMax == SN_REVOCATION_BYTES_MAX);
static_assert(kNodeNameBytesMax == SN_NAME_CAP - 1);

// The bytes of the UTF-8 character that `text` begins with; 0 when it is none (RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF).
std::size_t Utf8Length(std::string_view text) {
  const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<std::uint8_t>(text[i]) : 0; };
  const auto continues = [&](std::size_t i) { return (at(i) & 0xC0) == 0x80; };
  const int first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && at(1) < 0xA0;
    const bool surrogate = first == 0xED && at(1) >= 0xA0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && at(1) < 0x90;
    const bool beyond = first == 0xF4 && at(1) >= 0x90;
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

// C0, DEL and C1, by the bytes of one UTF-8 character.
bool IsControl(std::string_view character) {
  const auto first = static_cast<std::uint8_t>(character[0]);
  if (character.size() == 1) return first < 0x20 || first == 0x7F;
  return character.size() == 2 && first == 0xC2 && static_cast<std::uint8_t>(character[1]) < 0xA0;
}

NodeId IdOf(const std::uint8_t (&bytes)[SN_KEY_BYTES]) {
  NodeId id;
  std::copy(std::begin(bytes), std::end(bytes), id.bytes.begin());
  return id;
}

}  // namespace

std::string CleanNodeName(std::string_view text) {
  std::string name;
  while (!text.empty()) {
    const std::size_t length = Utf8Length(text);
    const std::string_view character = text.substr(0, std::max<std::size_t>(length, 1));
    text.remove_prefix(character.size());
    if (length == 0 || IsControl(character)) continue;
    if (name.size() + length > kNodeNameBytesMax) break;
    name += character;
  }
  return name.empty() ? "node" : name;
}

Result<Certificate> IssueCertificate(const NodeKey& cluster, const NodeId& member, std::string_view name,
                                     std::uint64_t serial, std::int64_t now_s) {
  if (name.empty() || name.size() > kNodeNameBytesMax || CleanNodeName(name) != name) {
    return Error{ErrorCode::kInvalidArgument, "the name of a node is 1 to " + std::to_string(kNodeNameBytesMax) +
                                                  " bytes of UTF-8 without control characters"};
  }
  sn_certificate fields{};
  std::copy(member.bytes.begin(), member.bytes.end(), fields.member);
  fields.serial = serial;
  fields.issued_s = now_s;
  fields.expires_s = now_s + kCertificateLifetimeS;
  std::memcpy(fields.name, name.data(), name.size());
  std::uint8_t out[SN_CERTIFICATE_BYTES_MAX];
  const std::int64_t bytes = sn_certificate_issue(cluster.seed().data(), &fields, out, sizeof out);
  if (bytes <= 0 || bytes > static_cast<std::int64_t>(sizeof out)) {
    return Error{ErrorCode::kInternal, "issuing a certificate failed with code " + std::to_string(bytes)};
  }
  return ParseCertificate({out, static_cast<std::size_t>(bytes)}, 0);
}

Result<Certificate> ParseCertificate(ByteSpan bytes, std::int64_t now_s) {
  sn_certificate fields{};
  const int code = sn_certificate_verify(bytes.data(), bytes.size(), nullptr, now_s, &fields);
  if (code == SN_EEXPIRED) {
    return Error{ErrorCode::kStale,
                 "the certificate has expired (if the clock of this device is right): ask for a "
                 "new invite and join again"};
  }
  if (code == SN_EFORGED) return Error{ErrorCode::kCorrupt, "the signature of the certificate is wrong"};
  if (code != SN_OK) return Error{ErrorCode::kCorrupt, "not a certificate"};
  Certificate certificate;
  certificate.cluster = IdOf(fields.cluster);
  certificate.member = IdOf(fields.member);
  certificate.name.assign(fields.name, strnlen(fields.name, sizeof fields.name));
  certificate.serial = fields.serial;
  certificate.issued_s = fields.issued_s;
  certificate.expires_s = fields.expires_s;
  certificate.encoded.assign(bytes.begin(), bytes.end());
  return certificate;
}

Result<Revocation> IssueRevocation(const NodeKey& cluster, const NodeId& member, std::uint64_t serial,
                                   std::int64_t now_s) {
  sn_revocation fields{};
  std::copy(member.bytes.begin(), member.bytes.end(), fields.member);
  fields.serial = serial;
  fields.revoked_s = now_s;
  std::uint8_t out[SN_REVOCATION_BYTES_MAX];
  const std::int64_t bytes = sn_revocation_issue(cluster.seed().data(), &fields, out, sizeof out);
  if (bytes <= 0 || bytes > static_cast<std::int64_t>(sizeof out)) {
    return Error{ErrorCode::kInternal, "issuing a revocation failed with code " + std::to_string(bytes)};
  }
  return ParseRevocation({out, static_cast<std::size_t>(bytes)}, cluster.id());
}

Result<Revocation> ParseRevocation(ByteSpan bytes, const NodeId& cluster) {
  sn_revocation fields{};
  const int code = sn_revocation_verify(bytes.data(), bytes.size(), cluster.bytes.data(), &fields);
  if (code == SN_EFORGED) return Error{ErrorCode::kCorrupt, "the revocation is not signed by this cluster"};
  if (code != SN_OK) return Error{ErrorCode::kCorrupt, "not a revocation"};
  Revocation revocation;
  revocation.cluster = IdOf(fields.cluster);
  revocation.member = IdOf(fields.member);
  revocation.serial = fields.serial;
  revocation.revoked_s = fields.revoked_s;
  revocation.encoded.assign(bytes.begin(), bytes.end());
  return revocation;
}

}  // namespace shoal
