// The few cryptographic functions that the rest of shoal needs, as plain functions over bytes.
//
// The work is done in net/ (audited Rust crates behind net/include/shoal_net.h); this file and certificate.h are all
// that C++ sees of it outside transport/. All functions are pure but FillRandom, never block, and may run on any
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal {

using Bytes = std::vector<std::uint8_t>;
using ByteSpan = std::span<const std::uint8_t>;

// 32 secret bytes: a cluster secret or a key derived from one. Equality takes the same time whatever the bytes are.
struct SecretKey {
  std::array<std::uint8_t, 32> bytes{};
  bool operator==(const SecretKey& other) const;
};

inline constexpr std::size_t kSealNonceBytes = 24;
inline constexpr std::size_t kSealTagBytes = 16;
inline constexpr std::size_t kSealOverheadBytes = kSealNonceBytes + kSealTagBytes;

// Random bytes of the operating system, fit for keys. Errors: kInternal (the system has none to give).
Status FillRandom(std::span<std::uint8_t> out);

// SHA-256 (FIPS 180-4).
using Digest = std::array<std::uint8_t, 32>;
Digest Sha256(ByteSpan message);
Digest Sha256(std::string_view text);

// The same of a message that comes piece by piece. One thread at a time.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(const Sha256Stream&) = delete;
  Sha256Stream& operator=(const Sha256Stream&) = delete;

  void Update(ByteSpan piece);  // before Finish (CHECK)
  Digest Finish();              // once (CHECK)

 private:
  void* state_;
};

// HMAC-SHA256 (RFC 2104) of `message` under `key`.
SecretKey HmacSha256(ByteSpan key, ByteSpan message);

// A key for one purpose: HMAC-SHA256(secret, label). Labels are constants of ours, one for each use.
SecretKey DeriveKey(ByteSpan secret, std::string_view label);

// XChaCha20-Poly1305 under a fresh random nonce: nonce (24) | ciphertext (as long as the text) | tag (16). The result
// looks random to whoever has no key. Errors: kInternal (no random bytes).
Result<Bytes> Seal(const SecretKey& key, ByteSpan text);

// What Seal was given; nothing when the key is another or one bit was changed. Costs one MAC for a forged packet.
std::optional<Bytes> Open(const SecretKey& key, ByteSpan sealed);

}  // namespace shoal
