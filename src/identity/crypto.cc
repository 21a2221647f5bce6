// The functions of crypto.h over net/include/shoal_net.h.
#include "identity/crypto.h"

#include "base/check.h"
#include "shoal_net.h"

namespace shoal {

static_assert(sizeof(SecretKey::bytes) == SN_KEY_BYTES);
static_assert(kSealOverheadBytes == SN_SEAL_BYTES);

bool SecretKey::operator==(const SecretKey& other) const {
  return sn_equal(bytes.data(), other.bytes.data(), bytes.size()) == 1;
}

Status FillRandom(std::span<std::uint8_t> out) {
  if (sn_random(out.data(), out.size()) == SN_OK) return {};
  return Error{ErrorCode::kInternal, "the operating system gives no random numbers"};
}

Digest Sha256(ByteSpan message) {
  Digest digest;
  SHOAL_CHECK(sn_sha256(message.data(), message.size(), digest.data()) == SN_OK);
  return digest;
}

Digest Sha256(std::string_view text) {
  return Sha256(ByteSpan(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
}

Sha256Stream::Sha256Stream() : state_(sn_sha256_new()) {}
Sha256Stream::~Sha256Stream() { sn_sha256_finish(static_cast<sn_sha256_state*>(state_), nullptr); }

void Sha256Stream::Update(ByteSpan piece) {
  SHOAL_CHECK(sn_sha256_update(static_cast<sn_sha256_state*>(state_), piece.data(), piece.size()) == SN_OK);
}

Digest Sha256Stream::Finish() {
  SHOAL_CHECK(state_ != nullptr);
  Digest digest;
  sn_sha256_finish(static_cast<sn_sha256_state*>(state_), digest.data());
  state_ = nullptr;
  return digest;
}

SecretKey HmacSha256(ByteSpan key, ByteSpan message) {
  SecretKey out;
  SHOAL_CHECK(sn_hmac_sha256(key.data(), key.size(), message.data(), message.size(), out.bytes.data()) == SN_OK);
  return out;
}

SecretKey DeriveKey(ByteSpan secret, std::string_view label) {
  return HmacSha256(secret, {reinterpret_cast<const std::uint8_t*>(label.data()), label.size()});
}

Result<Bytes> Seal(const SecretKey& key, ByteSpan text) {
  Bytes out(text.size() + kSealOverheadBytes);
  const std::int64_t written = sn_seal(key.bytes.data(), nullptr, 0, text.data(), text.size(), out.data(), out.size());
  if (written != static_cast<std::int64_t>(out.size())) {
    return Error{ErrorCode::kInternal, "sealing failed with code " + std::to_string(written)};
  }
  return out;
}

std::optional<Bytes> Open(const SecretKey& key, ByteSpan sealed) {
  if (sealed.size() < kSealOverheadBytes) return std::nullopt;
  Bytes out(sealed.size() - kSealOverheadBytes);
  const std::int64_t written =
      sn_unseal(key.bytes.data(), nullptr, 0, sealed.data(), sealed.size(), out.data(), out.size());
  if (written != static_cast<std::int64_t>(out.size())) return std::nullopt;
  return out;
}

}  // namespace shoal
