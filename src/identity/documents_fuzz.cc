// Any bytes as a certificate, a revocation or a message of the gate: reading never crashes, and what is accepted is
// what its maker writes.
//
// Bytes that nobody signed end at the signature, so the same bytes are also tried with a signature of our own cluster.
#include <shoal_net.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

using Key = std::array<std::uint8_t, SN_KEY_BYTES>;

constexpr Key kSeed = {1, 2, 3};
constexpr std::size_t kClusterAt = 5;  // after "SHLC" or "SHLR" and the version

Key Cluster() {
  Key cluster{};
  SHOAL_CHECK(sn_key_public(kSeed.data(), cluster.data()) == SN_OK);
  return cluster;
}

// `body` as a document that the cluster signed.
Bytes Signed(Bytes body) {
  const Key cluster = Cluster();
  if (body.size() >= kClusterAt + cluster.size()) std::copy(cluster.begin(), cluster.end(), body.begin() + kClusterAt);
  std::array<std::uint8_t, SN_SIGNATURE_BYTES> signature{};
  SHOAL_CHECK(sn_sign(kSeed.data(), body.data(), body.size(), signature.data()) == SN_OK);
  body.insert(body.end(), signature.begin(), signature.end());
  return body;
}

bool IsRefusal(std::int64_t status) { return status == SN_EFORMAT || status == SN_EFORGED; }

void TryCertificate(const Bytes& bytes) {
  sn_certificate fields{};
  const int status = sn_certificate_verify(bytes.data(), bytes.size(), nullptr, 0, &fields);
  if (status != SN_OK) {
    SHOAL_CHECK(IsRefusal(status));
    return;
  }
  SHOAL_CHECK(bytes.size() <= SN_CERTIFICATE_BYTES_MAX);
  if (!std::ranges::equal(Cluster(), fields.cluster)) return;  // of a cluster whose seed is not known here
  Bytes again(SN_CERTIFICATE_BYTES_MAX);
  const std::int64_t size = sn_certificate_issue(kSeed.data(), &fields, again.data(), again.size());
  SHOAL_CHECK(size > 0);
  again.resize(static_cast<std::size_t>(size));
  SHOAL_CHECK(again == bytes);  // Ed25519 signs deterministically
}

void TryRevocation(const Bytes& bytes) {
  const Key cluster = Cluster();
  sn_revocation fields{};
  const int status = sn_revocation_verify(bytes.data(), bytes.size(), cluster.data(), &fields);
  if (status != SN_OK) {
    SHOAL_CHECK(IsRefusal(status));
    return;
  }
  Bytes again(SN_REVOCATION_BYTES_MAX);
  const std::int64_t size = sn_revocation_issue(kSeed.data(), &fields, again.data(), again.size());
  SHOAL_CHECK(size > 0);
  again.resize(static_cast<std::size_t>(size));
  SHOAL_CHECK(again == bytes);
}

void TryGateMessage(const Bytes& bytes) {
  Bytes again(SN_GATE_MESSAGE_BYTES_MAX);
  const std::int64_t size = sn_gate_message_check(bytes.data(), bytes.size(), again.data(), again.size());
  if (size < 0) {
    SHOAL_CHECK(size == SN_EFORMAT);
    return;
  }
  again.resize(static_cast<std::size_t>(size));
  if (!bytes.empty() && bytes[0] == 4) return;  // a refusal for a reason that is not known is read as another one
  SHOAL_CHECK(again == bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes bytes(data, data + size);
  TryGateMessage(bytes);
  TryCertificate(bytes);
  TryRevocation(bytes);
  if (size > SN_CERTIFICATE_BYTES_MAX) return 0;
  const Bytes with_signature = Signed(bytes);
  TryCertificate(with_signature);
  TryRevocation(with_signature);
  return 0;
}
