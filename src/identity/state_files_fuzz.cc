// Any bytes as a file of SHOAL_HOME: reading never crashes, and what is accepted is written as it can be read again.
//
// The first byte says which file it is. Signatures stop nearly everything that no key made, so revocations that are
// sound are put between the bytes too.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "identity/keys.h"
#include "identity/state_files.h"

namespace shoal {
namespace {

struct Sound {
  NodeId cluster;
  Bytes entry;  // one revocation as it stands in the file
};

const Sound& SoundRevocation() {
  static const Sound sound = [] {
    const std::array<std::uint8_t, NodeKey::kSeedBytes> seed{1};
    const Result<NodeKey> cluster = NodeKey::FromSeed(seed);
    SHOAL_CHECK(cluster.ok());
    const Result<Revocation> revocation = IssueRevocation(*cluster, cluster->id(), 7, 1'800'000'000);
    SHOAL_CHECK(revocation.ok());
    return Sound{cluster->id(), EncodeRevocations({*revocation})};
  }();
  return sound;
}

void TryRevocations(ByteSpan bytes) {
  const Result<std::vector<Revocation>> revocations = ParseRevocations(bytes, SoundRevocation().cluster);
  SHOAL_CHECK(revocations.ok() || revocations.error().code == ErrorCode::kCorrupt);
  if (revocations.ok()) SHOAL_CHECK(EncodeRevocations(*revocations) == Bytes(bytes.begin(), bytes.end()));
}

void TryKnownMembers(ByteSpan bytes) {
  const Result<KnownMembers> members = ParseKnownMembers(bytes);
  SHOAL_CHECK(members.ok() || members.error().code == ErrorCode::kCorrupt);
  if (members.ok()) SHOAL_CHECK(*ParseKnownMembers(EncodeKnownMembers(*members)) == *members);
}

void TryNumber(ByteSpan bytes) {
  const Result<std::uint64_t> number = ParseNumber(bytes);
  SHOAL_CHECK(number.ok() || number.error().code == ErrorCode::kCorrupt);
  if (number.ok()) SHOAL_CHECK(*ParseNumber(EncodeNumber(*number)) == *number);
}

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const shoal::ByteSpan bytes(data + 1, size - 1);
  switch (data[0] % 8) {
    case 0: shoal::TryNumber(bytes); break;
    case 1: shoal::TryRevocations(bytes); break;
    case 2: {
      const shoal::Bytes& entry = shoal::SoundRevocation().entry;
      shoal::Bytes mixed(entry);
      mixed.insert(mixed.end(), bytes.begin(), bytes.end());
      mixed.insert(mixed.end(), entry.begin(), entry.end());
      shoal::TryRevocations(mixed);
      break;
    }
    case 4: shoal::TryKnownMembers(bytes); break;
    default: {
      const auto certificate = shoal::ParseCertificate(bytes, 0);
      if (certificate.ok()) SHOAL_CHECK(certificate->encoded == shoal::Bytes(bytes.begin(), bytes.end()));
    }
  }
  return 0;
}
