// Instance numbers and the rule between clones.
#include "identity/instance.h"

#include <array>
#include <cstring>

#include "identity/crypto.h"

namespace shoal {
namespace {

// Uptimes closer than this decide nothing (they are measured with an error); further apart they decide alone. Between
// the two either rule is enough, so that two nodes on different sides of a limit cannot both stay.
constexpr std::int64_t kSureUs = 6'000'000;
constexpr std::int64_t kUnsureUs = 4'000'000;

}  // namespace

Result<InstanceNumber> MakeInstance() {
  InstanceNumber instance = 0;
  while (instance == 0) {
    std::array<std::uint8_t, sizeof instance> bytes{};
    SHOAL_RETURN_IF_ERROR(FillRandom(bytes));
    std::memcpy(&instance, bytes.data(), sizeof instance);
  }
  return instance;
}

bool GivesWay(const InstanceAge& mine, const InstanceAge& other) {
  if (mine.instance == other.instance) return false;
  // As unsigned, since ages said by others may be anything.
  const bool younger = mine.uptime_us < other.uptime_us;
  const std::int64_t low = younger ? mine.uptime_us : other.uptime_us;
  const std::int64_t high = younger ? other.uptime_us : mine.uptime_us;
  const std::uint64_t apart = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  const bool greater = mine.instance > other.instance;
  if (apart < static_cast<std::uint64_t>(kUnsureUs)) return greater;
  if (apart > static_cast<std::uint64_t>(kSureUs)) return younger;
  return younger || greater;
}

}  // namespace shoal
